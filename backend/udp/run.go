package udp

import (
	"bytes"
	"encoding/binary"
)

// run is a sequence of received packets of one flow that differ in nothing but what follows from their place: together
// they are one packet for the kernel, which is written from where they lie. It is the inverse of a segmenter, and keeps
// to what the kernel's own merging (tcp_gro_receive, udp_gro_receive) holds for alike.
type run struct {
	count   int // packets; 0: there is no run
	pieces  [][]byte
	vnet    [vnetSize]byte
	first   []byte
	header  header
	headers int    // bytes of IP and transport headers
	size    int    // payload of each packet but the last
	total   int    // bytes in all
	next    uint32 // TCP: sequence number of the next packet
	last    uint16 // IPv4: identification of the last packet
	checked bool   // the checksum of the first packet is right
	closed  bool   // nothing can follow

	tcp, udp bool // which protocols the device takes whole
}

// Limits of a run: what an IP packet holds, and what one writev takes (UIO_MAXIOV).
const (
	maxRun    = 1<<16 - 1
	maxPieces = 1000
	// minSize is the smallest payload of the packets of a run. Kernels cut into pieces of that size what should become
	// smaller ones (TCP_MIN_GSO_SIZE; 6.1 and 6.12 of Debian do, 6.18.44 does not).
	minSize = 8
)

func newRun() run { return run{pieces: make([][]byte, 2, maxPieces)} }

// start begins a run with packet p. The run that was before it must be finished.
func (r *run) start(p []byte, h *header) {
	r.count, r.pieces, r.first, r.header, r.total = 1, r.pieces[:2], p, *h, len(p)
	r.checked = false
	r.headers = 0
	if h.protocol == protoTCP && r.tcp || h.protocol == protoUDP && r.udp {
		r.headers = transportHeaders(p, h)
	}
	r.size = len(p) - r.headers
	r.closed = r.headers == 0 || r.size < minSize
	if r.closed {
		return
	}
	if h.family == ipv4 {
		r.last = binary.BigEndian.Uint16(p[4:])
	}
	if h.protocol == protoTCP {
		r.next = binary.BigEndian.Uint32(p[h.size+4:]) + uint32(r.size)
		flags := p[h.size+13]
		r.closed = flags&^(tcpACK|tcpECE) != 0
	}
}

// transportHeaders returns the length of the headers of a packet that may be part of a run; 0 for others.
func transportHeaders(p []byte, h *header) int {
	if !h.plain() {
		return 0
	}
	switch transport := p[h.size:]; h.protocol {
	case protoTCP:
		if len(transport) < 20 || transport[12]>>4 < 5 || len(transport) < int(transport[12]>>4)*4 {
			return 0
		}
		return h.size + int(transport[12]>>4)*4
	case protoUDP:
		if len(transport) < 8 || int(binary.BigEndian.Uint16(transport[4:])) != len(transport) ||
			transport[6]|transport[7] == 0 {
			return 0
		}
		return h.size + 8
	}
	return 0
}

// add adds packet p to the run, if it is the next one.
func (r *run) add(p []byte, h *header) bool {
	if r.count == 0 || r.closed || h.protocol != r.header.protocol || h.family != r.header.family || !h.plain() ||
		len(p) <= r.headers || len(p)-r.headers > r.size || r.total+len(p)-r.headers > maxRun || len(r.pieces) == maxPieces {
		return false
	}
	if !r.alike(p, h) || !r.verify(p, h) {
		return false
	}
	payload := p[r.headers:]
	r.pieces = append(r.pieces, payload)
	r.count, r.total, r.next = r.count+1, r.total+len(payload), r.next+uint32(len(payload))
	r.closed = len(payload) < r.size
	if h.family == ipv4 {
		r.last = binary.BigEndian.Uint16(p[4:])
	}
	if h.protocol == protoTCP && p[h.size+13]&tcpPSH != 0 {
		r.first[h.size+13] |= tcpPSH
		r.checked = true // was checked without the flag
		r.closed = true
	}
	return true
}

// alike reports whether the headers of p are those of the first packet but for what follows from its place.
func (r *run) alike(p []byte, h *header) bool {
	f := r.first
	if h.family == ipv4 {
		id := binary.BigEndian.Uint16(p[4:])
		if p[1] != f[1] || !bytes.Equal(p[6:10], f[6:10]) || !bytes.Equal(p[12:20], f[12:20]) || id != r.last+1 &&
			!(h.dontFrag && id == r.last) {
			return false
		}
	} else if !bytes.Equal(p[:4], f[:4]) || !bytes.Equal(p[6:40], f[6:40]) {
		return false
	}
	p, f = p[h.size:], f[h.size:]
	if !bytes.Equal(p[:4], f[:4]) {
		return false
	}
	if h.protocol == protoUDP {
		return int(binary.BigEndian.Uint16(p[4:])) == len(p) && p[6]|p[7] != 0
	}
	return binary.BigEndian.Uint32(p[4:]) == r.next && bytes.Equal(p[8:13], f[8:13]) && p[13]&^tcpPSH == f[13]&^tcpPSH &&
		bytes.Equal(p[14:16], f[14:16]) && bytes.Equal(p[18:r.headers-h.size], f[18:r.headers-h.size])
}

// verify reports whether the checksums of p are right, and those of the first packet: the kernel believes those of a
// run unseen.
func (r *run) verify(p []byte, h *header) bool {
	if !r.checked {
		if !intact(r.first, &r.header) {
			r.closed = true
			return false
		}
		r.checked = true
	}
	return intact(p, h)
}

// intact reports whether the checksums of the IP header and of TCP or UDP are right.
func intact(p []byte, h *header) bool {
	if h.family == ipv4 && sum(p[:h.size], 0) != 0xffff {
		return false
	}
	return sum(p[h.size:], pseudo(h.addrs(p), h.protocol, len(p)-h.size)) == 0xffff
}

// finish ends the run and returns the packet in pieces for the device.
func (r *run) finish() [][]byte {
	v := r.complete
	if r.count > 1 {
		v = r.merge
	}
	v().put(r.vnet[:])
	r.pieces[0], r.pieces[1] = r.vnet[:], r.first
	r.count = 0
	return r.pieces
}

// merge makes the headers of the first packet those of the whole one.
func (r *run) merge() vnet {
	p, h := r.first, &r.header
	if h.family == ipv4 {
		binary.BigEndian.PutUint16(p[2:], uint16(r.total))
		p[10], p[11] = 0, 0
		binary.BigEndian.PutUint16(p[10:], ^sum(p[:h.size], 0))
	} else {
		binary.BigEndian.PutUint16(p[4:], uint16(r.total-h.size))
	}
	v := vnet{
		flags: vnetNeedsChecksum, gso: gsoUDP, headers: uint16(r.headers), segment: uint16(r.size),
		checksumStart: uint16(h.size), checksumOffset: 6,
	}
	if h.protocol == protoTCP {
		v.checksumOffset, v.gso = 16, gsoTCP4
		if h.family == ipv6 {
			v.gso = gsoTCP6
		}
	} else {
		binary.BigEndian.PutUint16(p[h.size+4:], uint16(r.total-h.size))
	}
	binary.BigEndian.PutUint16(p[h.size+int(v.checksumOffset):], pseudo(h.addrs(p), h.protocol, r.total-h.size))
	return v
}
