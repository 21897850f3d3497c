// Package reach remembers which peers are on the underlay link, so that backends with tunnels can route to them
// directly. The kernel is asked once for each address, and again after its routes may have changed.
package reach

import (
	"net/netip"
	"slices"
	"sync/atomic"

	"flanneld/ip"
)

// Reach is what the kernel's routes have said of peers. Start is called by the goroutine that makes the passes, Observe
// by any.
type Reach struct {
	on       bool // never changes
	networks []netip.Prefix
	link     atomic.Pointer[string] // of the underlay
	stale    atomic.Bool            // written by any goroutine

	known map[netip.Addr]bool // of the goroutine that makes the passes, like all below
	alone bool                // the underlay has no neighbours
	epoch uint64
}

// Epoch is the time in which answers stay the same: those of two passes in one are equal.
type Epoch struct {
	Link string // of the underlay
	n    uint64
}

// New returns one; off, it takes no peer to be on the link. networks are those of the pods.
func New(on bool, networks []netip.Prefix) *Reach { return &Reach{on: on, networks: networks} }

// Start begins a pass on an underlay. Where that has no neighbours, nobody is on the link: a VPN would drop packets to
// pods, whose addresses it does not know. It returns the function that decides for one address.
func (r *Reach) Start(k ip.Kernel, u ip.Underlay) (direct func(netip.Addr) bool, during Epoch) {
	if !r.on {
		return func(netip.Addr) bool { return false }, Epoch{Link: u.Link}
	}
	before := r.link.Swap(&u.Link)
	if r.stale.Swap(false) || before == nil || *before != u.Link || r.alone != u.NoNeighbours {
		r.known, r.alone, r.epoch = map[netip.Addr]bool{}, u.NoNeighbours, r.epoch+1
	}
	return func(a netip.Addr) bool {
		direct, ok := r.known[a]
		if !ok {
			hop, err := k.RouteTo(a)
			direct = err == nil && hop.Link == u.Link && !hop.Via.IsValid() && !u.NoNeighbours
			r.known[a] = direct
		}
		return direct
	}, Epoch{u.Link, r.epoch}
}

// Observe reports whether the way to peers may have changed. The routes of pods, which come and go, cannot do that.
func (r *Reach) Observe(ev ip.Event) bool {
	if !r.on {
		return false
	}
	concerned := true
	switch o := ev.Object.(type) {
	case ip.Link, ip.Addr:
		link := r.link.Load()
		concerned = link == nil || *link == o.Device()
	case ip.Route:
		concerned = o.Protocol != ip.Protocol && !slices.ContainsFunc(r.networks, func(n netip.Prefix) bool {
			return n.Bits() <= o.Dst.Bits() && n.Contains(o.Dst.Addr())
		})
	case ip.FDB, ip.Neigh:
		concerned = false
	}
	if concerned {
		r.stale.Store(true)
	}
	return concerned
}
