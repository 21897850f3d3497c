// Package alloc is the backend that leases a subnet and leaves the data plane to others. It only removes what an
// earlier run with another backend has left in the kernel.
package alloc

import (
	"context"
	"net/netip"

	"flanneld/ip"
	"flanneld/subnet"
)

// Type is the name of the backend in the network configuration and in records.
const Type = "alloc"

// Backend satisfies the interface of package backend.
type Backend struct {
	*ip.Managed
	host ip.Host
}

// New returns the backend.
func New(c subnet.Config, h ip.Host) *Backend {
	var own ip.Scope // nothing, or the networks that the host's own routes are in
	if h.Blackhole {
		own.Networks = c.Networks()
	}
	return &Backend{ip.NewManaged(h, own), h}
}

// Attrs implements backend.Backend.
func (b *Backend) Attrs(prefix netip.Prefix) subnet.Attrs {
	return subnet.Attrs{PublicIP: b.host.Underlay().PublicAddr(prefix), BackendType: Type}
}

// MTU implements backend.Backend.
func (b *Backend) MTU() int { return b.host.Underlay().MTU }

// Valid implements backend.Backend.
func (b *Backend) Valid(subnet.Lease) error { return nil }

// Set implements backend.Backend.
func (b *Backend) Set(self []subnet.Lease, _ subnet.Peers) error {
	want := b.host.Desired()
	for _, l := range self {
		want.Put(b.host.OwnRoutes(l.Subnet)...)
	}
	return b.Reconcile(want.Snapshot())
}

// MACs implements backend.Backend.
func (b *Backend) MACs() map[string]ip.MAC { return nil }

// Run implements backend.Backend.
func (b *Backend) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}
