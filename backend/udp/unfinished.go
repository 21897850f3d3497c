package udp

import "encoding/binary"

// A kernel that carries packets by BPF programs leaves checksums, and the cutting of large TCP packets, to the network
// card. Between virtual machines or network namespaces of one host there is none, and the kernel at the other end knows
// what is left to do; a socket is not told. Such packets reach the socket where the programs of this host have not seen
// them: they came in by another interface, or the programs have just been detached.

// leastSegment is the payload of TCP segments that every host takes, in bytes (RFC 9293, section 3.7.1).
const leastSegment = 536

// complete has the kernel complete the only packet of the run, if one has left that undone: where the checksum belongs
// stands the sum of the pseudo header (CHECKSUM_PARTIAL, include/linux/skbuff.h). A right checksum that is the same by
// chance stays right.
func (r *run) complete() vnet {
	p, h := r.first, &r.header
	headers := transportHeaders(p, h)
	if headers == 0 {
		return vnet{}
	}
	v := vnet{flags: vnetNeedsChecksum, headers: uint16(headers), checksumStart: uint16(h.size), checksumOffset: 6}
	if h.protocol == protoTCP {
		v.checksumOffset = 16
	}
	if binary.BigEndian.Uint16(p[h.size+int(v.checksumOffset):]) != pseudo(h.addrs(p), h.protocol, len(p)-h.size) {
		return vnet{}
	}
	switch {
	case !r.tcp: // the device takes nothing but whole packets
		completeChecksum(p, v)
		return vnet{}
	case h.protocol == protoTCP && len(p)-headers > leastSegment:
		// How long the segments were is known to nobody here.
		v.gso, v.segment = gsoTCP4, leastSegment
		if h.family == ipv6 {
			v.gso = gsoTCP6
		}
		if p[h.size+13]&tcpCWR != 0 {
			v.gso |= gsoECN
		}
	}
	return v
}
