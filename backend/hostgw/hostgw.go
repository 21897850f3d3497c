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
	return &Backend{h, own, own.With(h.Leftovers), ip.NewReconciler(h.Kernel, h.Log)}, nil
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
	want := desired(b.host.Underlay().Link, slices.Collect(peers.All()))
	for _, l := range self {
		want.Routes = append(want.Routes, b.host.OwnRoutes(l.Subnet)...)
	}
	_, err := b.reconciler.Reconcile(b.scope, want)
	if err == nil {
		b.scope = b.own
	}
	return err
}

func desired(link string, peers []subnet.Lease) ip.State {
	s := ip.State{Routes: make([]ip.Route, len(peers))}
	for i, p := range peers {
		s.Routes[i] = ip.Route{Dst: p.Subnet, Via: p.PublicIP, Link: link, Protocol: ip.Protocol}
	}
	return s
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
