package backend

import (
	"context"
	"net/netip"
	"time"

	"flanneld/ip"
	"flanneld/subnet"
)

// Planner computes what the kernel must hold so that packets reach the peers. It changes nothing itself, neither in the
// kernel nor elsewhere. Plan is called by one goroutine, the other methods by any. A backend is a Planner and those of
// the interfaces below that it needs.
type Planner interface {
	// Attrs returns what this host publishes with the lease of a subnet. The answer is stable over restarts of the
	// daemon and changes only with the underlay.
	Attrs(prefix netip.Prefix) subnet.Attrs

	// MTU returns the largest packet, in bytes, that pods may send.
	MTU() int

	// Valid says why a lease cannot be that of a peer of this backend; nil if it can. The answer is always the same.
	Valid(l subnet.Lease) error

	// Owns returns what belongs to the backend in the kernel, and so may be deleted. The answer is always the same.
	Owns() ip.Scope

	// Plan returns what the kernel must hold: self are this host's leases, peers all others that routes may lead to. It is
	// always given the whole sets; a Fold makes its cost that of the changes. An error says that there is no plan, and the
	// kernel is left as it is.
	Plan(self []subnet.Lease, peers subnet.Peers) (ip.Snapshot, error)
}

// Routes says for what a Planner has routes.
type Routes int

// What routes are for.
const (
	PerPeer    Routes = iota // one for each peer
	PerNetwork               // one for each network of pods; which peer gets a packet is decided by the datapath
	None                     // no routes at all
)

// Router is a Planner whose routes are not one for each peer.
//
// With PerPeer, Plan is not given peers whose subnets this host reaches otherwise. With PerNetwork it is given all
// peers, and the route of a network is left out if an interface of this host is connected to the same network.
type Router interface {
	Routes() Routes
}

// Reacher is a Planner that cannot send to the host of every valid lease. It is asked while there is another planner
// that may.
type Reacher interface {
	// Reach begins a pass. reaches says whether packets to the host at an address arrive. Its answers stay the same for
	// as long as during, which is comparable, does. The goroutine of Plan calls both.
	Reach() (reaches func(netip.Addr) bool, during any)
}

// Establisher is a Planner that carries packets to a peer only once both hosts have exchanged keys. It is asked while
// there is another planner that may.
type Establisher interface {
	// Established begins a pass. ready says whether packets to a peer would be carried at once, or there is no hope that
	// waiting helps; for a peer that is not, an exchange is begun. Its answers stay the same for as long as during, which
	// is comparable, does. The goroutine of Plan calls both.
	Established() (ready func(subnet.Lease) bool, during any)
}

// Observer is a Planner whose plan depends on more of the kernel than the underlay.
type Observer interface {
	// Observe takes in a change in the kernel and reports whether the plan may be another one now. An empty event says
	// that anything may have changed. Any goroutine may call it.
	Observe(ev ip.Event) bool
}

// Skipper is a Planner that leaves out valid peers for reasons of its own.
type Skipper interface {
	// Skipped returns the peers that the last plan leaves out, by subnet, each with the reason, and what else this host
	// does not carry. The goroutine of Plan calls it.
	Skipped() (peers map[netip.Prefix]string, problems []string)
}

// Datapath is a Planner that needs more than the kernel's tables: sockets, a device that this process holds open,
// settings of a device.
//
//	Plan ─▶ Open ─▶ plan put into the kernel ─▶ Carry        in each pass
//
// The goroutine of Plan calls Open and Carry, with the leases that Plan was given. Both are idempotent, and do what can
// be done also when they return an error.
type Datapath interface {
	// Open opens what the objects of the plan depend on. An error that wraps ip.ErrOtherDevice says that a device of
	// another kind has the name: what the backend owns is deleted, and Open is called again.
	Open(self []subnet.Lease, peers subnet.Peers) error

	// Carry makes the datapath carry packets to the peers.
	Carry(self []subnet.Lease, peers subnet.Peers) error

	// Run carries packets until ctx ends; it returns nil then.
	Run(ctx context.Context) error
}

// Ingress is a Planner whose tunnel packets arrive at a UDP port where a firewall can tell those of peers from others.
type Ingress interface {
	// Ingress returns the port, and the VXLAN network identifier; 0: not VXLAN.
	Ingress() (port uint16, vni uint32)
}

// Encrypted is a Planner whose tunnels have sessions.
type Encrypted interface {
	// Sessions returns those of all peers, by subnet.
	Sessions() map[netip.Prefix]Session
}

// Session is what is known of the tunnel to one peer.
type Session struct {
	Handshake      time.Time // of the last one; zero: none since the device was made
	Endpoint       netip.AddrPort
	Received, Sent int64 // bytes
	Silent         bool  // packets are sent to it, and it does not answer handshakes
}

// Counting is a Planner whose datapath counts what it carries for each peer.
type Counting interface {
	// Traffic returns that since the start, by the public address of the peer.
	Traffic() map[netip.Addr]Traffic
}

// Traffic is what pods have sent to those of one peer and received from them: packets, and bytes without the headers of
// the tunnel.
type Traffic struct{ SentPackets, SentBytes, ReceivedPackets, ReceivedBytes uint64 }

// Addressed is a Planner whose devices have hardware addresses that peers know.
type Addressed interface {
	// MACs returns the addresses by device, to be kept for the next run. Nobody may change the map.
	MACs() map[string]ip.MAC
}

// Adjuster is a Planner with a Datapath that takes in other options while it runs. One without it is replaced by one
// that is made of them.
type Adjuster interface {
	// Adjust takes in options of which check.Adjusts says that they may change. Any goroutine may call it; what follows
	// from it is in the next plan.
	Adjust(subnet.Config) error
}

// KeyedOf returns the first of some planners whose hosts have keys; nil: there is none.
func KeyedOf(planners ...Planner) Keyed {
	for _, p := range planners {
		if k, ok := p.(Keyed); ok {
			return k
		}
	}
	return nil
}

// Keyed is a Planner whose hosts have keys.
type Keyed interface {
	// Rotate replaces the key of this host, and has the new one published. It returns the public key.
	Rotate(ctx context.Context, publish func()) (public string, err error)
}
