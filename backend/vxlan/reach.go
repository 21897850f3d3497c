package vxlan

import (
	"net/netip"
	"slices"
	"sync/atomic"

	"flanneld/ip"
)

// reach remembers which peers are on the underlay link, as the kernel's routes say, until those may have changed.
type reach struct {
	on       bool // never changes
	networks []netip.Prefix
	link     atomic.Pointer[string] // of the underlay
	stale    atomic.Bool            // written by any goroutine

	known map[netip.Addr]bool // of the goroutine that makes the passes, like all below
	alone bool                // the underlay has no neighbours
}

// start begins a pass on an underlay. Where that has no neighbours, nobody is on the link: a VPN would drop packets to pods, whose addresses it does
// not know. It returns the function that decides for one address, and whether its answers may be others than those of the last pass.
func (r *reach) start(k ip.Kernel, u ip.Underlay) (direct func(netip.Addr) bool, moved bool) {
	if !r.on {
		return func(netip.Addr) bool { return false }, false
	}
	before := r.link.Swap(&u.Link)
	if r.stale.Swap(false) || before == nil || *before != u.Link || r.alone != u.NoNeighbours {
		r.known, r.alone, moved = map[netip.Addr]bool{}, u.NoNeighbours, true
	}
	return func(a netip.Addr) bool {
		direct, ok := r.known[a]
		if !ok {
			hop, err := k.RouteTo(a)
			direct = err == nil && hop.Link == u.Link && !hop.Via.IsValid() && !u.NoNeighbours
			r.known[a] = direct
		}
		return direct
	}, moved
}

// observe reports whether the way to peers may have changed. The routes of pods, which come and go, cannot do that.
func (r *reach) observe(ev ip.Event) bool {
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
