// Package ipip carries packets to the peers inside packets of the underlay, IPv4 in IPv4 (RFC 2003), by one device of
// the kernel and a route for each peer.
package ipip

import (
	"errors"
	"fmt"
	"net/netip"

	"flanneld/backend"
	"flanneld/backend/ipip/options"
	"flanneld/backend/reach"
	"flanneld/ip"
	"flanneld/subnet"
)

// Type is the name of the backend in the network configuration and in records.
const Type = options.Type

// Device is the name of the device. It must not be tunl0, which the kernel makes in each namespace for packets that no
// other device takes.
const Device = "flannel.ipip"

const (
	overhead = 20 // bytes of the outer header
	minMTU   = 68 // that every IPv4 link has (RFC 791)
)

// Backend is a backend.Planner.
type Backend struct {
	host  ip.Host
	owns  ip.Scope
	reach *reach.Reach
	fold  *backend.Fold
}

// Devices returns the names of the devices that a network needs.
func Devices(subnet.Config) []string { return []string{Device} }

// New reads the options.
func New(c subnet.Config, h ip.Host) (*Backend, error) {
	o, err := options.Parse(c)
	if err != nil {
		return nil, err
	}
	return &Backend{
		host: h, owns: ip.Scope{Links: []string{Device}, Networks: c.Networks(), BootGateways: o.DirectRouting},
		reach: reach.New(o.DirectRouting, c.Networks()), fold: backend.NewFold(h),
	}, nil
}

// Attrs implements backend.Planner.
func (b *Backend) Attrs(prefix netip.Prefix) subnet.Attrs {
	return subnet.Attrs{PublicIP: b.host.Underlay().PublicAddr(prefix), BackendType: Type}
}

// MTU implements backend.Planner.
func (b *Backend) MTU() int { return b.host.Underlay().MTU - overhead }

// Valid implements backend.Planner.
func (b *Backend) Valid(l subnet.Lease) error {
	if !l.PublicIP.Is4() || !l.Subnet.Addr().Is4() {
		return errors.New("its public IP or its subnet is not of IPv4")
	}
	return nil
}

// Owns implements backend.Planner.
func (b *Backend) Owns() ip.Scope { return b.owns }

// Observe implements backend.Observer.
func (b *Backend) Observe(ev ip.Event) bool { return b.reach.Observe(ev) }

// Plan implements backend.Planner.
func (b *Backend) Plan(self []subnet.Lease, peers subnet.Peers) (ip.Snapshot, error) {
	u := b.host.Underlay()
	if b.MTU() < minMTU {
		return ip.Snapshot{}, fmt.Errorf("the MTU of %s, %d, is too small for a tunnel: it must be %d at least", u.Link,
			u.MTU, minMTU+overhead)
	}
	direct, during := b.reach.Start(b.host.Kernel, u)
	b.fold.Start(self, during, device(u, self)...)
	return b.fold.Follow(peers, func(l *subnet.Lease) []ip.Object {
		if direct(l.PublicIP) {
			return []ip.Object{backend.DirectRoute(l, u.Link)}
		}
		// The next hop is the peer's host: the kernel sends the outer packet to its address.
		return []ip.Object{ip.Route{Dst: l.Subnet, Via: l.PublicIP, Link: Device, Onlink: true, Protocol: ip.Protocol}}
	}), nil
}

// device returns the device of this host, with an address.
func device(u ip.Underlay, self []subnet.Lease) []ip.Object {
	var out []ip.Object
	for _, l := range self {
		out = append(out,
			ip.Link{Name: Device, Type: "ipip", MTU: u.MTU - overhead, Up: true, Tunnel: ip.Tunnel{Local: u.Addr(l.Subnet)}},
			backend.FirstAddr(Device, l.Subnet))
	}
	return out
}
