package backend

import (
	"fmt"
	"net/netip"
	"slices"

	"flanneld/ip"
	"flanneld/subnet"
)

// member is one planner of an Applier. Only the goroutine of Set changes its fields.
type member struct {
	Planner
	kind   string // of backend, as records name it
	data   string // published with an IPv4 lease
	routes Routes

	// Only where there is more than one way to a peer:

	lens  *lens
	fold  *Fold       // the routes to peers of a planner that has one for each network
	last  ip.Snapshot // of its own plan
	short string      // why it does not do all that it should; empty: it does
}

func newMember(p Planner) *member {
	a := p.Attrs(anyIPv4)
	m := &member{Planner: p, kind: a.BackendType, data: a.BackendData}
	if r, ok := p.(Router); ok {
		m.routes = r.Routes()
	}
	return m
}

// anyIPv4 asks Attrs for what does not depend on the subnet.
var anyIPv4 = netip.PrefixFrom(netip.IPv4Unspecified(), 0)

// lens is how a member sees the peers, for as long as nothing else decides about that.
type lens struct {
	depends any // comparable
	all     *subnet.Selected
	routed  *subnet.Selected
}

// as returns a lease as it is by this backend; false: its host does not have it, or not one that goes with this host's.
func (m *member) as(l subnet.Lease) (subnet.Lease, bool) {
	for _, way := range l.Ways() {
		if by := l.By(way); way.Type == m.kind && m.Valid(by) == nil {
			return by, true
		}
	}
	return l, false
}

// seen are peers as one planner is given them.
type seen struct {
	all    subnet.Peers // those that have the backend
	routed subnet.Peers // those of them that routes may lead to
}

// ranks is what decides about the path to a peer: the planners from the preferred one on, with what each reaches.
type ranks struct {
	members []*member
	reaches []func(netip.Addr) bool
	ready   []func(subnet.Lease) bool
	depends string // what the answers depend on
}

// rank asks the planners what they reach.
func rank(members []*member) ranks {
	r := ranks{members: members}
	for _, m := range members {
		reaches, during := func(netip.Addr) bool { return true }, any(nil)
		if one, ok := m.Planner.(Reacher); ok {
			reaches, during = one.Reach()
		}
		ready, until := func(subnet.Lease) bool { return true }, any(nil)
		if one, ok := m.Planner.(Establisher); ok {
			ready, until = one.Established()
		}
		r.reaches, r.ready = append(r.reaches, reaches), append(r.ready, ready)
		r.depends += fmt.Sprintf("%p %v %v ", m, during, until)
	}
	return r
}

// has returns a lease as member i sees it, if that has a path to its host.
func (r ranks) has(i int, l subnet.Lease) (subnet.Lease, bool) {
	by, ok := r.members[i].as(l)
	return by, ok && r.reaches[i](l.PublicIP)
}

// uses returns a lease as member i sees it, if packets may be sent to its host that way: nobody waits for keys where
// another member carries packets already.
func (r ranks) uses(i int, l subnet.Lease) (subnet.Lease, bool) {
	by, ok := r.has(i, l)
	return by, ok && !r.waits(i, by, l)
}

// waits reports whether a peer, by is its lease as member i sees it, is reached by another member until there are keys.
func (r ranks) waits(i int, by, l subnet.Lease) bool {
	if r.ready[i](by) {
		return false
	}
	for j := range r.members {
		if other, ok := r.has(j, l); ok && j != i && r.ready[j](other) {
			return true
		}
	}
	return false
}

// carrier returns the member that a peer is sent to by; -1: there is none.
func (r ranks) carrier(l subnet.Lease) int {
	for i := range r.members {
		if _, ok := r.uses(i, l); ok {
			return i
		}
	}
	return -1
}

// awaited names a peer that the first member does not carry packets to yet; empty: there is none.
func (r ranks) awaited(peers subnet.Peers) string {
	if _, ok := r.members[0].Planner.(Establisher); !ok || len(r.members) == 1 {
		return ""
	}
	for l := range peers.All() {
		if by, ok := r.has(0, l); ok && r.waits(0, by, l) {
			return l.String()
		}
	}
	return ""
}

// see returns the peers as member i is to be given them.
func (r ranks) see(i int, peers, routed subnet.Peers) seen {
	m := r.members[i]
	if m.lens == nil || m.lens.depends != r.depends {
		m.lens = &lens{
			depends: r.depends,
			all:     subnet.NewSelected(m.as),
			routed:  subnet.NewSelected(func(l subnet.Lease) (subnet.Lease, bool) { return r.uses(i, l) }),
		}
	}
	return seen{m.lens.all.Follow(peers), m.lens.routed.Follow(routed)}
}

// unreached names a peer that has the backend, and that this host does not reach by it; empty: there is none.
func (r ranks) unreached(i int, all subnet.Peers) string {
	if _, ok := r.members[i].Planner.(Reacher); !ok {
		return ""
	}
	for l := range all.All() {
		if !r.reaches[i](l.PublicIP) {
			return l.String()
		}
	}
	return ""
}

// pathless says why peers are left out that no planner has a path to.
func (r ranks) pathless(peers subnet.Peers) map[netip.Prefix]string {
	out := map[netip.Prefix]string{}
	for l := range peers.All() {
		if r.carrier(l) < 0 {
			out[l.Subnet] = "no backend that both hosts have reaches it"
		}
	}
	return out
}

// narrowest returns the smallest MTU of all planners. Routes of the others have it while there are several: pods learn
// it before the path changes, while the one that they learn it on carries packets, and keep it until there is no way
// back.
func narrowest(members []*member) int {
	mtu := members[0].MTU()
	for _, m := range members[1:] {
		mtu = min(mtu, m.MTU())
	}
	return mtu
}

// paths adds to the plan of a planner with one route for each network a route for each peer, which takes the place of
// that of a planner behind it. Only the first such planner keeps the routes of the networks.
func (m *member) paths(want ip.Snapshot, networks []netip.Prefix, routed subnet.Peers, keeps bool) ip.Snapshot {
	var wide []ip.Route
	for _, n := range networks {
		if r, ok := want.Routes.Find(ip.Route{Dst: n}); ok {
			wide = append(wide, r)
		}
		if !keeps {
			want = want.WithoutRoute(n)
		}
	}
	if m.fold == nil {
		m.fold = NewFold(ip.Host{})
	}
	m.fold.Start(nil, fmt.Sprint(wide))
	return want.With(m.fold.Follow(routed, func(l *subnet.Lease) []ip.Object {
		i := slices.IndexFunc(wide, func(r ip.Route) bool { return r.Dst.Contains(l.Subnet.Addr()) })
		if i < 0 {
			return nil
		}
		r := wide[i]
		r.Dst = l.Subnet
		return []ip.Object{r}
	}))
}
