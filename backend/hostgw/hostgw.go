// Package hostgw carries packets to the peers by plain routes via their addresses: no device and no tunnel, all
// hosts on one link.
package hostgw

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"flanneld/ip"
	"flanneld/subnet"
)

// Type is the name of the backend in the network configuration and in records.
const Type = "host-gw"

// Backend satisfies the interface of package backend.
type Backend struct {
	host       ip.Host
	own        ip.Scope // of this backend
	scope      ip.Scope // own, and until the first clean pass the leftovers of earlier runs
	reconciler *ip.Reconciler
	desired    *desired // of the last pass
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
	return &Backend{host: h, own: own, scope: own.With(h.Leftovers), reconciler: ip.NewReconciler(h.Kernel, h.Log)}, nil
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
	if link := b.host.Underlay().Link; b.desired == nil || b.desired.link != link || !slices.Equal(b.desired.own, own) {
		b.desired = &desired{link: link, own: own, state: b.host.Desired(own...)}
	}
	_, err := b.reconciler.Reconcile(b.scope, b.desired.follow(peers))
	if err == nil {
		b.scope = b.own
	}
	return err
}

// desired is the state that carries packets to the peers. It follows them for as long as link and own stay the same.
type desired struct {
	link  string      // of the underlay
	own   []ip.Object // of this host
	peers subnet.Peers
	state *ip.Desired // of own and peers
}

func (d *desired) follow(peers subnet.Peers) ip.Snapshot {
	for old, now := range subnet.PeerChanges(d.peers, peers) {
		if old != nil {
			d.state.Delete(d.route(old))
		}
		if now != nil {
			d.state.Put(d.route(now))
		}
	}
	d.peers = peers
	return d.state.Snapshot()
}

func (d *desired) route(l *subnet.Lease) ip.Route {
	return ip.Route{Dst: l.Subnet, Via: l.PublicIP, Link: d.link, Protocol: ip.Protocol}
}

// Observe implements backend.Backend.
func (b *Backend) Observe(ev ip.Event) bool { return b.reconciler.Observe(ev) }

// Drift implements backend.Backend.
func (b *Backend) Drift() [ip.Kinds]int { return b.reconciler.Drift() }

// MACs implements backend.Backend.
func (b *Backend) MACs() map[string]ip.MAC { return nil }

// Scope implements backend.Backend.
func (b *Backend) Scope() ip.Scope { return b.scope }

// Run implements backend.Backend: the datapath is the kernel's.
func (b *Backend) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}
