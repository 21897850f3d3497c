package backend

import (
	"maps"
	"net/netip"
	"slices"

	"flanneld/ip"
	"flanneld/subnet"
)

// Attrs returns what this host publishes with the lease of a subnet: the first backend, and the others as offers, as
// far as the kernel has them.
func (a *Applier) Attrs(prefix netip.Prefix) subnet.Attrs {
	members := a.list()
	attrs := members[0].Attrs(prefix)
	var offers []subnet.Offer
	for _, m := range members[1:] {
		one := m.Attrs(prefix)
		offers = append(offers, subnet.Offer{Type: one.BackendType, Data: one.BackendData})
	}
	attrs.Offers = subnet.OffersText(offers)
	return attrs
}

// MTU returns the largest packet, in bytes, that pods may send.
func (a *Applier) MTU() int { return a.list()[0].MTU() }

// PathMTU returns the largest packet, in bytes, that every peer gets. While there are several backends it is the
// smallest of their MTUs, because some peers are reached by one of them and some by another. Pods learn it from the
// routes, and may have a larger MTU.
func (a *Applier) PathMTU() int {
	a.mu.Lock()
	members := slices.Concat(a.next, a.published)
	a.mu.Unlock()
	return narrowest(members)
}

// Valid says why a lease cannot be that of a peer; nil if it can. The answer is the same until Use is called.
func (a *Applier) Valid(l subnet.Lease) error {
	a.mu.Lock()
	members := a.next
	a.mu.Unlock()
	if len(members) == 1 && l.Offers == "" {
		return members[0].Valid(l)
	}
	for _, m := range members {
		if _, ok := m.as(l); ok {
			return nil
		}
	}
	return members[0].Valid(l)
}

// list returns the planners whose objects the kernel has. Nobody may change it.
func (a *Applier) list() []*member {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.published
}

// Planners returns the planners whose objects the kernel has, the preferred one first.
func (a *Applier) Planners() (out []Planner) {
	for _, m := range a.list() {
		out = append(out, m.Planner)
	}
	return out
}

// Scope returns what may be left in the kernel, for the next run to clean up.
func (a *Applier) Scope() ip.Scope {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.scope
}

// Drift returns how many objects were found changed by others since the start, by kind.
func (a *Applier) Drift() [ip.Kinds]int { return a.reconciler.Drift() }

// Rival names another flannel that has changed objects of this daemon and still runs; empty: there is none.
func (a *Applier) Rival() string { return a.reconciler.Rival() }

// Skipped returns the peers that the last pass has left out, by subnet, and why. Nobody may change it.
func (a *Applier) Skipped() map[netip.Prefix]string { return a.filter.Skipped() }

// Problems says what else the last pass has left out. Nobody may change it.
func (a *Applier) Problems() []string { return a.filter.Problems() }

// Carries reports whether there is a data plane at all.
func (a *Applier) Carries() bool { return carries(a.list()) }

// MACs returns the hardware addresses of the backends' devices, to be kept for the next run. Nobody may change it.
func (a *Applier) MACs() map[string]ip.MAC {
	var all map[string]ip.MAC
	for _, m := range a.list() {
		p, ok := m.Planner.(Addressed)
		if !ok {
			continue
		}
		if all == nil {
			all = map[string]ip.MAC{}
		}
		maps.Copy(all, p.MACs())
	}
	return all
}

// Tunnels returns where packets of peers arrive that a firewall can tell from others, each once: those of the next
// pass, and those that the kernel still has.
func (a *Applier) Tunnels() (out []Tunnel) {
	a.mu.Lock()
	members := slices.Concat(a.next, a.published)
	a.mu.Unlock()
	for _, m := range members {
		i, ok := m.Planner.(Ingress)
		if !ok {
			continue
		}
		port, vni := i.Ingress()
		if t := (Tunnel{port, vni}); !slices.Contains(out, t) {
			out = append(out, t)
		}
	}
	return out
}

// Tunnel is a UDP port that packets of peers arrive at, and the VXLAN network identifier in them; 0: it is not VXLAN.
type Tunnel struct {
	Port uint16
	VNI  uint32
}

// offers counts the peers that can be reached in more than one way.
type offers struct {
	peers subnet.Peers
	n     int
}

// follow reports whether there are such peers.
func (o *offers) follow(peers subnet.Peers) bool {
	for old, now := range subnet.PeerChanges(o.peers, peers) {
		if old != nil && old.Offers != "" {
			o.n--
		}
		if now != nil && now.Offers != "" {
			o.n++
		}
	}
	o.peers = peers
	return o.n > 0
}
