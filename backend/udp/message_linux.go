package udp

import (
	"encoding/binary"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// mmsghdr is a struct mmsghdr (recvmmsg(2)).
type mmsghdr struct {
	unix.Msghdr
	n uint32
}

// controlSize holds the control messages of one message: a segment size and a traffic class, each at most 24 bytes.
const controlSize = 64

// slot is where one message is described for the kernel.
type slot struct {
	name    unix.RawSockaddrInet6 // or an RawSockaddrInet4 at its place
	control [controlSize / 8]uint64
}

func (s *slot) bytes() []byte { return (*[controlSize]byte)(unsafe.Pointer(&s.control))[:] }

// setName writes a socket address and returns its length.
func (s *slot) setName(a netip.Addr, port uint16) uint32 {
	if a.Is4() {
		n := (*unix.RawSockaddrInet4)(unsafe.Pointer(&s.name))
		n.Family, n.Addr = unix.AF_INET, a.As4()
		binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&n.Port))[:], port)
		return unix.SizeofSockaddrInet4
	}
	s.name.Family, s.name.Addr = unix.AF_INET6, a.As16()
	binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&s.name.Port))[:], port)
	return unix.SizeofSockaddrInet6
}

func (s *slot) addr() netip.Addr {
	if s.name.Family == unix.AF_INET {
		return netip.AddrFrom4((*unix.RawSockaddrInet4)(unsafe.Pointer(&s.name)).Addr)
	}
	return netip.AddrFrom16(s.name.Addr)
}

// control is a kind of control messages: their values are of size bytes, in the byte order of the machine.
type control struct {
	level, kind int32
	size        int
}

var (
	segmentSize   = control{unix.IPPROTO_UDP, unix.UDP_SEGMENT, 2}
	trafficClass4 = control{unix.SOL_IP, unix.IP_TOS, 4}
	trafficClass6 = control{unix.SOL_IPV6, unix.IPV6_TCLASS, 4}
)

// put writes a control message at an offset and returns the offset behind it.
func (c control) put(b []byte, at int, value uint32) int {
	h := (*unix.Cmsghdr)(unsafe.Pointer(&b[at]))
	h.Level, h.Type = c.level, c.kind
	h.SetLen(unix.CmsgLen(c.size))
	data := b[at+unix.CmsgLen(0):]
	if c.size == 2 {
		binary.NativeEndian.PutUint16(data, uint16(value))
	} else {
		binary.NativeEndian.PutUint32(data, value)
	}
	return at + unix.CmsgSpace(c.size)
}

// controls calls f for each control message.
func controls(b []byte, f func(level, kind int32, data []byte)) {
	for len(b) >= unix.SizeofCmsghdr {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
		n := int(h.Len)
		if n < unix.CmsgLen(0) || n > len(b) {
			return
		}
		f(h.Level, h.Type, b[unix.CmsgLen(0):n])
		b = b[min(len(b), unix.CmsgSpace(n-unix.CmsgLen(0))):]
	}
}
