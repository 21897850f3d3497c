// Package skip decides which peers a backend leaves out although their leases are valid: those whose route would take
// from this host what it reaches otherwise. Peers that are left out are named in the log, and in the status for as long
// as they are.
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

// Filter is used by the goroutine that makes the passes: Begin, then End. The other methods may be called by any.
type Filter struct {
	host      ip.Host
	networks  []netip.Prefix
	connected []ip.Connected          // of the last pass
	peers     subnet.Peers            // of the last pass
	counts    map[netip.Addr]int      // public addresses of peers inside the networks
	public    []netip.Addr            // the same, sorted
	reasons   map[netip.Prefix]string // why no route may lead to peers; few

	mu       sync.Mutex              // guards all below
	skipped  map[netip.Prefix]string // never changed
	problems []string                // never changed
}

// New returns a filter that leaves out nobody.
func New(h ip.Host, networks []netip.Prefix) *Filter {
	return &Filter{host: h, networks: networks, counts: map[netip.Addr]int{}, reasons: map[netip.Prefix]string{}}
}

// Begin begins a pass, and returns the peers that routes may lead to.
func (f *Filter) Begin(self []subnet.Lease, peers subnet.Peers) subnet.Peers {
	connected := f.reserved(self)
	changed := !slices.Equal(connected, f.connected)
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
	if moved {
		f.public = slices.SortedFunc(maps.Keys(f.counts), netip.Addr.Compare)
	}
	before := f.peers
	if changed || moved {
		before = subnet.Peers{}
		clear(f.reasons)
	}
	f.peers = peers
	f.follow(before, peers)
	if len(f.reasons) == 0 {
		return peers
	}
	return peers.Without(func(p netip.Prefix) bool { return f.reasons[p] != "" })
}

// follow finds out which of the peers that have changed no route may lead to.
func (f *Filter) follow(before, now subnet.Peers) {
	if len(f.connected)+len(f.public)+len(f.reasons) == 0 {
		return
	}
	for old, now := range subnet.PeerChanges(before, now) {
		if old != nil {
			delete(f.reasons, old.Subnet)
		}
		if now == nil {
			continue
		}
		if why := f.why(now.Subnet); why != "" {
			f.reasons[now.Subnet] = why
		}
	}
}

// reserved returns what no peer may have: all that the host is connected to, but for the bridge that its own pods are
// on.
func (f *Filter) reserved(self []subnet.Lease) []ip.Connected {
	if f.host.Connected == nil {
		return nil
	}
	underlay := f.host.Underlay().Link
	return slices.DeleteFunc(slices.Clone(f.host.Connected()), func(c ip.Connected) bool {
		return c.Link != "" && c.Link != underlay &&
			slices.ContainsFunc(self, func(l subnet.Lease) bool { return l.Subnet.Contains(c.Prefix.Addr()) })
	})
}

// count adds to how many peers have an address, and reports whether it has come or gone.
func (f *Filter) count(a netip.Addr, n int) (changed bool) {
	a = a.WithZone("")
	if !inside(f.networks, a) {
		return false
	}
	before := f.counts[a]
	f.counts[a] += n
	if f.counts[a] == 0 {
		delete(f.counts, a)
	}
	return (before == 0) != (f.counts[a] == 0)
}

// why says why no route may lead to a range; empty: one may. A route that is as long as one of others, or longer, or
// has a lower metric, takes packets from it without replacing it.
func (f *Filter) why(p netip.Prefix) string {
	for _, c := range f.connected {
		if !c.Prefix.Overlaps(p) {
			continue
		}
		if c.Link == "" {
			return fmt.Sprintf("its subnet contains the store's address %s", c.Prefix.Addr())
		}
		return fmt.Sprintf("its subnet overlaps %s, which %s of this host is connected to", c.Prefix.Masked(), c.Link)
	}
	if i, _ := slices.BinarySearchFunc(f.public, p.Addr(), netip.Addr.Compare); i < len(f.public) &&
		p.Contains(f.public[i]) {
		return fmt.Sprintf("its subnet contains %s, the public address of a host", f.public[i])
	}
	return ""
}

// Networks returns a state without the routes of whole networks that this host is connected to, and says which are
// missing. A route may be wider than what an interface is connected to.
func (f *Filter) Networks(want ip.Snapshot) (allowed ip.Snapshot, problems []string) {
	for _, n := range f.networks {
		i := slices.IndexFunc(f.connected, func(c ip.Connected) bool { return c.Prefix.Masked() == n })
		if i >= 0 {
			problems = append(problems, fmt.Sprintf("the route of the network %s is missing: %s is connected to the "+
				"same network", n, f.connected[i].Link))
			want = want.WithoutRoute(n)
		}
	}
	return want, problems
}

// Outside returns an error if the host of a lease is inside the networks of pods: where one route leads to a whole
// network, it takes the tunnel's own packets along.
func Outside(networks []netip.Prefix, l subnet.Lease) error {
	if inside(networks, l.PublicIP) {
		return fmt.Errorf("its public IP %s is inside the network of the pods: tunnel packets to it would be routed into "+
			"the tunnel", l.PublicIP)
	}
	return nil
}

func inside(networks []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(networks, func(n netip.Prefix) bool { return n.Contains(a) })
}

// End ends a pass. more are the peers that the backend leaves out for its own reasons; conflicts are the routes that
// are missing.
func (f *Filter) End(more map[netip.Prefix]string, conflicts []ip.Conflict, problems ...string) {
	skipped := maps.Clone(f.reasons)
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
