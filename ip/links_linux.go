package ip

import (
	"fmt"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// link is a Link with what else an underlay needs to know.
type link struct {
	Link
	index    uint32
	underlay uint32 // index of the underlay of a vxlan device
	flags    uint32
}

// device names the link in calls of the library, so that it does not look it up.
func (l link) device() netlink.Link {
	return &netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Name: l.Name, Index: int(l.index)}}
}

// skipStats leaves statistics out of the answers about links (RTEXT_FILTER_SKIP_STATS). The library's own calls ask for
// all virtual functions of network cards instead, which makes answers of many KiB, and they leave out accept_ra.
var skipStats = nl.NewRtAttr(unix.IFLA_EXT_MASK, nl.Uint32Attr(8))

// linkByName returns a link, or an error that wraps ENODEV.
func (k *LinuxKernel) linkByName(name string) (link, error) {
	return k.link(name, nl.NewIfInfomsg(unix.AF_UNSPEC), nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)))
}

// linkByIndex returns a link, or an error that wraps ENODEV.
func (k *LinuxKernel) linkByIndex(index int) (link, error) {
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(index)
	return k.link(fmt.Sprint(index), msg)
}

func (k *LinuxKernel) link(name string, which ...nl.NetlinkRequestData) (l link, err error) {
	err = k.sock.get(unix.RTM_GETLINK, 0, func(data []byte) { l, _ = k.decode(data) }, append(which, skipStats)...)
	if err != nil {
		return link{}, fmt.Errorf("find device %s: %w", name, err)
	}
	return l, nil
}

// dumpLinks returns all links of the namespace, and their names by number.
func (k *LinuxKernel) dumpLinks() (links []link, all names, err error) {
	all = names{}
	err = k.sock.dump(unix.RTM_GETLINK, func(data []byte) {
		if l, ok := k.decode(data); ok {
			links = append(links, l)
			all[l.index] = l.Name
		}
	}, nl.NewIfInfomsg(unix.AF_UNSPEC), skipStats)
	for i := range links {
		links[i].VXLAN.Underlay = all[links[i].underlay]
	}
	if err != nil {
		return nil, nil, fmt.Errorf("list links: %w", err)
	}
	return links, all, nil
}

// decode reads a struct ifinfomsg. Where settings cannot be changed, accept_ra counts as off, as it is wanted for all
// devices of ours: nobody could do anything about it, again and again.
func (k *LinuxKernel) decode(b []byte) (l link, ok bool) {
	l, ok = decodeLink(b)
	if k.fixedSettings {
		l.AcceptRA = false
	}
	return l, ok
}

// decodeLink reads a struct ifinfomsg. The name of the underlay is left to the caller.
func decodeLink(b []byte) (l link, ok bool) {
	if len(b) < unix.SizeofIfInfomsg || b[0] != unix.AF_UNSPEC {
		return link{}, false
	}
	from, err := deserialize(b)
	if err != nil || from.Attrs().Name == "" {
		return link{}, false
	}
	a := from.Attrs()
	l = link{index: uint32(a.Index), flags: a.RawFlags}
	l.Name, l.Type, l.MTU, l.Up = a.Name, from.Type(), a.MTU, a.RawFlags&unix.IFF_UP != 0
	if len(a.HardwareAddr) == len(l.MAC) { // that of a tunnel is its local address
		copy(l.MAC[:], a.HardwareAddr)
	}
	for kind, data := range attributes(b[unix.SizeofIfInfomsg:]) {
		if kind == unix.IFLA_AF_SPEC {
			l.AcceptRA = acceptsRA(data)
		}
	}
	switch from.(type) {
	case *netlink.Device: // of no type: a network card, or a loopback
		l.Type = ""
	case *netlink.Tuntap:
		l.Type = "tun" // as the kernel calls it
	}
	if decode := linkTypeOf(l.Type).decode; decode != nil {
		decode(from, &l)
	}
	return l, true
}

// deserialize reads a struct ifinfomsg by the library, which reads beyond the end of a message that is not well formed.
func deserialize(b []byte) (l netlink.Link, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("decode link message: %v", r)
		}
	}()
	return netlink.LinkDeserialize(nil, b)
}

// devconfAcceptRA is the place of accept_ra in IFLA_INET6_CONF (enum DEVCONF_*, include/uapi/linux/ipv6.h).
const devconfAcceptRA = 3

// acceptsRA reads IFLA_AF_SPEC.
func acceptsRA(spec []byte) bool {
	for family, data := range attributes(spec) {
		if family != unix.AF_INET6 {
			continue
		}
		for kind, conf := range attributes(data) {
			if kind == unix.IFLA_INET6_CONF && len(conf) >= 4*(devconfAcceptRA+1) {
				return u32(conf[4*devconfAcceptRA:]) != 0
			}
		}
	}
	return false
}
