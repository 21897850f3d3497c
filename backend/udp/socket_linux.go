package udp

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// socketBuffer is how much may wait in each direction, in bytes; the kernel doubles it for its own bookkeeping.
const socketBuffer = 4 << 20

// socketOptions are the options that a socket of each family has.
var socketOptions = [families]struct{ domain, level, discover, errors, class int }{
	ipv4: {unix.AF_INET, unix.SOL_IP, unix.IP_MTU_DISCOVER, unix.IP_RECVERR, unix.IP_RECVTOS},
	ipv6: {unix.AF_INET6, unix.SOL_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_RECVERR, unix.IPV6_RECVTCLASS},
}

// sockets are the UDP sockets of one family, all on the same address and port; the kernel spreads the peers over them.
type sockets struct {
	local    netip.AddrPort
	fds      []int
	segments bool // UDP_SEGMENT works
	merged   bool // UDP_GRO works
}

// openSockets opens n sockets. kept are those of an earlier run.
func openSockets(local netip.AddrPort, n int, offload bool, kept []int) (*sockets, error) {
	s := &sockets{local: local, fds: kept}
	if len(kept) != n || !s.bound() {
		closeAll(kept)
		s.fds = nil
	}
	for i := len(s.fds); i < n; i++ {
		fd, err := openSocket(local, i > 0)
		if err != nil {
			s.close()
			return nil, err
		}
		s.fds = append(s.fds, fd)
	}
	for _, fd := range s.fds {
		if err := s.setUp(fd, offload); err != nil {
			s.close()
			return nil, fmt.Errorf("set up socket on %s: %w", local, err)
		}
	}
	return s, nil
}

// openSocket binds a socket. The first one does so alone, so that two daemons cannot share a port by mistake; the
// others join it.
func openSocket(local netip.AddrPort, join bool) (int, error) {
	o := socketOptions[familyOf(local.Addr())]
	fd, err := unix.Socket(o.domain, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("open socket: %w", err)
	}
	if o.domain == unix.AF_INET6 {
		err = unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_V6ONLY, 1)
	}
	if join && err == nil {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	}
	if err == nil {
		err = unix.Bind(fd, sockaddr(local)) // for a link-local address that binds it to the link, too
	}
	if !join && err == nil {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	}
	if err != nil {
		_ = unix.Close(fd)
		return 0, fmt.Errorf("listen on UDP %s: %w", local, err)
	}
	return fd, nil
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	out := &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
	if zone := a.Addr().Zone(); zone != "" {
		if link, err := net.InterfaceByName(zone); err == nil {
			out.ZoneId = uint32(link.Index)
		}
	}
	return out
}

// setUp sets the options: never fragment (the path MTU of the route holds, and what is too big is refused), report what
// routers say, tell the traffic class.
func (s *sockets) setUp(fd int, offload bool) error {
	o := socketOptions[familyOf(s.local.Addr())]
	err := errors.Join(
		unix.SetNonblock(fd, true),
		unix.SetsockoptInt(fd, o.level, o.discover, unix.IP_PMTUDISC_DO),
		unix.SetsockoptInt(fd, o.level, o.errors, 1),
		unix.SetsockoptInt(fd, o.level, o.class, 1),
	)
	if err != nil {
		return err
	}
	for _, option := range [][2]int{{unix.SO_RCVBUFFORCE, unix.SO_RCVBUF}, {unix.SO_SNDBUFFORCE, unix.SO_SNDBUF}} {
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, option[0], socketBuffer) != nil {
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, option[1], socketBuffer) // as much as net.core.*mem_max allows
		}
	}
	gro := 0
	if offload {
		gro = 1
		_, err := unix.GetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_SEGMENT)
		s.segments = err == nil
	}
	s.merged = unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_GRO, gro) == nil && offload
	return nil
}

// bound reports whether all sockets are bound as they should be.
func (s *sockets) bound() bool {
	for _, fd := range s.fds {
		a, err := unix.Getsockname(fd)
		if err != nil {
			return false
		}
		var have netip.AddrPort
		switch a := a.(type) {
		case *unix.SockaddrInet4:
			have = netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
		case *unix.SockaddrInet6:
			have = netip.AddrPortFrom(netip.AddrFrom16(a.Addr), uint16(a.Port))
		}
		if have != netip.AddrPortFrom(s.local.Addr().WithZone(""), s.local.Port()) {
			return false
		}
	}
	return true
}

func (s *sockets) close() { closeAll(s.fds) }
