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
	host       ip.Host
	reconciler *ip.Reconciler
	clean      bool // the leftovers are gone
}

// New returns the backend.
func New(h ip.Host) *Backend {
	return &Backend{host: h, reconciler: ip.NewReconciler(h.Kernel, h.Log)}
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
func (b *Backend) Set(_, _ []subnet.Lease) error {
	if b.clean {
		return nil
	}
	_, err := b.reconciler.Reconcile(b.host.Leftovers, ip.State{})
	b.clean = err == nil
	return err
}

// Observe implements backend.Backend: only what was left over is ours, and once it is gone nothing is.
func (b *Backend) Observe(ip.Event) bool { return false }

// Drift implements backend.Backend.
func (b *Backend) Drift() [ip.Kinds]int { return b.reconciler.Drift() }

// MACs implements backend.Backend.
func (b *Backend) MACs() map[string]ip.MAC { return nil }

// Scope implements backend.Backend: nothing is left behind.
func (b *Backend) Scope() ip.Scope { return ip.Scope{} }

// Run implements backend.Backend.
func (b *Backend) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}
