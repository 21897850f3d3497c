package udp

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"flanneld/backend"
	"flanneld/backend/skip"
	"flanneld/backend/udp/offload"
	"flanneld/backend/udp/options"
	"flanneld/ip"
	"flanneld/subnet"
)

// Type is the name of the backend in the network configuration; records name none.
const Type = options.Type

// Backend is a backend.Planner with a datapath in this process.
type Backend struct {
	host     ip.Host
	owns     ip.Scope
	fold     *backend.Fold
	config   atomic.Pointer[Options]
	networks []netip.Prefix
	device   string // name
	datapath *datapath
	kernel   *kernelPath
	tables   *tables
	last     carried // of the last plan
}

// carried is what a plan has found out about this host.
type carried struct {
	self    []subnet.Lease          // those whose family is carried
	small   string                  // why IPv6 is not; empty: it is
	skipped map[netip.Prefix]string // peers, and why
}

// New returns the backend. It opens nothing before Open.
func New(c subnet.Config, h ip.Host, k Keeper) (*Backend, error) {
	o, err := ParseOptions(c.Backend)
	if err != nil {
		return nil, err
	}
	device := Devices()[0]
	if len(h.Devices) > 0 {
		device = h.Devices[0]
	}
	b := &Backend{
		host: h, owns: ip.Scope{Links: []string{device}, Networks: c.Networks()}, fold: backend.NewFold(h),
		networks: c.Networks(), device: device, datapath: newDatapath(device, h.Log, k), tables: newTables(c.Networks()),
		kernel: newKernelPath(device, h),
	}
	b.config.Store(&o)
	return b, nil
}

// Adjust implements backend.Adjuster.
func (b *Backend) Adjust(c subnet.Config) error {
	o, err := ParseOptions(c.Backend)
	if err != nil {
		return err
	}
	b.config.Store(&o)
	return nil
}

// Attrs implements backend.Planner.
func (b *Backend) Attrs(prefix netip.Prefix) subnet.Attrs {
	a := subnet.Attrs{PublicIP: b.host.Underlay().PublicAddr(prefix), BackendType: Type}
	if b.config.Load().Kernel && prefix.Addr().Is4() && b.kernel.receives() {
		a.BackendData = inKernel
	}
	return a
}

// MTU implements backend.Planner.
func (b *Backend) MTU() int {
	mtu, _ := b.config.Load().mtu(b.host.Underlay(), b.networks)
	return mtu
}

// Valid implements backend.Planner.
func (b *Backend) Valid(l subnet.Lease) error {
	if l.PublicIP.BitLen() != l.Subnet.Addr().BitLen() {
		return errors.New("its public IP is not of the subnet's family")
	}
	return skip.Outside(b.networks, l)
}

// Owns implements backend.Planner.
func (b *Backend) Owns() ip.Scope { return b.owns }

// Routes implements backend.Router.
func (b *Backend) Routes() backend.Routes { return backend.PerNetwork }

// Plan implements backend.Planner.
func (b *Backend) Plan(self []subnet.Lease, peers subnet.Peers) (ip.Snapshot, error) {
	mtu, small := b.config.Load().mtu(b.host.Underlay(), b.networks)
	b.last = carried{self, small, nil}
	if small != "" {
		b.last.self = slices.DeleteFunc(slices.Clone(self), func(l subnet.Lease) bool { return l.Subnet.Addr().Is6() })
		if len(b.last.self) == 0 && len(self) > 0 {
			return ip.Snapshot{}, errors.New(small)
		}
	}
	b.last.skipped = leftOut(small, peers)
	b.fold.Start(self, nil, desired(b.device, b.networks, b.last.self, mtu)...)
	return b.fold.Snapshot(), nil
}

// Open implements backend.Datapath.
func (b *Backend) Open(self []subnet.Lease, peers subnet.Peers) error {
	u := b.host.Underlay()
	b.datapath.table.Store(b.tables.next(self, u.Addrs, peers))
	o := b.config.Load()
	s := spec{port: o.Port, offload: o.Offload}
	for _, l := range b.last.self {
		s.locals[familyOf(l.Subnet.Addr())] = u.OnLink(u.Receiving(l.Subnet))
	}
	return b.datapath.ensure(s)
}

