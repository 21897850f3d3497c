package ip

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// addrGenNone keeps the kernel from making an IPv6 link-local address (IN6_ADDR_GEN_MODE_NONE).
const addrGenNone = 1

// applyLink makes one device be as wanted, or be gone.
func (k *LinuxKernel) applyLink(want Link, del bool) error {
	have, err := k.linkByName(want.Name)
	if errors.Is(err, unix.ENODEV) {
		if del {
			return nil
		}
		return k.createLink(want)
	}
	if err != nil {
		return err
	}
	if del {
		if err := k.handle.LinkDel(have.device()); !errors.Is(err, unix.ENODEV) {
			return err
		}
		return nil
	}
	return k.changeLink(have, want)
}

func (k *LinuxKernel) createLink(want Link) error {
	device, err := k.newDevice(want)
	if err != nil {
		return err
	}
	if err := k.handle.LinkAdd(device); err != nil {
		return fmt.Errorf("create device: %w", explain(Op{Object: want}, err))
	}
	have, err := k.linkByName(want.Name)
	if err != nil {
		return err
	}
	return errors.Join(enableIPv6(want), k.noLinkLocal(have), k.changeLink(have, want))
}

// newDevice says to the library what to create.
func (k *LinuxKernel) newDevice(want Link) (netlink.Link, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = want.Name, want.MTU
	switch want.Type {
	case "vxlan":
		underlay, err := k.linkByName(want.VXLAN.Underlay)
		if err != nil {
			return nil, err
		}
		v := want.VXLAN
		attrs.HardwareAddr = want.MAC[:]
		return &netlink.Vxlan{
			LinkAttrs: attrs, VxlanId: int(v.VNI), VtepDevIndex: int(underlay.index),
			SrcAddr: v.Local.AsSlice(), Port: int(v.Port), Learning: v.Learning, GBP: v.GBP,
		}, nil
	case "ipip":
		// Without "path MTU discovery", as flannel makes it: the outer header takes over the inner one's "don't fragment".
		return &netlink.Iptun{LinkAttrs: attrs, Local: want.IPIP.Local.AsSlice()}, nil
	case "wireguard":
		return &netlink.Wireguard{LinkAttrs: attrs}, nil
	}
	return nil, fmt.Errorf("create device %s: a device of type %s is made by its datapath: %w",
		want.Name, want.Type, unix.ENODEV)
}

// enableIPv6 does so on a device for an IPv6 underlay where the host turns IPv6 off on every new device
// (net.ipv6.conf.default.disable_ipv6): its address would be refused.
func enableIPv6(want Link) error {
	setting := linkSetting(want.Name, "disable_ipv6")
	if value, err := readSysctl(setting); !want.VXLAN.Local.Is6() || err != nil || value == "0" {
		return nil
	}
	return writeSysctl(setting, "0")
}

// noLinkLocal keeps the kernel from giving a device an address of its own making. It refuses that while it creates the
// device, and without IPv6 there is nothing to do.
func (k *LinuxKernel) noLinkLocal(l link) error {
	err := k.handle.LinkSetIP6AddrGenMode(l.device(), addrGenNone)
	if err != nil && !errors.Is(err, unix.EAFNOSUPPORT) {
		return fmt.Errorf("turn off link-local addresses: %w", err)
	}
	return nil
}

// changeLink changes what differs, each by a request of its own so that an error says what was refused.
func (k *LinuxKernel) changeLink(have link, want Link) error {
	device := have.device()
	var errs []error
	did := func(what string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("set %s: %w", what, err))
		}
	}
	if want.Type == "vxlan" {
		underlay, err := k.linkByName(want.VXLAN.Underlay)
		if err != nil {
			return err
		}
		is, wanted := have.VXLAN, want.VXLAN
		if have.underlay != underlay.index || is.Local != wanted.Local || is.Learning != wanted.Learning {
			did("underlay and local address", k.changeVXLAN(have.index, want.VXLAN, underlay.index))
			did("routes to peers", k.forgetRoutes(have, underlay))
		}
		if have.MAC != want.MAC {
			did("hardware address", k.handle.LinkSetHardwareAddr(device, want.MAC[:]))
		}
	}
	if have.MTU != want.MTU {
		did(fmt.Sprintf("MTU %d", want.MTU), k.handle.LinkSetMTU(device, want.MTU))
	}
	if have.AcceptRA != want.AcceptRA {
		did("accept_ra", setAcceptRA(want))
	}
	switch {
	case want.Up && !have.Up:
		did("up", k.handle.LinkSetUp(device))
	case !want.Up && have.Up:
		did("down", k.handle.LinkSetDown(device))
	}
	return errors.Join(errs...)
}

