package udp

import (
	"encoding/binary"
	"net/netip"
)

// Numbers of IANA's protocol registry.
const (
	protoHopByHop = 0
	protoICMP     = 1
	protoTCP      = 6
	protoUDP      = 17
	protoRouting  = 43
	protoFragment = 44
	protoICMPv6   = 58
	protoOptions  = 60
)

// Congestion marks, the two low bits of the traffic class (RFC 3168).
const (
	ecnMask = 3
	notECT  = 0
	ect1    = 1
	ect0    = 2
	ecnCE   = 3
)

// header is what the datapath knows of an IP packet.
type header struct {
	family   family
	protocol uint8 // that follows the IP header and its extensions
	hops     uint8 // TTL or hop limit
	class    uint8 // TOS or traffic class
	dontFrag bool  // IPv4: DF; IPv6: always
	fragment bool  // is one
	later    bool  // is one that is not the first
	size     int   // of the IP header with its extensions, bytes
	total    int   // of the packet, bytes
	src, dst netip.Addr
}

// parse reads the IP header. What it says of lengths is within b.
func parse(b []byte) (h header, ok bool) {
	if len(b) < 20 {
		return header{}, false
	}
	switch b[0] >> 4 {
	case 4:
		return parse4(b)
	case 6:
		return parse6(b)
	}
	return header{}, false
}

func parse4(b []byte) (h header, ok bool) {
	h.family, h.class, h.hops, h.protocol = ipv4, b[1], b[8], b[9]
	h.size, h.total = int(b[0]&15)*4, int(binary.BigEndian.Uint16(b[2:]))
	if h.size < 20 || h.total < h.size || h.total > len(b) {
		return header{}, false
	}
	place := binary.BigEndian.Uint16(b[6:])
	h.dontFrag, h.fragment, h.later = place&0x4000 != 0, place&0x3fff != 0, place&0x1fff != 0
	h.src, h.dst = netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
	return h, true
}

func parse6(b []byte) (h header, ok bool) {
	const fixed = 40
	if len(b) < fixed {
		return header{}, false
	}
	h.family, h.class, h.hops, h.protocol, h.dontFrag = ipv6, b[0]<<4|b[1]>>4, b[7], b[6], true
	h.size, h.total = fixed, fixed+int(binary.BigEndian.Uint16(b[4:]))
	if h.total > len(b) {
		return header{}, false
	}
	h.src, h.dst = netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))
	return h, h.skipExtensions(b[:h.total])
}

// skipExtensions moves size and protocol behind the extension headers of IPv6 (RFC 8200, section 4).
func (h *header) skipExtensions(b []byte) bool {
	for {
		rest := b[h.size:]
		switch h.protocol {
		case protoHopByHop, protoRouting, protoOptions:
			if len(rest) < 8 || len(rest) < 8+8*int(rest[1]) {
				return false
			}
			h.protocol, h.size = rest[0], h.size+8+8*int(rest[1])
		case protoFragment:
			if len(rest) < 8 {
				return false
			}
			h.fragment = true
			h.later = binary.BigEndian.Uint16(rest[2:])&0xfff8 != 0
			h.protocol, h.size = rest[0], h.size+8
			if h.later {
				return true
			}
		default:
			return true
		}
	}
}

// plain reports whether the IP header has neither options nor extensions and the packet is whole.
func (h *header) plain() bool {
	return !h.fragment && (h.family == ipv4 && h.size == 20 || h.family == ipv6 && h.size == 40)
}

// addrs returns source and destination as they stand in the packet.
func (h *header) addrs(b []byte) []byte {
	if h.family == ipv4 {
		return b[12:20]
	}
	return b[8:40]
}

// decrementHops takes one off the TTL or hop limit in the packet.
func (h *header) decrementHops(b []byte) {
	if h.family == ipv6 {
		b[7]--
		return
	}
	from := binary.BigEndian.Uint16(b[8:])
	b[8]--
	binary.BigEndian.PutUint16(b[10:], replace(binary.BigEndian.Uint16(b[10:]), from, binary.BigEndian.Uint16(b[8:])))
}

// setECN sets the congestion mark in the packet.
func (h *header) setECN(b []byte, mark uint8) {
	h.class = h.class&^ecnMask | mark
	if h.family == ipv6 {
		b[1] = b[1]&^(ecnMask<<4) | mark<<4
		return
	}
	from := binary.BigEndian.Uint16(b[0:])
	b[1] = h.class
	binary.BigEndian.PutUint16(b[10:], replace(binary.BigEndian.Uint16(b[10:]), from, binary.BigEndian.Uint16(b[0:])))
}
