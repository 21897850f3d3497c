package ip

import (
	"bytes"
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Protocol is the routing protocol number (rtm_protocol, include/uapi/linux/rtnetlink.h) that every route of
// ours carries; "ip route show proto 70" lists them.
const Protocol = 70

// MaxLinkName is how many bytes the name of a link may have (IFNAMSIZ without the byte 0 at its end,
// include/uapi/linux/if.h).
const MaxLinkName = 15

// MinMTU6 is the smallest MTU of a link that has IPv6 (RFC 8200, section 5): below it the kernel takes all IPv6
// addresses away.
const MinMTU6 = 1280

// Kind orders objects: they are created in this order and deleted in the reverse one.
type Kind uint8

// The kinds of kernel objects, in the order of their dependencies.
const (
	KindLink Kind = iota
	KindAddr
	KindFDB
	KindNeigh
	KindRoute
	Kinds // how many there are
)

func (k Kind) String() string {
	return [...]string{"link", "addr", "fdb", "neigh", "route"}[k]
}

// Object is one kernel object as a comparable value: a Link, Addr, FDB, Neigh or Route.
type Object interface {
	Kind() Kind
	// Device is the name of the link that the object stands on, for a Link its own name. It is empty for a
	// route that has no device.
	Device() string
	String() string
}

// Link is a network device. Type and VXLAN except Local, Underlay and Learning cannot change in the lifetime
// of a device.
type Link struct {
	Name     string
	Type     string // as in IFLA_INFO_KIND: "vxlan", "tun"
	MAC      MAC
	MTU      int
	Up       bool
	AcceptRA bool // whether IPv6 router advertisements are obeyed
	VXLAN    VXLAN
	Tunnel   Tunnel
}

// Tunnel are the settings of a device that puts IP packets into IP packets and takes the destination from the next hop
// of the route: ipip (IFLA_IPTUN_*, include/uapi/linux/if_tunnel.h). It has no hardware address, and its settings
// cannot change in its lifetime.
type Tunnel struct {
	Local netip.Addr // source address of the tunnel packets
	Odd   bool       // has what we never give it: a remote address, a link, a fixed TTL, another protocol
}

// VXLAN are the settings of a vxlan device (IFLA_VXLAN_*, include/uapi/linux/if_link.h).
type VXLAN struct {
	VNI      uint32
	Port     uint16     // UDP destination port
	Local    netip.Addr // source address of the tunnel packets
	Underlay string     // name of the link that they leave by
	Learning bool
	GBP      bool // group policy extension
}

// Addr is an address on a link, with the length of its prefix.
type Addr struct {
	Link   string
	Prefix netip.Prefix
}

// ofKernel reports whether the kernel has made the address by itself, and will again: it is nobody's to take away.
// An IPv4 one is a network manager's.
func (a Addr) ofKernel() bool {
	return a.Prefix.Addr().Is6() && a.Prefix.Addr().IsLinkLocalUnicast()
}

// FDB is a permanent entry of a vxlan forwarding database: frames to MAC go to the host Dst. A link-local Dst has the
// name of its link as its zone.
type FDB struct {
	Link string
	Dst  netip.Addr
	MAC  MAC
	Odd  bool // names a port, a VNI or a link of its own: never wanted
}

// Neigh is a permanent neighbour (ARP, NDP) entry.
type Neigh struct {
	Link string
	IP   netip.Addr
	MAC  MAC
}

// BlackholeMetric is the metric of blackhole routes: the largest, so that any route of others to the same
// destination wins, such as that of the pods' bridge.
const BlackholeMetric = 1<<32 - 1

// Route is a route of the main table.
type Route struct {
	Dst       netip.Prefix
	Via       netip.Addr // next hop; the zero value: on the link itself
	Link      string     // empty for a blackhole
	Onlink    bool       // take Via as reachable on Link whatever the routes say
	Blackhole bool
	Metric    uint32 // 0: the default (IPv4: 0, IPv6: 1024)
	Scope     uint8  // IPv4: 0 to 199, see spreadScopes; other scopes are seen as 0
	Odd       bool   // has what we never give a route: several next hops, a source, a locked MTU, …
	Protocol  uint8  // Protocol in every route that we want; others are seen only where they are to be taken over
	MTU       uint32 // of the packets that are sent by it; 0: that of the link
}

// Kind implements Object.
func (Link) Kind() Kind { return KindLink }

// Kind implements Object.
func (Addr) Kind() Kind { return KindAddr }

// Kind implements Object.
func (FDB) Kind() Kind { return KindFDB }

// Kind implements Object.
func (Neigh) Kind() Kind { return KindNeigh }

// Kind implements Object.
func (Route) Kind() Kind { return KindRoute }

// Device implements Object.
func (l Link) Device() string { return l.Name }

// Device implements Object.
func (a Addr) Device() string { return a.Link }

// Device implements Object.
func (f FDB) Device() string { return f.Link }

// Device implements Object.
func (n Neigh) Device() string { return n.Link }

// Device implements Object.
func (r Route) Device() string { return r.Link }

func (l Link) String() string {
	s := fmt.Sprintf("%s type %s mac %s mtu %d", l.Name, l.Type, l.MAC, l.MTU)
	if l.Up {
		s += " up"
	}
	if l.AcceptRA {
		s += " accept_ra"
	}
	if l.Tunnel.Local.IsValid() {
		s += " local " + l.Tunnel.Local.String()
	}
	if l.Tunnel.Odd {
		s += " odd"
	}
	if l.VXLAN == (VXLAN{}) {
		return s
	}
	s += fmt.Sprintf(" vni %d port %d local %s dev %s", l.VXLAN.VNI, l.VXLAN.Port, l.VXLAN.Local, l.VXLAN.Underlay)
	if l.VXLAN.Learning {
		s += " learning"
	}
	if l.VXLAN.GBP {
		s += " gbp"
	}
	return s
}

func (a Addr) String() string { return fmt.Sprintf("%s dev %s", a.Prefix, a.Link) }

func (f FDB) String() string {
	s := fmt.Sprintf("%s dst %s dev %s", f.MAC, f.Dst, f.Link)
	if f.Odd {
		s += " odd"
	}
	return s
}

func (n Neigh) String() string { return fmt.Sprintf("%s lladdr %s dev %s", n.IP, n.MAC, n.Link) }

func (r Route) String() string {
	var b strings.Builder
	if r.Blackhole {
		b.WriteString("blackhole ")
	}
	b.WriteString(r.Dst.String())
	if r.Via.IsValid() {
		b.WriteString(" via " + r.Via.String())
	}
	if r.Link != "" {
		b.WriteString(" dev " + r.Link)
	}
	if r.Onlink {
		b.WriteString(" onlink")
	}
	if r.Scope != 0 {
		fmt.Fprintf(&b, " scope %d", r.Scope)
	}
	if r.Metric != 0 {
		fmt.Fprintf(&b, " metric %d", r.Metric)
	}
	if r.MTU != 0 {
		fmt.Fprintf(&b, " mtu %d", r.MTU)
	}
	if r.Odd {
		b.WriteString(" odd")
	}
	if r.Protocol != Protocol {
		fmt.Fprintf(&b, " proto %d", r.Protocol)
	}
	return b.String()
}

// State is a list of objects, in any order, as it is read from the kernel.
type State struct {
	Links  []Link
	Addrs  []Addr
	FDB    []FDB
	Neighs []Neigh
	Routes []Route
}

// Sort puts every slice in the order of its keys, in place.
func (s *State) Sort() {
	slices.SortFunc(s.Links, Link.compare)
	slices.SortFunc(s.Addrs, Addr.compare)
	slices.SortFunc(s.FDB, FDB.compare)
	slices.SortFunc(s.Neighs, Neigh.compare)
	slices.SortFunc(s.Routes, Route.compare)
}

// String renders the state, one object a line, in the order of kinds and keys.
func (s State) String() string {
	c := State{slices.Clone(s.Links), slices.Clone(s.Addrs), slices.Clone(s.FDB), slices.Clone(s.Neighs),
		slices.Clone(s.Routes)}
	c.Sort()
	var b strings.Builder
	render(&b, c.Links)
	render(&b, c.Addrs)
	render(&b, c.FDB)
	render(&b, c.Neighs)
	render(&b, c.Routes)
	return b.String()
}

func render[T Object](b *strings.Builder, objects []T) {
	for _, o := range objects {
		fmt.Fprintf(b, "%s %s\n", o.Kind(), o)
	}
}

func (l Link) compare(o Link) int { return cmp.Compare(l.Name, o.Name) }

func (a Addr) compare(o Addr) int {
	return cmp.Or(cmp.Compare(a.Link, o.Link), comparePrefix(a.Prefix, o.Prefix))
}

// compare orders by MAC, the key of an entry: a unicast MAC has one destination.
func (f FDB) compare(o FDB) int {
	return cmp.Or(cmp.Compare(f.Link, o.Link), bytes.Compare(f.MAC[:], o.MAC[:]))
}

func (n Neigh) compare(o Neigh) int {
	return cmp.Or(cmp.Compare(n.Link, o.Link), n.IP.Compare(o.IP))
}

func (r Route) compare(o Route) int {
	return cmp.Or(comparePrefix(r.Dst, o.Dst), cmp.Compare(r.Metric, o.Metric))
}

func comparePrefix(a, b netip.Prefix) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
}
