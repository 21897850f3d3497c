package doctor

import (
	"net/netip"
	"time"

	"flanneld/api"
	"flanneld/ip"
	"flanneld/probe"
	"flanneld/subnet"
)

// Facts are what the checks look at: from the daemon where it answers, else from its state, the store and the
// kernel. An error in the place of a fact says why it is not known.
type Facts struct {
	Now        time.Time
	SubnetFile string
	Socket     string // path
	StateFile  string

	Status    api.Status
	DaemonErr error // why the daemon did not answer
	State     subnet.State
	StateErr  error
	Others    []subnet.State // of other networks of this host
	Env       subnet.Env
	EnvErr    error

	Store    Store
	Snapshot subnet.Snapshot // of the store
	StoreErr error
	WriteErr error // why the user of the store may not write records

	Kubernetes    api.Kubernetes // where that is the store
	KubernetesErr error          // why it is not known
	Leases        api.Leases     // of the nodes, as the daemon knows them; where the store is Kubernetes
	Pod           *Pod           // nil: not in a pod
	CNI           CNI

	Links    []ip.Interface
	LinksErr error
	Routes   []Route        // of the main table
	Sysctls  map[string]int // by the path below /proc/sys; without those that cannot be read
	Rules    []Rules
	Sums     []Checksums

	Sessions map[netip.Prefix]api.Session  // of the encrypted tunnel, as the daemon knows them, by a peer's subnet
	Hops     map[netip.Prefix]Hop          // where the kernel sends packets to a peer, by its subnet
	Probes   map[netip.Prefix]probe.Result // answers of peers, by subnet
	NoProbes string                        // why no peer was asked
	ProbeErr error
	Pings    map[netip.Addr]bool // whether an address answers an ICMP echo; only those that were asked

	Derived
}

// Store is how the store is reached, without credentials.
type Store struct {
	Endpoints []string
	Prefix    string
	From      string // who says so
	Clocks    []Clock
}

// Clock is how far the clock of a server of the store is behind that of this host.
type Clock struct {
	Endpoint string
	Behind   time.Duration
}

// Route is a route of the main table.
type Route struct {
	Dst      netip.Prefix
	Gateway  string // empty: none
	Dev      string
	Protocol string // a name or a number, as iproute2 prints it
}

// Hop is where the kernel would send a packet.
type Hop struct {
	ip.Hop
	Err error
}

func (h Hop) String() string {
	if !h.Via.IsValid() {
		return h.Link
	}
	return h.Link + " via " + h.Via.String()
}

// Rules are rules of a packet filter as a program prints them.
type Rules struct {
	Program string // such as iptables-nft
	Table   string // filter or raw
	Text    string
}

// Checksums counts packets that have arrived.
type Checksums struct {
	Protocol string // Udp, Tcp
	In, Bad  int
}

// ownDevice reports whether a device is that of the network.
func (f *Facts) ownDevice(name string) bool {
	for _, d := range f.Devices {
		if d == name {
			return true
		}
	}
	return false
}