// changeVXLAN changes the settings that can change while the device stands. The library's LinkModify does not do: it
// names every setting, and the kernel refuses to be given one that cannot change, even its present value (vxlan_nl2flag
// in drivers/net/vxlan/vxlan_core.c).
func (k *LinuxKernel) changeVXLAN(index uint32, v VXLAN, underlay uint32) error {
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(index)
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("vxlan"))
	data := info.AddRtAttr(nl.IFLA_INFO_DATA, nil)
	data.AddRtAttr(nl.IFLA_VXLAN_LINK, nl.Uint32Attr(underlay))
	if v.Local.Is4() {
		data.AddRtAttr(nl.IFLA_VXLAN_LOCAL, v.Local.AsSlice())
	} else if v.Local.IsValid() {
		data.AddRtAttr(nl.IFLA_VXLAN_LOCAL6, v.Local.AsSlice())
	}
	learning := uint8(0)
	if v.Learning {
		learning = 1
	}
	data.AddRtAttr(nl.IFLA_VXLAN_LEARNING, nl.Uint8Attr(learning))
	return k.sock.get(unix.RTM_NEWLINK, unix.NLM_F_ACK, func([]byte) {}, msg, info)
}

// forgetRoutes makes a VXLAN device look up again how its packets go to each peer. The kernel keeps a route for each
// forwarding entry, together with the source address of its packets, and goes on with it when the device gets another
// local address (vxlan_xmit_one and dst_cache_get_ip4, drivers/net/vxlan/vxlan_core.c and net/core/dst_cache.c). It
// forgets the route when the destination of the entry is replaced by another one (vxlan_fdb_replace), and to be one of
// another underlay device is enough; so each entry is replaced twice, and no packet is without one. Entries with
// link-local destinations name their device always, and their packets have a source that stays.
func (k *LinuxKernel) forgetRoutes(device, underlay link) error {
	links := names{device.index: device.Name, underlay.index: underlay.Name}
	var entries []FDB
	err := k.sock.dump(unix.RTM_GETNEIGH, func(data []byte) {
		o, permanent := decodeNeigh(data, links)
		f, ok := o.(FDB)
		if ok && permanent && f.Link == device.Name && f.Dst.IsValid() && f.Dst.Zone() == "" && !f.Odd {
			entries = append(entries, f)
		}
	}, &netlink.Ndmsg{Family: unix.AF_BRIDGE, Index: device.index})
	if err != nil {
		return fmt.Errorf("list forwarding entries: %w", err)
	}
	const messagesEach = 2
	for chunk := range slices.Chunk(entries, batchSize/messagesEach) {
		failed, err := k.sock.batch(messagesEach*len(chunk), func(m *messages, i int) {
			f := chunk[i/messagesEach]
			m.begin(unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_REPLACE,
				neighFixed(unix.AF_BRIDGE, device.index, unix.NTF_SELF).Serialize())
			encodeAttrs(m, Op{Object: f}, nil)
			if i%messagesEach == 0 {
				m.u32(unix.NDA_IFINDEX, underlay.index)
			}
			m.end()
		})
		if err := errors.Join(append(slices.Collect(maps.Values(failed)), err)...); err != nil {
			return fmt.Errorf("replace forwarding entries: %w", err)
		}
	}
	return nil
}

func setAcceptRA(want Link) error {
	value := "0"
	if want.AcceptRA {
		value = "1"
	}
	return writeSysctl(linkSetting(want.Name, "accept_ra"), value)
}
