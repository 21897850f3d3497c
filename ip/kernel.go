package ip

import (
	"context"
	"fmt"
	"net/netip"
)

// Kernel is the seam between the daemon and the kernel of one network namespace: reads as well as writes.
// Its methods may be called from several goroutines; Apply is not called twice at a time.
type Kernel interface {
	// Dump returns what stands in the kernel of what the scope calls ours. A dump that the kernel calls
	// interrupted (NLM_F_DUMP_INTR) is repeated inside; an error means that nothing is known.
	Dump(Scope) (State, error)

	// Apply carries out the operations in their order, neighbours, FDB and routes as one batch. It is idempotent: putting
	// what stands and deleting what is gone succeed. An operation that fails holds up no other, but those on a device that
	// could not be made are left out; the error is an OpErrors. Any other error means that the outcome is unknown.
	Apply([]Op) error

	// Watch calls f for every change of a link, address, neighbour, FDB entry or route of the namespace, ours
	// or not, until ctx ends, and then returns nil. It calls f with an empty Event first, as soon as
	// changes are seen, and whenever some were lost. f must not block for long.
	Watch(ctx context.Context, f func(Event)) error

	// Interfaces returns all links of the namespace with their addresses, sorted by index.
	Interfaces() ([]Interface, error)

	// RouteTo asks the kernel which way it would send a packet to dst (RTM_GETROUTE without dump).
	RouteTo(dst netip.Addr) (Hop, error)

	// DefaultRoute returns the default route with the lowest metric of the main table of IPv4 or IPv6; ok is false if
	// there is none.
	DefaultRoute(is4 bool) (hop Hop, ok bool, err error)
}

// Scope says what of the kernel's state is ours, and so may be deleted. Everything else is invisible to Dump.
type Scope struct {
	// Links are the names of devices that are ours whole, whatever their type: the device, the addresses on it (but
	// link-local ones), its permanent FDB and neighbour entries.
	Links []string
	// Networks are the ranges in which routes are ours: those of the main table with our Protocol, and those of any
	// protocol but kernel (2) and ra (9) that leave by one of Links; in any case only with the default metric, or with
	// BlackholeMetric and our Protocol.
	Networks []netip.Prefix
	// BootGateways takes over routes inside Networks via a next hop under the protocol boot (3), as flannel's direct
	// routes are left.
	BootGateways bool
}

// Op is one change: put the object (create it, or replace the one with its key in place) or delete it. With Create a
// route is put only where none with its key stands, whosever it is: else the operation fails with a Conflict.
type Op struct {
	Delete bool
	Create bool
	Object Object
}

func (o Op) String() string {
	verb := "put"
	if o.Delete {
		verb = "delete"
	}
	return fmt.Sprintf("%s %s %s", verb, o.Object.Kind(), o.Object)
}

// Event tells that an object has come, changed or gone; a neighbour or FDB entry that is not permanent counts as gone.
// An empty event says that anything may have changed. Routes of other metrics than ours are told too, for the way to
// peers may depend on them.
type Event struct {
	Deleted bool
	Object  Object
	By      string // who did it, as far as that is known; empty: we, or the kernel, or not known
}

// Interface is a link as it can serve for the underlay.
type Interface struct {
	Name     string
	Index    int
	MTU      int
	MAC      MAC
	Up       bool // administratively up
	Running  bool // has a carrier
	Loopback bool
	// NoNeighbours says that there are none to ask for: the link is point to point, or without ARP, as that of a VPN is.
	// Packets to a host on it reach that host only if its own address is their destination.
	NoNeighbours bool
	// Addrs are in the kernel's order, link-local ones among them, without IPv6 ones that are tentative or temporary.
	// Deprecated are those IPv6 addresses that still work and are about to go.
	Addrs, Deprecated []netip.Prefix
}

// Hop is where the kernel sends a packet: by Link, through Via (the zero value: directly), from Src.
type Hop struct {
	Link string
	Via  netip.Addr
	Src  netip.Addr
}
