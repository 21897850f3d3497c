// Package ipip carries packets to the peers inside packets of the underlay, IPv4 in IPv4 (RFC 2003), by one device of the kernel and a route
// for each peer.
package ipip

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"flanneld/backend/ipip/options"
	"flanneld/backend/reach"
	"flanneld/backend/skip"
	"flanneld/ip"
	"flanneld/subnet"
)

// Type is the name of the backend in the network configuration and in records.
const Type = options.Type

// Device is the name of the device. It must not be tunl0, which the kernel makes in each namespace for packets that no other device takes.
const Device = "flannel.ipip"

const (
	overhead = 20 // bytes of the outer header
	minMTU   = 68 // that every IPv4 link has (RFC 791)
)

// Backend satisfies the interface of package backend.
type Backend struct {
	*ip.Managed
	*skip.Filter

	host    ip.Host
	reach   *reach.Reach
	desired *desired // of the last pass
}

// New reads the options.
func New(c subnet.Config, h ip.Host) (*Backend, error) {
	o, err := options.Parse(c)
	if err != nil {
		return nil, err
	}
	own := ip.Scope{Links: []string{Device}, Networks: c.Networks()}
	return &Backend{
		Managed: ip.NewManaged(h, own), Filter: skip.New(h, c.Networks()), host: h, reach: reach.New(o.DirectRouting, c.Networks()),
	}, nil
}

// Attrs implements backend.Backend.
func (b *Backend) Attrs(prefix netip.Prefix) subnet.Attrs {
	return subnet.Attrs{PublicIP: b.host.Underlay().PublicAddr(prefix), BackendType: Type}
}

// MTU implements backend.Backend.
func (b *Backend) MTU() int { return b.host.Underlay().MTU - overhead }

// Valid implements backend.Backend.
func (b *Backend) Valid(l subnet.Lease) error {
	if !l.PublicIP.Is4() || !l.Subnet.Addr().Is4() {
		return errors.New("its public IP or its subnet is not of IPv4")
	}
	return nil
}

// Set implements backend.Backend.
func (b *Backend) Set(self []subnet.Lease, peers subnet.Peers) error {
	u := b.host.Underlay()
	if b.MTU() < minMTU {
		return fmt.Errorf("the MTU of %s, %d, is too small for a tunnel: it must be %d at least", u.Link, u.MTU, minMTU+overhead)
	}
	own := base(u, self)
	for _, l := range self {
		own = append(own, b.host.OwnRoutes(l.Subnet)...)
	}
	direct, moved := b.reach.Start(b.host.Kernel, u)
	moved = b.Begin(self, peers) || moved
	if d := b.desired; moved || d == nil || d.link != u.Link || !slices.Equal(d.own, own) {
		skip := func(p netip.Prefix) bool { return b.Why(p) != "" }
		b.desired = &desired{link: u.Link, own: own, direct: direct, skip: skip, state: b.host.Desired(own...)}
	}
	err := b.Reconcile(b.desired.follow(peers))
	b.End(nil, b.Conflicts())
	return err
}

// base returns what does not depend on the peers.
func base(u ip.Underlay, self []subnet.Lease) []ip.Object {
	var out []ip.Object
	for _, l := range self {
		first := l.Subnet.Addr()
		out = append(out,
			ip.Link{Name: Device, Type: "ipip", MTU: u.MTU - overhead, Up: true, IPIP: ip.IPIP{Local: u.Addr(l.Subnet)}},
			ip.Addr{Link: Device, Prefix: netip.PrefixFrom(first, first.BitLen())})
	}
	return out
}

// desired is the state that carries packets to the peers. It follows them for as long as all but peers and state stay the same.
type desired struct {
	link   string // of the underlay
	own    []ip.Object
	direct func(netip.Addr) bool   // whether an address is on the link
	skip   func(netip.Prefix) bool // whether no route may lead to a subnet
	peers  subnet.Peers
	state  *ip.Desired // of own and peers
}

func (d *desired) follow(peers subnet.Peers) ip.Snapshot {
	skip.Routes(d.state, d.peers, peers, d.skip, d.route)
	d.peers = peers
	return d.state.Snapshot()
}

// route is what leads to a peer. In the tunnel its host is the next hop, which is the address that the kernel sends the outer packet to.
func (d *desired) route(l *subnet.Lease) ip.Route {
	if d.direct(l.PublicIP) {
		return ip.Route{Dst: l.Subnet, Via: l.PublicIP, Link: d.link, Protocol: ip.Protocol}
	}
	return ip.Route{Dst: l.Subnet, Via: l.PublicIP, Link: Device, Onlink: true, Protocol: ip.Protocol}
}

// Observe implements backend.Backend.
func (b *Backend) Observe(ev ip.Event) bool {
	moved, drifted := b.reach.Observe(ev), b.Managed.Observe(ev)
	return moved || drifted
}

// MACs implements backend.Backend.
func (b *Backend) MACs() map[string]ip.MAC { return nil }

// Run implements backend.Backend: the datapath is the kernel's.
func (b *Backend) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}
