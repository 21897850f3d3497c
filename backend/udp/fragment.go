package udp

import "encoding/binary"

// fragmenter cuts an IPv4 packet that may be fragmented into pieces that fit (RFC 791, section 2.3).
type fragmenter struct {
	packet []byte
	size   int // of the header
	step   int // payload of each fragment but the last, a multiple of 8
}

func newFragmenter(p []byte, h header, limit int) fragmenter {
	return fragmenter{p, h.size, (limit - h.size) &^ 7}
}

func (f *fragmenter) count() int { return (len(f.packet) - f.size + f.step - 1) / f.step }

// fragment writes the header of fragment i into b, of f.size bytes, and returns its payload, which stays where it is.
func (f *fragmenter) fragment(i int, b []byte) (payload []byte) {
	at := f.size + i*f.step
	payload = f.packet[at:min(at+f.step, len(f.packet))]
	copy(b, f.packet[:f.size])
	place := binary.BigEndian.Uint16(b[6:]) + uint16(i*f.step/8)
	if i < f.count()-1 {
		place |= 0x2000 // more fragments
	}
	if i > 0 {
		blankOptions(b[20:f.size])
	}
	binary.BigEndian.PutUint16(b[2:], uint16(f.size+len(payload)))
	binary.BigEndian.PutUint16(b[6:], place)
	b[10], b[11] = 0, 0
	binary.BigEndian.PutUint16(b[10:], ^sum(b[:f.size], 0))
	return payload
}

// blankOptions overwrites the options that only the first fragment carries with those that do nothing.
func blankOptions(b []byte) {
	const copied, end, nop = 0x80, 0, 1
	for len(b) > 0 && b[0] != end {
		n := 1
		if b[0] != nop {
			if len(b) < 2 || b[1] < 2 || int(b[1]) > len(b) {
				return
			}
			n = int(b[1])
		}
		if b[0]&copied == 0 {
			for i := range b[:n] {
				b[i] = nop
			}
		}
		b = b[n:]
	}
}
