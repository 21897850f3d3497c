package ip

import (
	"log/slog"
	"net/netip"
	"slices"
)

// Host is what a backend is given of the host that it runs on.
type Host struct {
	Kernel Kernel
	Log    *slog.Logger
	// Underlay returns the interface in use now; it may be called by any goroutine.
	Underlay func() Underlay
	// Leftovers is what earlier runs may have left behind, to be cleaned up in the first pass.
	Leftovers Scope
	// Devices are the names of the backend's own devices, where it has a choice; none: its first one.
	Devices []string
	// Connected returns what this host reaches otherwise of the network's ranges; nil: nothing. Any goroutine may call it.
	Connected func() []Connected
	// Filtered says why packets between hosts must not bypass the packet filter; empty: they may. The error says that it
	// cannot be read. nil: there is no packet filter. Any goroutine may call it.
	Filtered func(Flow) (why string, err error)
	// Poke asks for a pass, because what the backend publishes has changed; nil: there is nobody to ask. It is called
	// while the backend runs, by any goroutine.
	Poke func()
	// Identity is the random name of the host, that hardware addresses are derived from.
	Identity string
	// MACs are the hardware addresses of earlier runs, by device.
	MACs map[string]MAC
	// Blackhole says that packets into the host's own subnets shall be dropped where no pod's route takes them.
	Blackhole bool
}

// Flow are the packets between this host and its peers: UDP over IPv4, from a port to the same port.
type Flow struct {
	Link  string
	Local netip.Addr
	Port  uint16
}

// OwnRoutes returns the routes that a host has for its own subnets, whatever the backend.
func (h Host) OwnRoutes(subnets ...netip.Prefix) []Object {
	if !h.Blackhole {
		return nil
	}
	out := make([]Object, len(subnets))
	for i, s := range subnets {
		out[i] = Route{Dst: s, Blackhole: true, Metric: BlackholeMetric, Protocol: Protocol}
	}
	return out
}

// Underlay is the interface and the addresses that this host sends tunnel packets from.
type Underlay struct {
	Link        string
	MTU         int          // bytes
	MAC         MAC          // to tell a clone from a host that moved, in messages
	Addrs       []netip.Addr // own addresses, one for each family that it has
	PublicAddrs []netip.Addr // what peers are told, one for each family
	Reason      string       // why this interface
	// NoNeighbours is that of the interface.
	NoNeighbours bool
	// Next are the own addresses that are to follow Addrs, one for each family, while peers are told of them; nil: none
	// are.
	Next []netip.Addr
}

// Addr returns the own address of the family of a prefix; the zero value if there is none.
func (u Underlay) Addr(prefix netip.Prefix) netip.Addr { return ofFamily(u.Addrs, prefix) }

// PublicAddr returns the address that peers are told, of the family of a prefix; the zero value if there is none.
func (u Underlay) PublicAddr(prefix netip.Prefix) netip.Addr { return ofFamily(u.PublicAddrs, prefix) }

// Receiving returns the own address that peers send to, or will soon.
func (u Underlay) Receiving(prefix netip.Prefix) netip.Addr {
	if len(u.Next) > 0 {
		return ofFamily(u.Next, prefix)
	}
	return u.Addr(prefix)
}

// OnLink adds to an IPv6 link-local address the link that it is to be found on: by the address alone the kernel would
// look on any.
func (u Underlay) OnLink(a netip.Addr) netip.Addr {
	if a.Is6() && a.IsLinkLocalUnicast() {
		return a.WithZone(u.Link)
	}
	return a
}

func ofFamily(addrs []netip.Addr, prefix netip.Prefix) netip.Addr {
	for _, a := range addrs {
		if a.Is4() == prefix.Addr().Is4() {
			return a
		}
	}
	return netip.Addr{}
}

// With returns the union of both scopes. BootGateways is that of the receiver.
func (s Scope) With(o Scope) Scope {
	s.Links = append(slices.Clone(s.Links), o.Links...)
	s.Networks = append(slices.Clone(s.Networks), o.Networks...)
	return s
}
