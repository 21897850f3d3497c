package probe

import (
	"encoding/binary"
	"net/netip"
	"syscall"
)

// Parts of a struct sock_extended_err (include/uapi/linux/errqueue.h): errno 4, origin 1, type 1, code 1, padding 1,
// info 4, data 4 bytes; the address that has sent the ICMP message follows.
const (
	extendedErr = 16
	originICMP  = 2
	originICMP6 = 3
)

// refuser returns who has sent "port unreachable", from the control messages beside an error; the zero value if it is
// another error.
func refuser(oob []byte) netip.Addr {
	messages, _ := syscall.ParseSocketControlMessage(oob) // the kernel's own
	for _, m := range messages {
		if len(m.Data) < extendedErr+2 {
			continue
		}
		origin, kind, code, from := m.Data[4], m.Data[5], m.Data[6], m.Data[extendedErr:]
		switch family := binary.NativeEndian.Uint16(from); {
		case origin == originICMP && kind == 3 && code == 3 && family == syscall.AF_INET && len(from) >= 8:
			return netip.AddrFrom4([4]byte(from[4:8]))
		case origin == originICMP6 && kind == 1 && code == 4 && family == syscall.AF_INET6 && len(from) >= 24:
			return netip.AddrFrom16([16]byte(from[8:24]))
		}
	}
	return netip.Addr{}
}
