package ip

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// dumpTries bounds how often a dump is repeated that the kernel calls interrupted.
const dumpTries = 10

// Dump implements Kernel. The kernel filters by device and protocol, so that the cost does not grow with what others have.
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
		if !errors.Is(err, errInterrupted) && !errors.Is(err, unix.ENOBUFS) || try == dumpTries {
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
	fixed := native.AppendUint32(make([]byte, 4, unix.SizeofIfAddrmsg), index)
	err := k.sock.dump(unix.RTM_GETADDR, fixed, nil, func(got message) {
		if a, ok := decodeAddr(got.data, links); ok && !a.ofKernel() && native.Uint32(got.data[4:]) == index {
			s.Addrs = append(s.Addrs, a)
		}
	})
	if err != nil {
		return fmt.Errorf("list addresses: %w", err)
	}
	neigh := func(got message) {
		o, permanent := decodeNeigh(got.data, links)
		if o == nil || !permanent || native.Uint32(got.data[4:]) != index {
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
	if err := k.sock.dump(unix.RTM_GETNEIGH, neighFixed(unix.AF_BRIDGE, index, 0, 0), nil, neigh); err != nil {
		return fmt.Errorf("list forwarding entries: %w", err)
	}
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		err := k.sock.dump(unix.RTM_GETNEIGH, neighFixed(family, 0, 0, 0), func(m *messages) { m.u32(unix.NDA_IFINDEX, index) }, neigh)
		if err != nil {
			return fmt.Errorf("list neighbours: %w", err)
		}
	}
	return nil
}

// dumpRoutes adds the routes of the scope: those of some protocols, and on our devices those of all others.
func (k *LinuxKernel) dumpRoutes(s *State, scope Scope, links names) error {
	protocols := []uint8{Protocol}
	if scope.BootGateways {
		protocols = append(protocols, protoBoot)
	}
	dump := func(family uint8, f routeFilter) error {
		err := k.sock.dump(unix.RTM_GETROUTE, f.fixed(family), f.attrs, func(got message) {
			r, ok := decodeRoute(got.data, links)
			if ok && scope.Owns(r) && (f.index == 0 || !slices.Contains(protocols, r.Protocol)) {
				s.Routes = append(s.Routes, r)
			}
		})
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

func (f routeFilter) fixed(family uint8) []byte {
	b := make([]byte, unix.SizeofRtMsg)
	b[0], b[4], b[5] = family, unix.RT_TABLE_MAIN, f.protocol
	return b
}

func (f routeFilter) attrs(m *messages) {
	if f.index != 0 {
		m.u32(unix.RTA_OIF, f.index)
	}
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
	links, linkNames, err := k.dumpLinks()
	if err != nil {
		return nil, err
	}
	addrs, fading := map[string][]netip.Prefix{}, map[string][]netip.Prefix{}
	err = k.sock.dump(unix.RTM_GETADDR, make([]byte, unix.SizeofIfAddrmsg), nil, func(got message) {
		const unusable = unix.IFA_F_TENTATIVE | unix.IFA_F_DADFAILED | unix.IFA_F_TEMPORARY
		a, ok := decodeAddr(got.data, linkNames)
		switch {
		case !ok:
		case a.Prefix.Addr().Is4() || got.data[2]&unusable == 0 && !deprecated(got.data):
			addrs[a.Link] = append(addrs[a.Link], a.Prefix)
		case got.data[2]&unusable == 0:
			fading[a.Link] = append(fading[a.Link], a.Prefix)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	out := make([]Interface, len(links))
	for i, l := range links {
		out[i] = Interface{
			Name: l.Name, Index: int(l.index), MTU: l.MTU, MAC: l.MAC, Up: l.Up, Addrs: addrs[l.Name], Deprecated: fading[l.Name],
			Running: l.flags&unix.IFF_RUNNING != 0, Loopback: l.flags&unix.IFF_LOOPBACK != 0,
		}
	}
	slices.SortFunc(out, func(a, b Interface) int { return a.Index - b.Index })
	return out, nil
}

// RouteTo implements Kernel.
func (k *LinuxKernel) RouteTo(dst netip.Addr) (Hop, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var h Hop
	var index uint32
	err := k.sock.do(func(m *messages, seq uint32) {
		fixed := make([]byte, unix.SizeofRtMsg)
		fixed[0], fixed[1] = familyOf(dst), uint8(dst.BitLen())
		m.begin(unix.RTM_GETROUTE, 0, seq, fixed)
		m.addr(unix.RTA_DST, dst)
		m.end()
	}, func(got message) {
		if len(got.data) < unix.SizeofRtMsg {
			return
		}
		for kind, data := range attributes(got.data[unix.SizeofRtMsg:]) {
			switch kind {
			case unix.RTA_OIF:
				index = u32(data)
			case unix.RTA_GATEWAY:
				h.Via = address(data)
			case unix.RTA_PREFSRC:
				h.Src = address(data)
			}
		}
	})
	if err != nil {
		return Hop{}, fmt.Errorf("route to %s: %w", dst, err)
	}
	h.Link, err = k.linkName(index)
	return h, err
}

func (k *LinuxKernel) linkName(index uint32) (name string, err error) {
	err = k.sock.do(func(m *messages, seq uint32) {
		m.begin(unix.RTM_GETLINK, 0, seq, infoFixed(index, 0, 0))
		m.u32(unix.IFLA_EXT_MASK, skipStats)
		m.end()
	}, func(got message) {
		if l, ok := decodeLink(got.data); ok {
			name = l.Name
		}
	})
	if err != nil {
		return "", fmt.Errorf("find link %d: %w", index, err)
	}
	return name, nil
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
		return k.sock.dump(unix.RTM_GETROUTE, routeFilter{}.fixed(family), nil, func(got message) {
			if h, metric, is := decodeDefault(got.data, linkNames); is && (!ok || metric < best) {
				hop, ok, best = h, true, metric
			}
		})
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
			// The first next hop (struct rtnexthop) stands for all.
			if len(data) >= unix.SizeofRtNexthop {
				h.Link = links[native.Uint32(data[4:])]
				for kind, data := range attributes(data[unix.SizeofRtNexthop:min(len(data), int(native.Uint16(data)))]) {
					if kind == unix.RTA_GATEWAY {
						h.Via = address(data)
					}
				}
			}
		}
	}
	return h, metric, h.Link != ""
}
