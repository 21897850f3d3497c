package udp

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync/atomic"

	"flanneld/backend"
	"flanneld/backend/skip"
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
	return subnet.Attrs{PublicIP: b.host.Underlay().PublicAddr(prefix), BackendType: Type}
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

// Carry implements backend.Datapath: the table is in force since Open.
func (b *Backend) Carry([]subnet.Lease, subnet.Peers) error { return nil }

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
	b.datapath.run(ctx)
	return nil
}

// Counters returns what the datapath has counted since the start, by name.
func (b *Backend) Counters() map[string]uint64 { return b.datapath.totals() }

// Used returns the hosts that packets were sent to since it was called last.
func (b *Backend) Used() map[netip.Addr]bool {
	out, t := map[netip.Addr]bool{}, b.datapath.table.Load()
	for f := range t.hosts {
		for p := range t.hosts[f].all() {
			out[p.addr] = p.used.Swap(false) || out[p.addr]
		}
	}
	return out
}