// Carry implements backend.Datapath. The table is in force since Open; what the kernel can carry it gets now that the
// device has its addresses.
func (b *Backend) Carry(self []subnet.Lease, peers subnet.Peers) error {
	u, t := b.host.Underlay(), b.datapath.table.Load()
	if !b.config.Load().Kernel {
		return b.kernel.carry(kernelWant{against: notAsked})
	}
	w := kernelWant{link: u.Link, spec: offload.Spec{Port: b.config.Load().Port}, peers: kernelPeers(t, peers)}
	for _, l := range self {
		if l.Subnet.Addr().Is4() {
			w.spec.Self, w.spec.Local, w.spec.Own = l.Subnet, u.Receiving(l.Subnet), u.Addr(l.Subnet)
		}
	}
	for _, n := range b.networks {
		if n.Addr().Is4() {
			w.spec.Network = n
		}
	}
	if !w.spec.Self.IsValid() || !w.spec.Local.Is4() || !w.spec.Own.Is4() || !w.spec.Network.IsValid() {
		w.against = "packets to the peers are IPv6, and need a checksum of all that is in them"
	}
	return b.kernel.carry(w)
}

// kernelPeers returns what the kernel is told of the peers.
func kernelPeers(t *table, peers subnet.Peers) offload.Peers {
	out := offload.Peers{Routes: map[netip.Prefix]offload.Route{}, Hosts: map[netip.Addr]netip.Addr{}}
	for l := range peers.All() {
		if l.Subnet.Addr().Is4() && l.PublicIP.Is4() {
			out.Routes[l.Subnet] = offload.Route{Host: l.PublicIP, Kernel: takesFromKernels(&l)}
		}
	}
	for k, p := range t.hosts[ipv4].entries() {
		if p.family == ipv4 {
			out.Hosts[k.addr4()] = p.addr
		}
	}
	return out
}

// Skipped implements backend.Skipper.
func (b *Backend) Skipped() (peers map[netip.Prefix]string, problems []string) {
	if b.last.small != "" {
		problems = []string{b.last.small}
	}
	return b.last.skipped, problems
}

// leftOut says why peers are left out when a family is not carried.
func leftOut(small string, peers subnet.Peers) map[netip.Prefix]string {
	if small == "" {
		return nil
	}
	out := map[netip.Prefix]string{}
	for l := range peers.All() {
		if l.Subnet.Addr().Is6() {
			out[l.Subnet] = "IPv6 is not carried by this host"
		}
	}
	return out
}

// Run implements backend.Datapath.
func (b *Backend) Run(ctx context.Context) error {
	var kernel sync.WaitGroup
	kernel.Go(func() { b.kernel.run(ctx) })
	b.datapath.run(ctx)
	kernel.Wait()
	return nil
}

// Counters returns what the datapath has counted since the start, by name.
func (b *Backend) Counters() map[string]uint64 {
	out := b.datapath.totals()
	b.kernel.counters(out)
	return out
}

// Traffic implements backend.Counting.
func (b *Backend) Traffic() map[netip.Addr]backend.Traffic {
	out, t, kernel := map[netip.Addr]backend.Traffic{}, b.datapath.table.Load(), b.kernel.traffic()
	for f := range t.hosts {
		for p := range t.hosts[f].all() {
			out[p.addr] = backend.Traffic(p.traffic().Add(kernel[p.addr]))
		}
	}
	return out
}

// Path says where packets are carried: in the kernel, or in user space and why.
func (b *Backend) Path() string { return b.kernel.path() }

// Used returns the hosts that packets were sent to since it was called last.
func (b *Backend) Used() map[netip.Addr]bool {
	out, t := map[netip.Addr]bool{}, b.datapath.table.Load()
	for f := range t.hosts {
		for p := range t.hosts[f].all() {
			out[p.addr] = p.used.Swap(false) || out[p.addr]
		}
	}
	b.kernel.used(out)
	return out
}
