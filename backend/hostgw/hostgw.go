// Package hostgw carries packets to the peers by plain routes via their addresses: no device and no tunnel, all
// hosts on one link.
package hostgw

import (
	"errors"
	"fmt"
	"net/netip"

	"flanneld/backend"
	"flanneld/backend/reach"
	"flanneld/ip"
	"flanneld/subnet"
)

// Type is the name of the backend in the network configuration and in records.
const Type = "host-gw"

// Backend is a backend.Planner.
type Backend struct {
	host  ip.Host
	owns  ip.Scope
	fold  *backend.Fold
	reach *reach.Reach
}

// New returns the backend. It refuses a public address that is not the interface's own: peers use it as their next hop.
func New(c subnet.Config, h ip.Host) (*Backend, error) {
	u := h.Underlay()
	for _, network := range c.Networks() {
		if own, public := u.Addr(network), u.PublicAddr(network); own != public {
			return nil, fmt.Errorf("backend host-gw: the public IP %s is not %s, the address of %s: peers route by it, so "+
				"remove -public-ip", public, own, u.Link)
		}
	}
	return &Backend{
		host: h, owns: ip.Scope{Networks: c.Networks(), BootGateways: true}, fold: backend.NewFold(h),
		reach: reach.New(true, c.Networks()),
	}, nil
}

// Attrs implements backend.Planner.
func (b *Backend) Attrs(prefix netip.Prefix) subnet.Attrs {
	return subnet.Attrs{PublicIP: b.host.Underlay().PublicAddr(prefix), BackendType: Type}
}

// MTU implements backend.Planner.
func (b *Backend) MTU() int { return b.host.Underlay().MTU }

// Valid implements backend.Planner.
func (b *Backend) Valid(l subnet.Lease) error {
	if l.PublicIP.BitLen() != l.Subnet.Addr().BitLen() {
		return errors.New("its public IP is not of the subnet's family")
	}
	return nil
}

// Owns implements backend.Planner.
func (b *Backend) Owns() ip.Scope { return b.owns }

// Reach implements backend.Reacher: peers are sent to that are on the underlay link.
func (b *Backend) Reach() (reaches func(netip.Addr) bool, during any) {
	return b.reach.Start(b.host.Kernel, b.host.Underlay())
}

// Observe implements backend.Observer. Nothing changes with what peers are on the link unless they have other ways.
func (b *Backend) Observe(ev ip.Event) bool {
	b.reach.Observe(ev)
	return false
}

// Plan implements backend.Planner.
func (b *Backend) Plan(self []subnet.Lease, peers subnet.Peers) (ip.Snapshot, error) {
	link := b.host.Underlay().Link
	b.fold.Start(self, link)
	return b.fold.Follow(peers, func(l *subnet.Lease) []ip.Object {
		return []ip.Object{backend.DirectRoute(l, link)}
	}), nil
}
