package ip

import (
	"net/netip"

	"golang.org/x/sys/unix"
)

// names gives the name of a link by its number.
type names map[uint32]string

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

// decodeMetrics reads the attributes in RTA_METRICS. odd says that there are others than an MTU.
func decodeMetrics(b []byte) (mtu uint32, odd bool) {
	for kind, data := range attributes(b) {
		if kind == unix.RTAX_MTU {
			mtu = u32(data)
		} else {
			odd = true
		}
	}
	return mtu, odd
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
		case unix.RTA_METRICS:
			mtu, odd := decodeMetrics(data)
			r.MTU, r.Odd = mtu, r.Odd || odd
		case unix.RTA_MULTIPATH, unix.RTA_PREFSRC, unix.RTA_ENCAP, unix.RTA_FLOW, unix.RTA_VIA:
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
