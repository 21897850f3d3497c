package ip

import (
	"net/netip"

	"golang.org/x/sys/unix"
)

// names gives the name of a link by its number.
type names map[uint32]string

func address(b []byte) netip.Addr {
	a, _ := netip.AddrFromSlice(b)
	return a
}

// decodeAddr reads a struct ifaddrmsg.
func decodeAddr(b []byte, links names) (a Addr, ok bool) {
	if len(b) < unix.SizeofIfAddrmsg {
		return Addr{}, false
	}
	a.Link = links[native.Uint32(b[4:])]
	var local, peer netip.Addr
	for kind, data := range attributes(b[unix.SizeofIfAddrmsg:]) {
		switch kind {
		case unix.IFA_LOCAL:
			local = address(data)
		case unix.IFA_ADDRESS:
			peer = address(data)
		}
	}
	if !local.IsValid() {
		local = peer
	}
	if !local.IsValid() {
		return Addr{}, false
	}
	a.Prefix = netip.PrefixFrom(local, int(b[1]))
	return a, true
}

// deprecated reports whether an address in a struct ifaddrmsg is to be used no more for what is new. Each router advertisement with
// the preferred lifetime 0 makes the kernel take the flag away for a moment (addrconf_prefix_rcv_add_addr in net/ipv6/addrconf.c).
func deprecated(b []byte) bool {
	if b[2]&unix.IFA_F_DEPRECATED != 0 {
		return true
	}
	for kind, data := range attributes(b[unix.SizeofIfAddrmsg:]) {
		if kind == unix.IFA_CACHEINFO {
			return u32(data) == 0 // the preferred lifetime in a struct ifa_cacheinfo, in seconds
		}
	}
	return false
}

// decodeNeigh reads a struct ndmsg into an FDB or a Neigh. permanent is false for entries that the kernel may drop.
func decodeNeigh(b []byte, links names) (o Object, permanent bool) {
	if len(b) < unix.SizeofNdMsg {
		return nil, false
	}
	link, state := links[native.Uint32(b[4:])], native.Uint16(b[8:])
	var dst netip.Addr
	var mac MAC
	zone, odd := "", false
	for kind, data := range attributes(b[unix.SizeofNdMsg:]) {
		switch kind {
		case unix.NDA_DST:
			dst = address(data)
		case unix.NDA_LLADDR:
			copy(mac[:], data)
		case unix.NDA_IFINDEX:
			zone = links[u32(data)]
		case unix.NDA_PORT, unix.NDA_VNI:
			odd = true
		}
	}
	if dst.Is6() && dst.IsLinkLocalUnicast() && b[0] == unix.AF_BRIDGE {
		dst = dst.WithZone(zone)
	} else if zone != "" {
		odd = true
	}
	permanent = state&unix.NUD_PERMANENT != 0
	if b[0] == unix.AF_BRIDGE {
		return FDB{link, dst, mac, odd}, permanent
	}
	return Neigh{link, dst, mac}, permanent
}

// decodeRoute reads a struct rtmsg; ok is false for a route that cannot be ours: of another table or kind, or cloned. A
// route with several next hops has neither Via nor Link.
func decodeRoute(b []byte, links names) (r Route, ok bool) {
	if len(b) < unix.SizeofRtMsg {
		return Route{}, false
	}
	family, bits, protocol, kind := b[0], int(b[1]), b[5], b[7]
	flags, table := native.Uint32(b[8:]), uint32(b[4])
	dst := netip.IPv4Unspecified()
	if family == unix.AF_INET6 {
		dst = netip.IPv6Unspecified()
	}
	for kind, data := range attributes(b[unix.SizeofRtMsg:]) {
		switch kind {
		case unix.RTA_TABLE:
			table = u32(data)
		case unix.RTA_DST:
			dst = address(data)
		case unix.RTA_GATEWAY:
			r.Via = address(data)
		case unix.RTA_OIF:
			r.Link = links[u32(data)]
		case unix.RTA_PRIORITY:
			r.Metric = u32(data)
		case unix.RTA_MULTIPATH, unix.RTA_METRICS, unix.RTA_PREFSRC, unix.RTA_ENCAP, unix.RTA_FLOW, unix.RTA_VIA:
			r.Odd = true
		}
	}
	if family == unix.AF_INET6 && r.Metric == metric6 {
		r.Metric = 0
	}
	// An IPv4 route for another type of service is beside ours, and does not replace it.
	if table != unix.RT_TABLE_MAIN || b[3] != 0 || flags&unix.RTM_F_CLONED != 0 {
		return Route{}, false
	}
	r.Dst, r.Protocol = netip.PrefixFrom(dst, bits), protocol
	if family == unix.AF_INET && b[6] < unix.RT_SCOPE_SITE {
		r.Scope = b[6]
	}
	r.Onlink = flags&unix.RTNH_F_ONLINK != 0
	switch kind {
	case unix.RTN_UNICAST:
	case unix.RTN_BLACKHOLE:
		r.Blackhole, r.Link = true, ""
	default:
		return Route{}, false
	}
	return r, true
}

// link is a Link with what else an underlay needs to know.
type link struct {
	Link
	index    uint32
	underlay uint32 // index of the underlay of a vxlan device
	flags    uint32
}

// devconfAcceptRA is the place of accept_ra in IFLA_INET6_CONF (enum DEVCONF_*, include/uapi/linux/ipv6.h).
const devconfAcceptRA = 3

// decodeLink reads a struct ifinfomsg. The name of the underlay is left to the caller.
func decodeLink(b []byte) (l link, ok bool) {
	if len(b) < unix.SizeofIfInfomsg || b[0] != unix.AF_UNSPEC {
		return link{}, false
	}
	l.index, l.flags = native.Uint32(b[4:]), native.Uint32(b[8:])
	l.Up = l.flags&unix.IFF_UP != 0
	for kind, data := range attributes(b[unix.SizeofIfInfomsg:]) {
		switch kind {
		case unix.IFLA_IFNAME:
			l.Name = cstring(data)
		case unix.IFLA_ADDRESS:
			copy(l.MAC[:], data)
		case unix.IFLA_MTU:
			l.MTU = int(u32(data))
		case unix.IFLA_LINKINFO:
			l.decodeInfo(data)
		case unix.IFLA_AF_SPEC:
			l.AcceptRA = acceptsRA(data)
		}
	}
	return l, l.Name != ""
}

func (l *link) decodeInfo(b []byte) {
	var data []byte
	for kind, v := range attributes(b) {
		switch kind {
		case unix.IFLA_INFO_KIND:
			l.Type = cstring(v)
		case unix.IFLA_INFO_DATA:
			data = v
		}
	}
	if l.Type != "vxlan" {
		return
	}
	for kind, v := range attributes(data) {
		switch kind {
		case unix.IFLA_VXLAN_ID:
			l.VXLAN.VNI = u32(v)
		case unix.IFLA_VXLAN_PORT:
			l.VXLAN.Port = uint16(v[0])<<8 | uint16(v[1])
		case unix.IFLA_VXLAN_LOCAL, unix.IFLA_VXLAN_LOCAL6:
			l.VXLAN.Local = address(v)
		case unix.IFLA_VXLAN_LINK:
			l.underlay = u32(v)
		case unix.IFLA_VXLAN_LEARNING:
			l.VXLAN.Learning = v[0] != 0
		case unix.IFLA_VXLAN_GBP:
			l.VXLAN.GBP = true
		}
	}
}

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
