package udp

import (
	"net/netip"
	"slices"
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

// table says where packets go and whose are believed. It is never changed once it is in use, so that any number of
// workers may read it.
type table struct {
	networks []netip.Prefix
	self     []netip.Prefix
	own      [families]netip.Addr // our address on the device, the source of ICMP errors
	locals   []netip.Addr         // our own underlay addresses, which no peer may use as a source
	peers    [families]lookup
	hosts    [families]index // by underlay address
}

// route returns the path to an inner address; nil if there is none.
func (t *table) route(dst netip.Addr) *path { return t.peers[familyOf(dst)].find(dst) }

// host returns the path of the peer with this underlay address; nil if there is none.
func (t *table) host(addr netip.Addr) *path { return t.hosts[familyOf(addr)].find(keyOf(addr)) }

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
