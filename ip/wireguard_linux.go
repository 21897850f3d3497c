package ip

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// HasWireGuard reports whether the kernel has WireGuard. The question makes the kernel load the module, if there is one
// (ctrl_getfamily in net/netlink/genetlink.c).
func HasWireGuard() (bool, error) {
	_, err := netlink.GenlFamilyGet("wireguard")
	switch {
	case errors.Is(err, unix.ENOENT):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("ask the kernel for WireGuard: %w", err)
	}
	return true, nil
}

// NoLinkLocal keeps the kernel from giving a device an IPv6 address of its own making. Without IPv6 there is nothing to do.
func NoLinkLocal(link string) error {
	err := writeSysctl(linkSetting(link, "addr_gen_mode"), "1")
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("turn off link-local addresses of device %s: %w", link, err)
	}
	return nil
}
