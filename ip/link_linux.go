package ip

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// skipStats leaves statistics out of the answers about links (RTEXT_FILTER_SKIP_STATS).
const skipStats = 8

// addrGenNone keeps the kernel from making an IPv6 link-local address (IN6_ADDR_GEN_MODE_NONE).
const addrGenNone = 1

// infoFixed is a struct ifinfomsg.
func infoFixed(index, flags, change uint32) []byte {
	b := native.AppendUint32(make([]byte, 4, unix.SizeofIfInfomsg), index)
	return native.AppendUint32(native.AppendUint32(b, flags), change)
}

// linkByName returns a link, or an error that wraps ENODEV.
func (k *LinuxKernel) linkByName(name string) (l link, err error) {
	err = k.sock.do(func(m *messages, seq uint32) {
		m.begin(unix.RTM_GETLINK, 0, seq, infoFixed(0, 0, 0))
		m.str(unix.IFLA_IFNAME, name)
		m.u32(unix.IFLA_EXT_MASK, skipStats)
		m.end()
	}, func(got message) { l, _ = decodeLink(got.data) })
	if err != nil {
		return link{}, fmt.Errorf("find device %s: %w", name, err)
	}
	return l, nil
}

// dumpLinks returns all links of the namespace, and their names by number.
func (k *LinuxKernel) dumpLinks() (links []link, all names, err error) {
	all = names{}
	err = k.sock.dump(unix.RTM_GETLINK, infoFixed(0, 0, 0), func(m *messages) { m.u32(unix.IFLA_EXT_MASK, skipStats) },
		func(got message) {
			if l, ok := decodeLink(got.data); ok {
				links = append(links, l)
				all[l.index] = l.Name
			}
		})
	for i := range links {
		links[i].VXLAN.Underlay = all[links[i].underlay]
	}
	if err != nil {
		return nil, nil, fmt.Errorf("list links: %w", err)
	}
	return links, all, nil
}

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
		err := k.setLink(unix.RTM_DELLINK, 0, infoFixed(have.index, 0, 0), nil)
		if errors.Is(err, unix.ENODEV) {
			return nil
		}
		return err
	}
	return k.changeLink(have, want)
}

func (k *LinuxKernel) setLink(kind uint16, flags int, fixed []byte, attrs func(*messages)) error {
	return k.sock.do(func(m *messages, seq uint32) {
		m.begin(kind, flags, seq, fixed)
		if attrs != nil {
			attrs(m)
		}
		m.end()
	}, nil)
}

func (k *LinuxKernel) createLink(want Link) error {
	if want.Type != "vxlan" {
		return fmt.Errorf("create device %s: a device of type %s is made by its datapath: %w", want.Name, want.Type, unix.ENODEV)
	}
	underlay, err := k.linkByName(want.VXLAN.Underlay)
	if err != nil {
		return err
	}
	err = k.setLink(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, infoFixed(0, 0, 0), func(m *messages) {
		m.str(unix.IFLA_IFNAME, want.Name)
		m.attr(unix.IFLA_ADDRESS, want.MAC[:])
		m.u32(unix.IFLA_MTU, uint32(want.MTU))
		info := m.nest(unix.IFLA_LINKINFO)
		m.str(unix.IFLA_INFO_KIND, want.Type)
		data := m.nest(unix.IFLA_INFO_DATA)
		v := want.VXLAN
		m.u32(unix.IFLA_VXLAN_ID, v.VNI)
		m.attr(unix.IFLA_VXLAN_PORT, []byte{byte(v.Port >> 8), byte(v.Port)})
		m.vxlanMutable(v, underlay.index)
		if v.GBP {
			m.attr(unix.IFLA_VXLAN_GBP, nil)
		}
		m.unnest(data)
		m.unnest(info)
	})
	if err != nil {
		return fmt.Errorf("create device: %w", explain(Op{Object: want}, err))
	}
	have, err := k.linkByName(want.Name)
	if err != nil {
		return err
	}
	return errors.Join(enableIPv6(want), k.noLinkLocal(have), k.changeLink(have, want))
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
	err := k.setLink(unix.RTM_NEWLINK, 0, infoFixed(l.index, 0, 0), func(m *messages) {
		spec := m.nest(unix.IFLA_AF_SPEC)
		inet6 := m.nest(unix.AF_INET6)
		m.attr(unix.IFLA_INET6_ADDR_GEN_MODE, []byte{addrGenNone})
		m.unnest(inet6)
		m.unnest(spec)
	})
	if err != nil && !errors.Is(err, unix.EAFNOSUPPORT) {
		return fmt.Errorf("turn off link-local addresses: %w", err)
	}
	return nil
}

// vxlanMutable writes the settings that can change while the device stands.
func (m *messages) vxlanMutable(v VXLAN, underlay uint32) {
	m.u32(unix.IFLA_VXLAN_LINK, underlay)
	if v.Local.Is4() {
		m.addr(unix.IFLA_VXLAN_LOCAL, v.Local)
	} else if v.Local.IsValid() {
		m.addr(unix.IFLA_VXLAN_LOCAL6, v.Local)
	}
	m.u8(unix.IFLA_VXLAN_LEARNING, v.Learning)
}

// changeLink changes what differs, each by a request of its own so that an error says what was refused.
func (k *LinuxKernel) changeLink(have link, want Link) error {
	set := func(what string, fixed []byte, attrs func(*messages)) error {
		if err := k.setLink(unix.RTM_NEWLINK, 0, fixed, attrs); err != nil {
			return fmt.Errorf("set %s: %w", what, err)
		}
		return nil
	}
	fixed := infoFixed(have.index, 0, 0)
	var errs []error
	if want.Type == "vxlan" {
		underlay, err := k.linkByName(want.VXLAN.Underlay)
		if err != nil {
			return err
		}
		if have.underlay != underlay.index || have.VXLAN.Local != want.VXLAN.Local || have.VXLAN.Learning != want.VXLAN.Learning {
			errs = append(errs, set("underlay and local address", fixed, func(m *messages) {
				info := m.nest(unix.IFLA_LINKINFO)
				m.str(unix.IFLA_INFO_KIND, want.Type)
				data := m.nest(unix.IFLA_INFO_DATA)
				m.vxlanMutable(want.VXLAN, underlay.index)
				m.unnest(data)
				m.unnest(info)
			}))
		}
		if have.MAC != want.MAC {
			errs = append(errs, set("hardware address", fixed, func(m *messages) { m.attr(unix.IFLA_ADDRESS, want.MAC[:]) }))
		}
	}
	if have.MTU != want.MTU {
		errs = append(errs, set(fmt.Sprintf("MTU %d", want.MTU), fixed, func(m *messages) { m.u32(unix.IFLA_MTU, uint32(want.MTU)) }))
	}
	if have.AcceptRA != want.AcceptRA {
		errs = append(errs, setAcceptRA(want))
	}
	if have.Up != want.Up {
		flags := uint32(0)
		if want.Up {
			flags = unix.IFF_UP
		}
		errs = append(errs, set("up", infoFixed(have.index, flags, unix.IFF_UP), nil))
	}
	return errors.Join(errs...)
}

func setAcceptRA(want Link) error {
	value := "0"
	if want.AcceptRA {
		value = "1"
	}
	err := os.WriteFile("/proc/sys/net/ipv6/conf/"+want.Name+"/accept_ra", []byte(value), 0)
	if err != nil {
		return fmt.Errorf("set accept_ra: %w", err)
	}
	return nil
}
