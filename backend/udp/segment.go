package udp

import "encoding/binary"

// completeChecksum fills in the transport checksum that the kernel has left to the device.
func completeChecksum(p []byte, v vnet) bool {
	start, field := int(v.checksumStart), int(v.checksumStart)+int(v.checksumOffset)
	if field+2 > len(p) {
		return false
	}
	c := ^sum(p[start:], 0)
	if c == 0 && v.checksumOffset == 6 {
		c = 0xffff // of UDP: zero means that there is none
	}
	binary.BigEndian.PutUint16(p[field:], c)
	return true
}

// segmenter cuts a packet that the kernel has left whole into those that it stands for, as the kernel would
// (tcp_gso_segment, __udp_gso_segment and inet_gso_segment).
type segmenter struct {
	packet  []byte
	header  header
	tcp     bool
	headers int // bytes of IP and transport headers
	size    int // payload of each segment
}

// newSegmenter returns a segmenter; ok is false if the packet is not what its virtio-net header says.
func newSegmenter(p []byte, h header, v vnet) (s segmenter, ok bool) {
	s = segmenter{packet: p, header: h, headers: h.size + 8, size: int(v.segment), tcp: v.gso&gsoKinds != gsoUDP}
	if h.fragment || int(v.checksumStart) != h.size || s.size == 0 {
		return s, false
	}
	want, protocol := uint8(gsoUDP), uint8(protoUDP)
	if s.tcp {
		protocol, want = protoTCP, gsoTCP4
		if h.family == ipv6 {
			want = gsoTCP6
		}
		if len(p) < h.size+20 || p[h.size+12]>>4 < 5 {
			return s, false
		}
		s.headers = h.size + int(p[h.size+12]>>4)*4
	}
	return s, v.gso&gsoKinds == want && h.protocol == protocol && s.headers <= maxHeader && len(p) > s.headers
}

// count returns the number of segments.
func (s *segmenter) count() int { return (len(s.packet) - s.headers + s.size - 1) / s.size }

// segment writes the headers of segment i into b, of s.headers bytes, and returns its payload, which stays where it is.
func (s *segmenter) segment(i int, b []byte) (payload []byte) {
	p, at := s.packet, s.headers+i*s.size
	payload = p[at:min(at+s.size, len(p))]
	copy(b, p[:s.headers])
	total := s.headers + len(payload)
	if s.header.family == ipv4 {
		binary.BigEndian.PutUint16(b[2:], uint16(total))
		binary.BigEndian.PutUint16(b[4:], binary.BigEndian.Uint16(p[4:])+uint16(i))
		b[10], b[11] = 0, 0
		binary.BigEndian.PutUint16(b[10:], ^sum(b[:s.header.size], 0))
	} else {
		binary.BigEndian.PutUint16(b[4:], uint16(total-40))
	}
	transport := b[s.header.size:s.headers]
	field := 6
	if s.tcp {
		field = 16
		s.tcpHeader(transport, i, at+s.size >= len(p))
	} else {
		binary.BigEndian.PutUint16(transport[4:], uint16(8+len(payload)))
	}
	transport[field], transport[field+1] = 0, 0
	c := pseudo(s.header.addrs(p), s.header.protocol, len(transport)+len(payload))
	c = ^sum(payload, sum(transport, c))
	if c == 0 && !s.tcp {
		c = 0xffff
	}
	binary.BigEndian.PutUint16(transport[field:], c)
	return payload
}

// whole appends segment i in one piece.
func (s *segmenter) whole(i int, b []byte) []byte {
	at := len(b)
	b = append(b, s.packet[:s.headers]...)
	return append(b, s.segment(i, b[at:])...)
}

// Flags of TCP.
const (
	tcpFIN = 1 << iota
	tcpSYN
	tcpRST
	tcpPSH
	tcpACK
	tcpURG
	tcpECE
	tcpCWR
)

// tcpHeader sets the sequence number, and takes away the flags that only the last or the first segment carries.
func (s *segmenter) tcpHeader(b []byte, i int, last bool) {
	binary.BigEndian.PutUint32(b[4:], binary.BigEndian.Uint32(b[4:])+uint32(i*s.size))
	if !last {
		b[13] &^= tcpFIN | tcpPSH
	}
	if i > 0 {
		b[13] &^= tcpCWR
	}
}

// perMessage divides n segments of a size evenly over as few messages as can hold them: a full message and a short one
// cost as much as two even ones, but the even ones keep both ends busy at the same time.
func perMessage(n, size int) int {
	most := max(1, min(maxSegments, maxMessage/size))
	messages := (n + most - 1) / most
	return (n + messages - 1) / messages
}
