package ip

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// dumpTries bounds how often a dump is repeated that the kernel calls interrupted.
const dumpTries = 10

// Dump implements Kernel. The kernel filters by device and protocol, so that the cost does not grow with what others
// have.
func (k *LinuxKernel) Dump(scope Scope) (State, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var s State
	err := k.repeat(func() (err error) {
		s, err = k.dump(scope)
		return err
	})
	if err != nil {
		return State{}, fmt.Errorf("read the kernel's state: %w", err)
	}
	s.Sort()
	return s, nil
}

func (k *LinuxKernel) repeat(dump func() error) error {
	for try := 1; ; try++ {
		err := dump()
		if !errors.Is(err, nl.ErrDumpInterrupted) && !errors.Is(err, unix.ENOBUFS) || try == dumpTries {
			return err
		}
	}
}

func (k *LinuxKernel) dump(scope Scope) (State, error) {
	var s State
	all, linkNames, err := k.dumpLinks()
	if err != nil {
		return s, err
	}
	for _, l := range all {
		if !slices.Contains(scope.Links, l.Name) {
			continue
		}
		s.Links = append(s.Links, l.Link)
		if err := k.dumpOn(&s, l.index, linkNames); err != nil {
			return s, fmt.Errorf("device %s: %w", l.Name, err)
		}
	}
	return s, k.dumpRoutes(&s, scope, linkNames)
}

// dumpOn adds what stands on one device of ours.
func (k *LinuxKernel) dumpOn(s *State, index uint32, links names) error {
	msg := nl.NewIfAddrmsg(unix.AF_UNSPEC)
	msg.Index = index
	err := k.sock.dump(unix.RTM_GETADDR, func(data []byte) {
		if a, ok := decodeAddr(data, links); ok && !a.ofKernel() && native.Uint32(data[4:]) == index {
			s.Addrs = append(s.Addrs, a)
		}
	}, msg)
	if err != nil {
		return fmt.Errorf("list addresses: %w", err)
	}
	neigh := func(data []byte) {
		o, permanent := decodeNeigh(data, links)
		if o == nil || !permanent || native.Uint32(data[4:]) != index {
			return
		}
		switch o := o.(type) {
		case FDB:
			if o.Dst.IsValid() {
				s.FDB = append(s.FDB, o)
			}
		case Neigh:
			if !o.IP.IsMulticast() {
				s.Neighs = append(s.Neighs, o)
			}
		}
	}
	if err := k.sock.dump(unix.RTM_GETNEIGH, neigh, &netlink.Ndmsg{Family: unix.AF_BRIDGE, Index: index}); err != nil {
		return fmt.Errorf("list forwarding entries: %w", err)
	}
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		if err := k.sock.dump(unix.RTM_GETNEIGH, neigh, &netlink.Ndmsg{Family: family}, onLink(index)); err != nil {
			return fmt.Errorf("list neighbours: %w", err)
		}
	}
	return nil
}

// onLink narrows a dump of neighbours.
func onLink(index uint32) nl.NetlinkRequestData {
	return nl.NewRtAttr(unix.NDA_IFINDEX, nl.Uint32Attr(index))
}

// dumpRoutes adds the routes of the scope: those of some protocols, and on our devices those of all others.
func (k *LinuxKernel) dumpRoutes(s *State, scope Scope, links names) error {
	protocols := []uint8{Protocol}
	if scope.BootGateways {
		protocols = append(protocols, protoBoot)
	}
	dump := func(family uint8, f routeFilter) error {
		err := k.sock.dump(unix.RTM_GETROUTE, func(data []byte) {
			r, ok := decodeRoute(data, links)
			if ok && scope.Owns(r) && (f.index == 0 || !slices.Contains(protocols, r.Protocol)) {
				s.Routes = append(s.Routes, r)
			}
		}, f.request(family)...)
		if err != nil {
			return fmt.Errorf("list routes: %w", err)
		}
		return nil
	}
	for _, family := range scope.families() {
		for _, p := range protocols {
			if err := dump(family, routeFilter{protocol: p}); err != nil {
				return err
			}
		}
		for index, name := range links {
			if !slices.Contains(scope.Links, name) {
				continue
			}
			if err := dump(family, routeFilter{index: index}); err != nil {
				return err
			}
		}
	}
	return nil
}

// families returns the address families of the scope's networks.
func (s Scope) families() []uint8 {
	var out []uint8
	for _, n := range s.Networks {
		if f := familyOf(n.Addr()); !slices.Contains(out, f) {
			out = append(out, f)
		}
	}
	return out
}

// routeFilter narrows a dump of the main table; zero values do not.
type routeFilter struct {
	protocol uint8
	index    uint32
}

func (f routeFilter) request(family uint8) []nl.NetlinkRequestData {
	msg := &nl.RtMsg{RtMsg: unix.RtMsg{Family: family, Table: unix.RT_TABLE_MAIN, Protocol: f.protocol}}
	if f.index == 0 {
		return []nl.NetlinkRequestData{msg}
	}
	return []nl.NetlinkRequestData{msg, nl.NewRtAttr(unix.RTA_OIF, nl.Uint32Attr(f.index))}
}

