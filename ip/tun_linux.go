package ip

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// ErrOtherDevice says that a device of that name stands there that cannot be opened as it is.
var ErrOtherDevice = errors.New("a device of another kind has the name")

// OpenTUN opens one queue of a TUN device, which it makes if there is none. Reads do not block. flags are IFF_* of
// include/uapi/linux/if_tun.h.
func OpenTUN(name string, flags uint16) (fd int, err error) {
	fd, err = unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("open /dev/net/tun: %w", err)
	}
	r, err := unix.NewIfreq(name)
	if err == nil {
		r.SetUint16(flags)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, r)
	}
	if err != nil {
		_ = unix.Close(fd)
		if errors.Is(err, unix.EINVAL) {
			err = ErrOtherDevice
		}
		return 0, fmt.Errorf("open device %s: %w", name, err)
	}
	return fd, nil
}

// IsTUN reports whether a descriptor leads to the TUN device of this name, and that has the flags.
func IsTUN(fd int, name string, flags uint16) bool {
	r, err := unix.NewIfreq("")
	return err == nil && unix.IoctlIfreq(fd, unix.TUNGETIFF, r) == nil && r.Name() == name && r.Uint16()&flags == flags
}

// NoLinkLocal keeps the kernel from giving a device an IPv6 address of its own making. Without IPv6 there is nothing to
// do.
func NoLinkLocal(link string) error {
	// Not by /proc/sys, which is read-only in a container without privileges.
	l, err := netlink.LinkByName(link)
	if err == nil {
		err = netlink.LinkSetIP6AddrGenMode(l, addrGenNone)
	}
	if err != nil && !errors.Is(err, unix.EAFNOSUPPORT) {
		return fmt.Errorf("turn off link-local addresses of device %s: %w", link, err)
	}
	return nil
}
