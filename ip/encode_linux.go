package ip

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// indexes gives the number of a link by its name.
type indexes map[string]uint32

func familyOf(a netip.Addr) uint8 {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// encode writes one operation on an address, FDB entry, neighbour or route.
func encode(m *messages, seq uint32, op Op, links indexes) {
	kinds := [2]uint16{}
	flags := unix.NLM_F_CREATE | unix.NLM_F_REPLACE
	if op.Create {
		flags = unix.NLM_F_CREATE | unix.NLM_F_EXCL
	}
	var fixed []byte
	switch o := op.Object.(type) {
	case Addr:
		kinds = [2]uint16{unix.RTM_NEWADDR, unix.RTM_DELADDR}
		fixed = addrFixed(o, links)
	case FDB:
		kinds = [2]uint16{unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH}
		fixed = neighFixed(unix.AF_BRIDGE, links[o.Link], unix.NUD_PERMANENT, unix.NTF_SELF)
	case Neigh:
		kinds = [2]uint16{unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH}
		fixed = neighFixed(familyOf(o.IP), links[o.Link], unix.NUD_PERMANENT, 0)
	case Route:
		kinds = [2]uint16{unix.RTM_NEWROUTE, unix.RTM_DELROUTE}
		fixed = routeFixed(o, op.Delete)
	default:
		panic(fmt.Sprintf("no batch message for %T", op.Object))
	}
	kind := kinds[0]
	if op.Delete {
		kind, flags = kinds[1], 0
	}
	m.begin(kind, flags, seq, fixed)
	encodeAttrs(m, op, links)
	m.end()
}

func encodeAttrs(m *messages, op Op, links indexes) {
	switch o := op.Object.(type) {
	case Addr:
		m.addr(unix.IFA_LOCAL, o.Prefix.Addr())
		m.addr(unix.IFA_ADDRESS, o.Prefix.Addr())
	case FDB:
		m.attr(unix.NDA_LLADDR, o.MAC[:])
		if o.Odd {
			break // a delete takes the entry with all its destinations
		}
		m.addr(unix.NDA_DST, o.Dst)
		if zone := o.Dst.Zone(); zone != "" {
			m.u32(unix.NDA_IFINDEX, links[zone])
		}
	case Neigh:
		m.addr(unix.NDA_DST, o.IP)
		if !op.Delete {
			m.attr(unix.NDA_LLADDR, o.MAC[:])
		}
	case Route:
		m.addr(unix.RTA_DST, o.Dst.Addr())
		if o.Via.IsValid() {
			m.addr(unix.RTA_GATEWAY, o.Via)
		}
		if o.Link != "" {
			m.u32(unix.RTA_OIF, links[o.Link])
		}
		if o.Metric != 0 {
			m.u32(unix.RTA_PRIORITY, o.Metric)
		} else if !o.Dst.Addr().Is4() {
			m.u32(unix.RTA_PRIORITY, metric6)
		}
	}
}

// metric6 is the priority that the kernel gives an IPv6 route without one (IP6_RT_PRIO_USER).
const metric6 = 1024

// addrFixed is a struct ifaddrmsg.
func addrFixed(a Addr, links indexes) []byte {
	b := []byte{familyOf(a.Prefix.Addr()), uint8(a.Prefix.Bits()), 0, unix.RT_SCOPE_UNIVERSE}
	return native.AppendUint32(b, links[a.Link])
}

// neighFixed is a struct ndmsg.
func neighFixed(family uint8, index uint32, state uint16, flags uint8) []byte {
	b := native.AppendUint32([]byte{family, 0, 0, 0}, index)
	return append(native.AppendUint16(b, state), flags, 0)
}

// routeFixed is a struct rtmsg. A delete matches any scope and the type given.
func routeFixed(r Route, del bool) []byte {
	scope, kind, flags := r.Scope, uint8(unix.RTN_UNICAST), uint32(0)
	switch {
	case del:
		scope = unix.RT_SCOPE_NOWHERE
	case !r.Via.IsValid() && !r.Blackhole:
		scope = unix.RT_SCOPE_LINK
	}
	if r.Blackhole {
		kind = unix.RTN_BLACKHOLE
	}
	if r.Onlink {
		flags = unix.RTNH_F_ONLINK
	}
	b := []byte{familyOf(r.Dst.Addr()), uint8(r.Dst.Bits()), 0, 0, unix.RT_TABLE_MAIN, r.Protocol, scope, kind}
	return native.AppendUint32(b, flags)
}
