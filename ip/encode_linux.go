package ip

import (
	"fmt"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// indexes gives the number of a link by its name.
type indexes map[string]uint32

// encode writes one operation on an address, FDB entry, neighbour or route.
func encode(m *messages, op Op, links indexes) {
	kinds := [2]uint16{}
	flags := uint16(unix.NLM_F_CREATE | unix.NLM_F_REPLACE)
	if op.Create {
		flags = unix.NLM_F_CREATE | unix.NLM_F_EXCL
	}
	var fixed []byte
	switch o := op.Object.(type) {
	case Addr:
		kinds = [2]uint16{unix.RTM_NEWADDR, unix.RTM_DELADDR}
		fixed = addrFixed(o, links).Serialize()
	case FDB:
		kinds = [2]uint16{unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH}
		fixed = neighFixed(unix.AF_BRIDGE, links[o.Link], unix.NTF_SELF).Serialize()
	case Neigh:
		kinds = [2]uint16{unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH}
		fixed = neighFixed(familyOf(o.IP), links[o.Link], 0).Serialize()
	case Route:
		kinds = [2]uint16{unix.RTM_NEWROUTE, unix.RTM_DELROUTE}
		fixed = routeFixed(o, op.Delete).Serialize()
	default:
		panic(fmt.Sprintf("no batch message for %T", op.Object))
	}
	kind := kinds[0]
	if op.Delete {
		kind, flags = kinds[1], 0
	}
	m.begin(kind, flags, fixed)
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
		if o.MTU != 0 && !op.Delete { // a delete takes the route with any
			metrics := messages{}
			metrics.u32(unix.RTAX_MTU, o.MTU)
			m.attr(unix.RTA_METRICS, metrics.buf)
		}
	}
}

// metric6 is the priority that the kernel gives an IPv6 route without one (IP6_RT_PRIO_USER).
const metric6 = 1024

func addrFixed(a Addr, links indexes) *nl.IfAddrmsg {
	msg := nl.NewIfAddrmsg(int(familyOf(a.Prefix.Addr())))
	msg.Prefixlen, msg.Index = uint8(a.Prefix.Bits()), links[a.Link]
	return msg
}

func neighFixed(family uint8, index uint32, flags uint8) *netlink.Ndmsg {
	return &netlink.Ndmsg{Family: family, Index: index, State: unix.NUD_PERMANENT, Flags: flags}
}

// routeFixed returns the fixed part of a request about a route. A delete matches any scope and the type given.
func routeFixed(r Route, del bool) *nl.RtMsg {
	msg := nl.NewRtMsg()
	msg.Family, msg.Dst_len, msg.Protocol, msg.Scope = familyOf(r.Dst.Addr()), uint8(r.Dst.Bits()), r.Protocol, r.Scope
	switch {
	case del:
		msg.Scope = unix.RT_SCOPE_NOWHERE
	case !r.Via.IsValid() && !r.Blackhole:
		msg.Scope = unix.RT_SCOPE_LINK
	}
	if r.Blackhole {
		msg.Type = unix.RTN_BLACKHOLE
	}
	if r.Onlink {
		msg.Flags = unix.RTNH_F_ONLINK
	}
	return msg
}
