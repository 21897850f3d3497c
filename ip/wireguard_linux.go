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
