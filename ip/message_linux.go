package ip

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

var native = binary.NativeEndian

// attrType masks the flags out of the type of an attribute (NLA_TYPE_MASK).
const attrType = 0x3fff

// messages is a run of netlink messages being written (include/uapi/linux/netlink.h): each a header, a fixed part, and
// attributes, all aligned to four bytes.
type messages struct {
	buf   []byte
	start int // of the message being written
}

// begin opens a message with its fixed part.
func (m *messages) begin(kind uint16, flags int, seq uint32, fixed []byte) {
	m.start = len(m.buf)
	m.buf = append(m.buf, 0, 0, 0, 0)
	m.buf = native.AppendUint16(m.buf, kind)
	m.buf = native.AppendUint16(m.buf, uint16(flags|unix.NLM_F_REQUEST))
	m.buf = native.AppendUint32(m.buf, seq)
	m.buf = append(m.buf, 0, 0, 0, 0) // port: the kernel fills it in
	m.buf = append(m.buf, fixed...)
	m.align()
}

// end closes the message.
func (m *messages) end() {
	native.PutUint32(m.buf[m.start:], uint32(len(m.buf)-m.start))
}

// addFlags adds to the flags of the message opened last.
func (m *messages) addFlags(flags uint16) {
	at := m.buf[m.start+6:]
	native.PutUint16(at, native.Uint16(at)|flags)
}

func (m *messages) align() {
	for len(m.buf)%4 != 0 {
		m.buf = append(m.buf, 0)
	}
}

func (m *messages) attr(kind uint16, data []byte) {
	m.buf = native.AppendUint16(m.buf, uint16(4+len(data)))
	m.buf = native.AppendUint16(m.buf, kind)
	m.buf = append(m.buf, data...)
	m.align()
}

func (m *messages) u32(kind uint16, v uint32) {
	var b [4]byte
	native.PutUint32(b[:], v)
	m.attr(kind, b[:])
}

func (m *messages) u8(kind uint16, v bool) {
	b := [1]byte{}
	if v {
		b[0] = 1
	}
	m.attr(kind, b[:])
}

func (m *messages) str(kind uint16, s string) { m.attr(kind, append([]byte(s), 0)) }

func (m *messages) addr(kind uint16, a netip.Addr) {
	if a.Is4() {
		b := a.As4()
		m.attr(kind, b[:])
		return
	}
	b := a.As16()
	m.attr(kind, b[:])
}

// nest opens an attribute that holds attributes; unnest closes it.
func (m *messages) nest(kind uint16) int {
	at := len(m.buf)
	m.attr(kind|unix.NLA_F_NESTED, nil)
	return at
}

func (m *messages) unnest(at int) { native.PutUint16(m.buf[at:], uint16(len(m.buf)-at)) }

// attributes iterates over the attributes in b; it stops at the first that does not fit.
func attributes(b []byte) func(yield func(kind uint16, data []byte) bool) {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= 4 {
			n := int(native.Uint16(b))
			if n < 4 || n > len(b) {
				return
			}
			if !yield(native.Uint16(b[2:])&attrType, b[4:n]) {
				return
			}
			b = b[min(len(b), (n+3)&^3):]
		}
	}
}

// message is one netlink message as it was received. Its data is valid until the next receive.
type message struct {
	kind, flags uint16
	seq, port   uint32
	data        []byte
}

// split iterates over the messages in b; it stops at the first that does not fit.
func split(b []byte) func(yield func(message) bool) {
	return func(yield func(message) bool) {
		for len(b) >= unix.NLMSG_HDRLEN {
			n := int(native.Uint32(b))
			if n < unix.NLMSG_HDRLEN || n > len(b) {
				return
			}
			m := message{native.Uint16(b[4:]), native.Uint16(b[6:]), native.Uint32(b[8:]), native.Uint32(b[12:]), b[unix.NLMSG_HDRLEN:n]}
			if !yield(m) {
				return
			}
			b = b[min(len(b), (n+3)&^3):]
		}
	}
}

func u32(b []byte) uint32 {
	if len(b) < 4 {
		return 0
	}
	return native.Uint32(b)
}

func cstring(b []byte) string {
	for i, c := range b {
		if c == 0 {
			return string(b[:i])
		}
	}
	return string(b)
}