// Interfaces implements Kernel.
func (k *LinuxKernel) Interfaces() ([]Interface, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var out []Interface
	err := k.repeat(func() (err error) {
		out, err = k.interfaces()
		return err
	})
	return out, err
}

func (k *LinuxKernel) interfaces() ([]Interface, error) {
	links, _, err := k.dumpLinks()
	if err != nil {
		return nil, err
	}
	all, err := k.handle.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	addrs, deprecatedAddrs := map[uint32][]netip.Prefix{}, map[uint32][]netip.Prefix{}
	for _, a := range all {
		const unusable = unix.IFA_F_TENTATIVE | unix.IFA_F_DADFAILED | unix.IFA_F_TEMPORARY
		on := uint32(a.LinkIndex)
		switch p := prefixOf(a); {
		case p.Addr().Is4() || a.Flags&unusable == 0 && !deprecated(a):
			addrs[on] = append(addrs[on], p)
		case a.Flags&unusable == 0:
			deprecatedAddrs[on] = append(deprecatedAddrs[on], p)
		}
	}
	out := make([]Interface, len(links))
	for i, l := range links {
		out[i] = Interface{
			Name: l.Name, Index: int(l.index), MTU: l.MTU, MAC: l.MAC, Up: l.Up,
			Addrs: addrs[l.index], Deprecated: deprecatedAddrs[l.index],
			Running: l.flags&unix.IFF_RUNNING != 0, Loopback: l.flags&unix.IFF_LOOPBACK != 0,
			NoNeighbours: l.flags&(unix.IFF_POINTOPOINT|unix.IFF_NOARP) != 0,
		}
	}
	slices.SortFunc(out, func(a, b Interface) int { return a.Index - b.Index })
	return out, nil
}

// prefixOf returns an address with the length of its prefix, which with a peer is that of the peer.
func prefixOf(a netlink.Addr) netip.Prefix {
	local, _ := netip.AddrFromSlice(a.IP)
	bits, _ := a.Mask.Size()
	if a.Peer != nil {
		bits, _ = a.Peer.Mask.Size()
	}
	return netip.PrefixFrom(local, bits)
}

// deprecated reports whether an address is to be used no more for what is new. Each router advertisement with the
// preferred lifetime 0 makes the kernel take the flag away for a moment (addrconf_prefix_rcv_add_addr in
// net/ipv6/addrconf.c).
func deprecated(a netlink.Addr) bool { return a.Flags&unix.IFA_F_DEPRECATED != 0 || a.PreferedLft == 0 }

// RouteTo implements Kernel.
func (k *LinuxKernel) RouteTo(dst netip.Addr) (Hop, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	routes, err := k.handle.RouteGet(dst.AsSlice())
	if err == nil && len(routes) == 0 {
		err = unix.ENETUNREACH
	}
	if err != nil {
		return Hop{}, fmt.Errorf("route to %s: %w", dst, err)
	}
	r := routes[0]
	l, err := k.linkByIndex(r.LinkIndex)
	return Hop{Link: l.Name, Via: address(r.Gw), Src: address(r.Src)}, err
}

// DefaultRoute implements Kernel.
func (k *LinuxKernel) DefaultRoute(is4 bool) (hop Hop, ok bool, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	family := uint8(unix.AF_INET)
	if !is4 {
		family = unix.AF_INET6
	}
	err = k.repeat(func() error {
		hop, ok = Hop{}, false
		_, linkNames, err := k.dumpLinks()
		if err != nil {
			return err
		}
		var best uint32
		return k.sock.dump(unix.RTM_GETROUTE, func(data []byte) {
			if h, metric, is := decodeDefault(data, linkNames); is && (!ok || metric < best) {
				hop, ok, best = h, true, metric
			}
		}, routeFilter{}.request(family)...)
	})
	return hop, ok, err
}

// decodeDefault reads a struct rtmsg that is a usable default route.
func decodeDefault(b []byte, links names) (h Hop, metric uint32, ok bool) {
	const down = unix.RTNH_F_DEAD | unix.RTNH_F_LINKDOWN
	if len(b) < unix.SizeofRtMsg || b[1] != 0 || b[7] != unix.RTN_UNICAST || native.Uint32(b[8:])&down != 0 {
		return Hop{}, 0, false
	}
	for kind, data := range attributes(b[unix.SizeofRtMsg:]) {
		switch kind {
		case unix.RTA_OIF:
			h.Link = links[u32(data)]
		case unix.RTA_GATEWAY:
			h.Via = address(data)
		case unix.RTA_PREFSRC:
			h.Src = address(data)
		case unix.RTA_PRIORITY:
			metric = u32(data)
		case unix.RTA_MULTIPATH:
			h.decodeNextHop(data, links)
		}
	}
	return h, metric, h.Link != ""
}

// decodeNextHop reads the first of some next hops (struct rtnexthop), which stands for all.
func (h *Hop) decodeNextHop(b []byte, links names) {
	if len(b) < unix.SizeofRtNexthop {
		return
	}
	h.Link = links[native.Uint32(b[4:])]
	for kind, data := range attributes(b[unix.SizeofRtNexthop:min(len(b), int(native.Uint16(b)))]) {
		if kind == unix.RTA_GATEWAY {
			h.Via = address(data)
		}
	}
}
