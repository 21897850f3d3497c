package udp

import (
	"net/netip"
	"slices"

	"flanneld/subnet"
)

// family is the place of an address family in arrays.
type family uint8

const (
	ipv4 family = iota
	ipv6
	families
)

func familyOf(a netip.Addr) family {
	if a.Is4() {
		return ipv4
	}
	return ipv6
}

// table says where packets go and whose are believed. It is never changed once it is in use, so that any number of workers may
// read it.
type table struct {
	networks []netip.Prefix
	self     []netip.Prefix
	own      [families]netip.Addr // our address on the device, the source of ICMP errors
	peers    [families]lookup
	hosts    map[netip.Addr]*path // by underlay address
	locals   []netip.Addr         // our own underlay addresses, which no peer may use as a source
}

// newTable makes a table. paths keeps the path of each peer's address from one table to the next.
func newTable(networks []netip.Prefix, self, peers []subnet.Lease, paths map[netip.Addr]*path) *table {
	t := &table{networks: networks, hosts: make(map[netip.Addr]*path, len(peers))}
	var leases [families][]destination
	for _, l := range self {
		t.self = append(t.self, l.Subnet)
		t.own[familyOf(l.Subnet.Addr())] = l.Subnet.Addr()
	}
	for _, l := range peers {
		p, ok := paths[l.PublicIP]
		if !ok {
			p = &path{addr: l.PublicIP, family: familyOf(l.PublicIP)}
			paths[l.PublicIP] = p
		}
		t.hosts[l.PublicIP] = p
		f := familyOf(l.Subnet.Addr())
		leases[f] = append(leases[f], destination{l.Subnet, p})
	}
	// Where addresses are translated, or have just changed, a peer's packets may come from its own address as well.
	for _, l := range peers {
		if _, taken := t.hosts[l.Underlay]; l.Underlay.IsValid() && !taken {
			t.hosts[l.Underlay] = paths[l.PublicIP]
		}
	}
	for f := range t.peers {
		t.peers[f] = newLookup(leases[f])
	}
	for addr := range paths {
		if _, ok := t.hosts[addr]; !ok {
			delete(paths, addr)
		}
	}
	return t
}

// route returns the path to an inner address; nil if there is none.
func (t *table) route(dst netip.Addr) *path { return t.peers[familyOf(dst)].find(dst) }

// host returns the path of the peer with this underlay address; nil if there is none.
func (t *table) host(addr netip.Addr) *path { return t.hosts[addr] }

// check says why a packet from a peer is not to be believed; passed if it is.
func (t *table) check(from *path, src, dst netip.Addr) counter {
	if !contains(t.self, dst) {
		return dropDestination
	}
	if contains(t.networks, src) && t.route(src) != from || slices.Contains(t.locals, src) {
		return dropSource
	}
	return passed
}

func contains(prefixes []netip.Prefix, a netip.Addr) bool {
	for _, p := range prefixes {
		if p.Contains(a) {
			return true
		}
	}
	return false
}
