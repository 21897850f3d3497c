// Package alloc is the backend that leases a subnet and leaves the data plane to others. It only removes what an
// earlier run with another backend has left in the kernel.
package alloc

import (
	"net/netip"

	"flanneld/backend"
	"flanneld/ip"
	"flanneld/subnet"
)

// Type is the name of the backend in the network configuration and in records.
const Type = "alloc"

// Backend is a backend.Planner.
type Backend struct {
	host ip.Host
	owns ip.Scope // nothing, or the networks that the host's own routes are in
	fold *backend.Fold
}

// New returns the backend.
func New(c subnet.Config, h ip.Host) (*Backend, error) {
	b := &Backend{host: h, fold: backend.NewFold(h)}
	if h.Blackhole {
		b.owns.Networks = c.Networks()
	}
	return b, nil
}

// Attrs implements backend.Planner.
func (b *Backend) Attrs(prefix netip.Prefix) subnet.Attrs {
	return subnet.Attrs{PublicIP: b.host.Underlay().PublicAddr(prefix), BackendType: Type}
}

// MTU implements backend.Planner.
func (b *Backend) MTU() int { return b.host.Underlay().MTU }

// Valid implements backend.Planner.
func (b *Backend) Valid(subnet.Lease) error { return nil }

// Owns implements backend.Planner.
func (b *Backend) Owns() ip.Scope { return b.owns }

// Routes implements backend.Router.
func (b *Backend) Routes() backend.Routes { return backend.None }

// Plan implements backend.Planner.
func (b *Backend) Plan(self []subnet.Lease, _ subnet.Peers) (ip.Snapshot, error) {
	b.fold.Start(self, nil)
	return b.fold.Snapshot(), nil
}
