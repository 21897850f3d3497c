package backend

import (
	"context"
	"net/netip"

	"flanneld/ip"
	"flanneld/subnet"
)

// Backend makes the kernel (or its own datapath) carry packets to the peers. Set is called by one goroutine, the others by
// any.
type Backend interface {
	// Attrs returns what this host publishes with the lease of a subnet. The answer is stable over restarts of the
	// daemon and changes only with the underlay.
	Attrs(prefix netip.Prefix) subnet.Attrs

	// MTU returns the largest packet, in bytes, that pods may send.
	MTU() int

	// Valid says why a lease cannot be that of a peer of this backend; nil if it can. The answer is always the same.
	Valid(l subnet.Lease) error

	// Set makes the data plane that of these leases: self are this host's, peers all others that are valid. It is
	// idempotent and always given the whole set. What can be done is done also when an error is returned.
	Set(self []subnet.Lease, peers subnet.Peers) error

	// Observe takes in a change in the kernel and reports whether Set must be called again. An empty event says that
	// anything may have changed.
	Observe(ev ip.Event) bool

	// Drift returns how many objects were found changed by others since the start, by kind.
	Drift() [ip.Kinds]int

	// MACs returns the hardware addresses of the backend's devices, to be kept for the next run.
	MACs() map[string]ip.MAC

	// Scope returns what the backend may leave in the kernel, for the next run to clean up.
	Scope() ip.Scope

	// Run carries the datapath, if it is in user space, until ctx ends; it returns nil then.
	Run(ctx context.Context) error
}
