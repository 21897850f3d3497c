package ip

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

func createVXLAN(k *LinuxKernel, want Link, attrs netlink.LinkAttrs) (netlink.Link, error) {
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
}

func decodeVXLAN(from netlink.Link, l *link) {
	d, ok := from.(*netlink.Vxlan)
	if !ok {
		return
	}
	local, _ := netip.AddrFromSlice(d.SrcAddr)
	l.VXLAN = VXLAN{VNI: uint32(d.VxlanId), Port: uint16(d.Port), Local: local, Learning: d.Learning, GBP: d.GBP}
	l.underlay = uint32(d.VtepDevIndex)
}

func changeVXLAN(k *LinuxKernel, have link, want Link, did func(what string, err error)) error {
	underlay, err := k.linkByName(want.VXLAN.Underlay)
	if err != nil {
		return err
	}
	is, wanted := have.VXLAN, want.VXLAN
	if have.underlay != underlay.index || is.Local != wanted.Local || is.Learning != wanted.Learning {
		did("underlay and local address", k.setVXLAN(have.index, want.VXLAN, underlay.index))
		did("routes to peers", k.forgetRoutes(have, underlay))
	}
	if have.MAC != want.MAC {
		did("hardware address", k.handle.LinkSetHardwareAddr(have.device(), want.MAC[:]))
	}
	return nil
}

// setVXLAN changes the settings that can change while the device stands. The library's LinkModify does not do: it
// names every setting, and the kernel refuses to be given one that cannot change, even its present value (vxlan_nl2flag
// in drivers/net/vxlan/vxlan_core.c).
func (k *LinuxKernel) setVXLAN(index uint32, v VXLAN, underlay uint32) error {
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
