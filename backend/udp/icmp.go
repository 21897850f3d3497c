package udp

import (
	"encoding/binary"
	"net/netip"
)

// icmpError is what a router reports about a packet.
type icmpError uint8

const (
	noRoute icmpError = iota
	hopsExceeded
	tooBig
)

// Type and code of each error (RFC 792, RFC 1191, RFC 4443).
var icmpTypes = [families][3][2]uint8{
	ipv4: {noRoute: {3, 0}, hopsExceeded: {11, 0}, tooBig: {3, 4}},
	ipv6: {noRoute: {1, 0}, hopsExceeded: {3, 0}, tooBig: {2, 0}},
}

const (
	// The whole error message stays below what every host can take (RFC 1812, section 4.3.2.3; RFC 4443, section 2.4).
	maxError4 = 576
	maxError6 = 1280
	errorHops = 64
)

// mayReport reports whether a router may answer a packet with an ICMP error (RFC 1122, section 3.2.2; RFC 4443,
// section 2.4). Unreachable networks are not told to any kind of ICMP.
func mayReport(what icmpError, p []byte, h *header) bool {
	if h.later || !isHost(h.src) {
		return false
	}
	if !isHost(h.dst) && !(what == tooBig && h.family == ipv6) {
		return false
	}
	if h.protocol != protoICMP && h.protocol != protoICMPv6 {
		return true
	}
	if what == noRoute || h.size >= h.total {
		return false
	}
	kind := p[h.size]
	if h.family == ipv6 {
		return kind >= 128
	}
	switch kind {
	case 3, 4, 5, 11, 12:
		return false
	}
	return true
}

func isHost(a netip.Addr) bool {
	return !a.IsMulticast() && !a.IsUnspecified() && !a.IsLoopback() && a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

// putError writes an ICMP error about packet p into b and returns its length. mtu is for tooBig.
func putError(b []byte, what icmpError, p []byte, h *header, own netip.Addr, mtu int) int {
	kind := icmpTypes[h.family][what]
	if h.family == ipv4 {
		const headers = 20 + 8
		n := headers + copy(b[headers:maxError4], p)
		clear(b[:headers])
		b[0], b[1], b[8], b[9] = 0x45, 0xc0, errorHops, protoICMP // internetwork control, as RFC 1812 asks
		binary.BigEndian.PutUint16(b[2:], uint16(n))
		putAddrs(b[12:], own, h.src)
		binary.BigEndian.PutUint16(b[10:], ^sum(b[:20], 0))
		b[20], b[21] = kind[0], kind[1]
		if what == tooBig {
			binary.BigEndian.PutUint16(b[26:], uint16(mtu))
		}
		binary.BigEndian.PutUint16(b[22:], ^sum(b[20:n], 0))
		return n
	}
	const headers = 40 + 8
	n := headers + copy(b[headers:maxError6], p)
	clear(b[:headers])
	b[0], b[6], b[7] = 0x60, protoICMPv6, errorHops
	binary.BigEndian.PutUint16(b[4:], uint16(n-40))
	putAddrs(b[8:], own, h.src)
	b[40], b[41] = kind[0], kind[1]
	if what == tooBig {
		binary.BigEndian.PutUint32(b[44:], uint32(mtu))
	}
	binary.BigEndian.PutUint16(b[42:], ^sum(b[40:n], pseudo(b[8:40], protoICMPv6, n-40)))
	return n
}

func putAddrs(b []byte, src, dst netip.Addr) {
	n := copy(b, src.AsSlice())
	copy(b[n:], dst.AsSlice())
}
