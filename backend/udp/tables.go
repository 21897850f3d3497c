package udp

import (
	"cmp"
	"net/netip"
	"slices"

	"flanneld/sorted"
	"flanneld/subnet"
)

// tables makes one table after the other. Each shares with the one before what the same peers have in it.
type tables struct {
	last   *table // the zero table at first
	peers  subnet.Peers
	paths  map[netip.Addr]*path // by public address
	claims *sorted.Set[claim]
	routes [families]routes
	hosts  [families]draft

	// Of the changes since last:
	changed bool
	touched []netip.Addr // that claims have come to or gone from
}

// claim says that packets from an underlay address may be those of the host of a lease. Of several to one address the
// first counts.
type claim struct {
	addr netip.Addr
	// second: addr is not the public address. Where addresses are translated, or have just changed, packets may come from
	// the host's own one as well; but nobody takes the public address of another host thereby.
	second bool
	*subnet.Lease
}

func byAddr(a, b claim) int {
	switch {
	case a.addr != b.addr:
		return a.addr.Compare(b.addr)
	case a.second && !b.second:
		return 1
	case !a.second && b.second:
		return -1
	}
	return cmp.Or(a.Subnet.Addr().Compare(b.Subnet.Addr()), cmp.Compare(a.Subnet.Bits(), b.Subnet.Bits()))
}

func newTables(networks []netip.Prefix) *tables {
	return &tables{last: &table{networks: networks}, paths: map[netip.Addr]*path{}, claims: sorted.New(byAddr)}
}

// next returns the table for these leases and underlay addresses of our own: the last one if it is the same. Each
// peer's address keeps its path.
func (t *tables) next(self []subnet.Lease, locals []netip.Addr, peers subnet.Peers) *table {
	for old, now := range subnet.PeerChanges(t.peers, peers) {
		t.change(old, now)
	}
	t.peers = peers
	t.settle()
	return t.freeze(self, locals)
}

// change takes in that a subnet has another lease, or none, before or after; nil: none.
func (t *tables) change(old, now *subnet.Lease) {
	if old != nil {
		t.claims.Delete(claim{old.PublicIP, false, old})
		t.touched = append(t.touched, old.PublicIP)
		if old.Underlay.IsValid() {
			t.claims.Delete(claim{old.Underlay, true, old})
			t.touched = append(t.touched, old.Underlay)
		}
	}
	if now == nil {
		t.changed = t.routes[familyOf(old.Subnet.Addr())].delete(old.Subnet) || t.changed
		return
	}
	t.claims.Put(claim{now.PublicIP, false, now})
	t.touched = append(t.touched, now.PublicIP)
	if now.Underlay.IsValid() {
		t.claims.Put(claim{now.Underlay, true, now})
		t.touched = append(t.touched, now.Underlay)
	}
	to, ok := t.paths[now.PublicIP]
	if !ok {
		to = &path{addr: now.PublicIP, family: familyOf(now.PublicIP)}
		t.paths[now.PublicIP] = to
	}
	t.changed = t.routes[familyOf(now.Subnet.Addr())].put(now.Subnet, to) || t.changed
}

// settle finds out whose packets come from the addresses that were touched, and drops the paths to those that no host
// has any more: a host whose subnet has changed keeps its own.
func (t *tables) settle() {
	for _, addr := range t.touched {
		hosts := &t.hosts[familyOf(addr)]
		first, ok := t.first(addr)
		if ok {
			t.changed = hosts.put(keyOf(addr), t.paths[first.PublicIP]) || t.changed
		} else {
			t.changed = hosts.delete(keyOf(addr)) || t.changed
		}
		if !ok || first.second {
			delete(t.paths, addr)
		}
	}
	t.touched = nil
}

// first returns the claim that counts at an address.
func (t *tables) first(addr netip.Addr) (claim, bool) {
	for c := range t.claims.From(claim{addr: addr, Lease: &subnet.Lease{}}) {
		return c, c.addr == addr
	}
	return claim{}, false
}

// freeze returns the table of what has been taken in.
func (t *tables) freeze(self []subnet.Lease, locals []netip.Addr) *table {
	now := *t.last
	now.self, now.own = nil, [families]netip.Addr{}
	for _, l := range self {
		now.self = append(now.self, l.Subnet)
		now.own[familyOf(l.Subnet.Addr())] = l.Subnet.Addr()
	}
	if !t.changed && slices.Equal(now.self, t.last.self) && slices.Equal(locals, t.last.locals) {
		return t.last
	}
	now.locals = slices.Clone(locals)
	for f := range families {
		now.peers[f], now.hosts[f] = t.routes[f].freeze(), t.hosts[f].freeze()
	}
	t.last, t.changed = &now, false
	return &now
}
