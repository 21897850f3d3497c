package ip

import (
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// linkType is what is special about the devices of one type; a nil function: nothing is. All other code is the same for
// all of them, so a new type of tunnel is one more entry here. Its settings are a field of Link, or one that is there:
// Tunnel is that of all devices that put IP packets into IP packets.
type linkType struct {
	// create says to the library what to create; nil: the datapath makes the device.
	create func(k *LinuxKernel, want Link, attrs netlink.LinkAttrs) (netlink.Link, error)
	// decode reads the settings.
	decode func(from netlink.Link, l *link)
	// change changes settings while the device stands. It calls did with what it has tried.
	change func(k *LinuxKernel, have link, want Link, did func(what string, err error)) error
}

// linkTypeOf knows the types of devices by their name (IFLA_INFO_KIND). Of others nothing is special.
func linkTypeOf(name string) linkType {
	switch name {
	case "vxlan":
		return linkType{createVXLAN, decodeVXLAN, changeVXLAN}
	case "ipip":
		return linkType{createIPIP, decodeIPIP, nil}
	case "wireguard":
		return linkType{createWireGuard, nil, nil}
	}
	return linkType{}
}

// createIPIP leaves "path MTU discovery" off, as flannel does: the outer header takes over the inner one's "don't
// fragment".
func createIPIP(_ *LinuxKernel, want Link, attrs netlink.LinkAttrs) (netlink.Link, error) {
	return &netlink.Iptun{LinkAttrs: attrs, Local: want.Tunnel.Local.AsSlice()}, nil
}

func decodeIPIP(from netlink.Link, l *link) {
	d, ok := from.(*netlink.Iptun)
	if !ok {
		return
	}
	// The kernel names the protocol of a device that was made without one (IFLA_IPTUN_PROTO).
	local, _ := netip.AddrFromSlice(d.Local.To4())
	remote, _ := netip.AddrFromSlice(d.Remote.To4())
	l.Tunnel = Tunnel{Local: local, Odd: remote.IsValid() && !remote.IsUnspecified() || d.Link != 0 || d.Ttl != 0 ||
		d.Tos != 0 ||
		d.PMtuDisc != 0 || d.FlowBased || d.EncapType != 0 || d.Proto != 0 && d.Proto != unix.IPPROTO_IPIP}
}

func createWireGuard(_ *LinuxKernel, _ Link, attrs netlink.LinkAttrs) (netlink.Link, error) {
	return &netlink.Wireguard{LinkAttrs: attrs}, nil
}
