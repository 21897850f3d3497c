// Package hostgw carries packets to the peers by plain routes via their addresses: no device and no tunnel, all
// hosts on one link.
package hostgw

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"flanneld/backend/skip"
	"flanneld/ip"
	"flanneld/subnet"
)

// Type is the name of the backend in the network configuration and in records.
const Type = "host-gw"

// Backend satisfies the interface of package backend.
type Backend struct {
	*ip.Managed
	*skip.Filter

	host    ip.Host
	desired *desired // of the last pass
}

// New returns the backend. It refuses a public address that is not the interface's own: peers use it as their next hop.
func New(c subnet.Config, h ip.Host) (*Backend, error) {
	u := h.Underlay()
	for _, network := range c.Networks() {
		if own, public := u.Addr(network), u.PublicAddr(network); own != public {
			return nil, fmt.Errorf("backend host-gw: the public IP %s is not %s, the address of %s: peers route by it, so remove -public-ip", public, own, u.Link)
		}
	}
	own := ip.Scope{Networks: c.Networks(), BootGateways: true}
	return &Backend{Managed: ip.NewManaged(h, own), Filter: skip.New(h, c.Networks()), host: h}, nil
}

// Attrs implements backend.Backend.
func (b *Backend) Attrs(prefix netip.Prefix) subnet.Attrs {
	return subnet.Attrs{PublicIP: b.host.Underlay().PublicAddr(prefix), BackendType: Type}
}

// MTU implements backend.Backend.
func (b *Backend) MTU() int { return b.host.Underlay().MTU }

// Valid implements backend.Backend.
func (b *Backend) Valid(l subnet.Lease) error {
	if l.PublicIP.BitLen() != l.Subnet.Addr().BitLen() {
		return errors.New("its public IP is not of the subnet's family")
	}
	return nil
}

// Set implements backend.Backend.
func (b *Backend) Set(self []subnet.Lease, peers subnet.Peers) error {
	var own []ip.Object
	for _, l := range self {
		own = append(own, b.host.OwnRoutes(l.Subnet)...)
	}
	changed := b.Begin(self, peers)
	if link := b.host.Underlay().Link; changed || b.desired == nil || b.desired.link != link || !slices.Equal(b.desired.own, own) {
		skip := func(p netip.Prefix) bool { return b.Why(p) != "" }
		b.desired = &desired{link: link, own: own, skip: skip, state: b.host.Desired(own...)}
	}
	err := b.Reconcile(b.desired.follow(peers))
	b.End(nil, b.Conflicts())
	return err
}

// desired is the state that carries packets to the peers. It follows them for as long as link and own stay the same.
type desired struct {
	link  string                  // of the underlay
	own   []ip.Object             // of this host
	skip  func(netip.Prefix) bool // whether no route may lead to a subnet; the answer stays the same
	peers subnet.Peers
	state *ip.Desired // of own and peers
}

func (d *desired) follow(peers subnet.Peers) ip.Snapshot {
	skip.Routes(d.state, d.peers, peers, d.skip, d.route)
	d.peers = peers
	return d.state.Snapshot()
}

func (d *desired) route(l *subnet.Lease) ip.Route {
	return ip.Route{Dst: l.Subnet, Via: l.PublicIP, Link: d.link, Protocol: ip.Protocol}
}

// MACs implements backend.Backend.
func (b *Backend) MACs() map[string]ip.MAC { return nil }

// Run implements backend.Backend: the datapath is the kernel's.
func (b *Backend) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}
