// Package skip decides which peers a backend leaves out although their leases are valid: those whose route would take from this host what
// it reaches otherwise. Peers that are left out are named in the log, and in the status for as long as they are.
package skip

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"

	"flanneld/ip"
	"flanneld/subnet"
)

// Filter is used by the goroutine that makes the passes: Begin, Why for each peer, End. The other methods may be called by any.
type Filter struct {
	host      ip.Host
	networks  []netip.Prefix
	connected []ip.Connected     // of the last pass
	peers     subnet.Peers       // of the last pass
	counts    map[netip.Addr]int // public addresses of peers inside the networks
	public    []netip.Addr       // the same, sorted

	mu       sync.Mutex              // guards all below
	skipped  map[netip.Prefix]string // never changed
	problems []string                // never changed
}

// New returns a filter that leaves out nobody.
func New(h ip.Host, networks []netip.Prefix) *Filter {
	return &Filter{host: h, networks: networks, counts: map[netip.Addr]int{}}
}

// Begin begins a pass, and reports whether Why may answer otherwise than in the last one.
func (f *Filter) Begin(self []subnet.Lease, peers subnet.Peers) (changed bool) {
	connected := f.reserved(self)
	changed = !slices.Equal(connected, f.connected)
	f.connected = connected
	moved := false
	for old, now := range subnet.PeerChanges(f.peers, peers) {
		if old != nil {
			moved = f.count(old.PublicIP, -1) || moved
		}
		if now != nil {
			moved = f.count(now.PublicIP, 1) || moved
		}
	}
	f.peers = peers
	if moved {
		f.public = slices.SortedFunc(maps.Keys(f.counts), netip.Addr.Compare)
	}
	return changed || moved
}

// reserved returns what no peer may have: all that the host is connected to, but for the bridge that its own pods are on.
func (f *Filter) reserved(self []subnet.Lease) []ip.Connected {
	if f.host.Connected == nil {
		return nil
	}
	underlay := f.host.Underlay().Link
	return slices.DeleteFunc(slices.Clone(f.host.Connected()), func(c ip.Connected) bool {
		return c.Link != "" && c.Link != underlay && slices.ContainsFunc(self, func(l subnet.Lease) bool { return l.Subnet.Contains(c.Prefix.Addr()) })
	})
}

// count adds to how many peers have an address, and reports whether it has come or gone.
func (f *Filter) count(a netip.Addr, n int) (changed bool) {
	a = a.WithZone("")
	if !f.inside(a) {
		return false
	}
	before := f.counts[a]
	f.counts[a] += n
	if f.counts[a] == 0 {
		delete(f.counts, a)
	}
	return (before == 0) != (f.counts[a] == 0)
}

// Why says why no route may lead to a range; empty: one may. A route that is as long as one of others, or longer, or has a lower metric, takes
// packets from it without replacing it.
func (f *Filter) Why(p netip.Prefix) string {
	for _, c := range f.connected {
		if !c.Prefix.Overlaps(p) {
			continue
		}
		if c.Link == "" {
			return fmt.Sprintf("its subnet contains the store's address %s", c.Prefix.Addr())
		}
		return fmt.Sprintf("its subnet overlaps %s, which %s of this host is connected to", c.Prefix.Masked(), c.Link)
	}
	if i, _ := slices.BinarySearchFunc(f.public, p.Addr(), netip.Addr.Compare); i < len(f.public) && p.Contains(f.public[i]) {
		return fmt.Sprintf("its subnet contains %s, the public address of a host", f.public[i])
	}
	return ""
}

// Routed returns the networks that one route each may lead to, and what is wrong with the others: the host is connected to just that range. A
// route may be wider than such a range.
func (f *Filter) Routed() (networks []netip.Prefix, problems []string) {
	for _, n := range f.networks {
		i := slices.IndexFunc(f.connected, func(c ip.Connected) bool { return c.Prefix.Masked() == n })
		if i >= 0 {
			problems = append(problems, fmt.Sprintf("the route of the network %s is missing: %s is connected to the same network", n, f.connected[i].Link))
			continue
		}
		networks = append(networks, n)
	}
	return networks, problems
}

// Outside returns an error if the host of a lease is inside the network: where one route leads to a whole network, it takes the tunnel's own
// packets along. Any goroutine may call it.
func (f *Filter) Outside(l subnet.Lease) error {
	if f.inside(l.PublicIP) {
		return fmt.Errorf("its public IP %s is inside the network of the pods: tunnel packets to it would be routed into the tunnel", l.PublicIP)
	}
	return nil
}

func (f *Filter) inside(a netip.Addr) bool {
	return slices.ContainsFunc(f.networks, func(n netip.Prefix) bool { return n.Contains(a) })
}

// End ends a pass. more are the peers that the backend leaves out for its own reasons; conflicts are the routes that are missing.
func (f *Filter) End(more map[netip.Prefix]string, conflicts []ip.Conflict, problems ...string) {
	skipped := map[netip.Prefix]string{}
	if len(f.connected)+len(f.public) > 0 {
		for l := range f.peers.All() {
			if why := f.Why(l.Subnet); why != "" {
				skipped[l.Subnet] = why
			}
		}
	}
	for _, c := range conflicts {
		if _, ok := f.peers.Find(c.Want.Dst); ok && c.Want.Metric == 0 {
			skipped[c.Want.Dst] = c.Error()
		} else {
			problems = append(problems, c.Error())
		}
	}
	maps.Copy(skipped, more)
	f.mu.Lock()
	before, said := f.skipped, f.problems
	f.skipped, f.problems = skipped, problems
	f.mu.Unlock()
	f.say(before, skipped)
	for _, p := range problems {
		if !slices.Contains(said, p) {
			f.host.Log.Warn("route skipped", "reason", p)
		}
	}
}

// say logs who is left out from now on, and who is not any more.
func (f *Filter) say(before, now map[netip.Prefix]string) {
	for _, p := range sortedKeys(now) {
		if before[p] == now[p] {
			continue
		}
		peer := p.String()
		if l, ok := f.peers.Find(p); ok {
			peer = l.String()
		}
		f.host.Log.Warn("peer skipped", "peer", peer, "reason", now[p])
	}
	for _, p := range sortedKeys(before) {
		if now[p] == "" {
			f.host.Log.Info("peer no longer skipped", "subnet", p.String())
		}
	}
}

func sortedKeys(m map[netip.Prefix]string) []netip.Prefix {
	return slices.SortedFunc(maps.Keys(m), netip.Prefix.Compare)
}

// Skipped returns the peers that the last pass has left out, by subnet, and why. Nobody may change it.
func (f *Filter) Skipped() map[netip.Prefix]string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.skipped
}

// Problems says what else the last pass has left out. Nobody may change it.
func (f *Filter) Problems() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.problems
}
