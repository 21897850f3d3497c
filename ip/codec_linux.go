package ip

import (
	"encoding/binary"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The codec of addresses, forwarding entries, neighbours and routes. The library encodes them one message a request,
// does not hand out its decoders of addresses and routes, and leaves out of a neighbour the port, VNI and link that
// make an entry foreign. It allocates for every attribute, too: see BenchmarkCodec. Links, which are few and have many
// attributes, are decoded by the library.

var native = binary.NativeEndian

// messages is a run of netlink messages being written (include/uapi/linux/netlink.h): each a header, a fixed part, and
// attributes, all aligned to four bytes.
type messages struct {
	buf   []byte
	start int    // of the message being written
	seq   uint32 // of the message being written
}

// begin opens a message with its fixed part.
func (m *messages) begin(kind, flags uint16, fixed []byte) {
	m.start = len(m.buf)
	m.seq++
	header := unix.NlMsghdr{Type: kind, Flags: flags | unix.NLM_F_REQUEST, Seq: m.seq}
	m.buf = append(m.buf, (*(*[unix.SizeofNlMsghdr]byte)(unsafe.Pointer(&header)))[:]...)
	m.buf = append(m.buf, fixed...)
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

func (m *messages) attr(kind uint16, data []byte) {
	m.buf = native.AppendUint16(m.buf, uint16(unix.SizeofRtAttr+len(data)))
	m.buf = native.AppendUint16(m.buf, kind)
	m.buf = append(m.buf, data...)
	for len(m.buf)%unix.RTA_ALIGNTO != 0 {
		m.buf = append(m.buf, 0)
	}
}

func (m *messages) u32(kind uint16, v uint32) {
	m.attr(kind, native.AppendUint32(make([]byte, 0, 4), v))
}

func (m *messages) addr(kind uint16, a netip.Addr) {
	if a.Is4() {
		b := a.As4()
		m.attr(kind, b[:])
		return
	}
	b := a.As16()
	m.attr(kind, b[:])
}

// message is one netlink message as it was received. Its data is valid until the next receive.
type message struct {
	unix.NlMsghdr
	data []byte
}

// split iterates over the messages in b; it stops at the first that does not fit.
func split(b []byte) func(yield func(message) bool) {
	return func(yield func(message) bool) {
		for len(b) >= unix.SizeofNlMsghdr {
			n := int(native.Uint32(b))
			if n < unix.SizeofNlMsghdr || n > len(b) {
				return
			}
			header := unix.NlMsghdr{
				Len: uint32(n), Type: native.Uint16(b[4:]), Flags: native.Uint16(b[6:]),
				Seq: native.Uint32(b[8:]), Pid: native.Uint32(b[12:]),
			}
			if !yield(message{header, b[unix.SizeofNlMsghdr:n]}) {
				return
			}
			b = b[min(len(b), (n+unix.NLMSG_ALIGNTO-1)&^(unix.NLMSG_ALIGNTO-1)):]
		}
	}
}

// attributes iterates over the attributes in b; it stops at the first that does not fit.
func attributes(b []byte) func(yield func(kind uint16, data []byte) bool) {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= unix.SizeofRtAttr {
			n := int(native.Uint16(b))
			if n < unix.SizeofRtAttr || n > len(b) {
				return
			}
			if !yield(native.Uint16(b[2:])&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER), b[unix.SizeofRtAttr:n]) {
				return
			}
			b = b[min(len(b), (n+unix.RTA_ALIGNTO-1)&^(unix.RTA_ALIGNTO-1)):]
		}
	}
}

func u32(b []byte) uint32 {
	if len(b) < 4 {
		return 0
	}
	return native.Uint32(b)
}

func familyOf(a netip.Addr) uint8 {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// address returns the address in an attribute, the zero value if it is none.
func address(b []byte) netip.Addr {
	a, _ := netip.AddrFromSlice(b)
	return a
}
