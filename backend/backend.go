package backend

import (
	"context"
	"net/netip"

	"flanneld/subnet"
)

// Backend makes the kernel (or its own datapath) carry packets to the peers. Its methods other than Run are called
// by one goroutine.
type Backend interface {
	// Attrs returns what this host publishes with the lease of a subnet. The answer is stable over restarts of the
	// daemon and changes only with the underlay.
	Attrs(prefix netip.Prefix) subnet.Attrs

	// MTU returns the largest packet, in bytes, that pods may send.
	MTU() int

	// Set makes the data plane that of these leases: self are this host's, peers all others that are valid. It is
	// idempotent and always given the whole set. What can be done is done also when an error is returned.
	Set(self, peers []subnet.Lease) error

	// Run carries the datapath, if it is in user space, until ctx ends; it returns nil then.
	Run(ctx context.Context) error
}
