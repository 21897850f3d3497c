package udp

import (
	"context"
	"errors"
	"net/netip"
	"slices"

	"flanneld/backend/skip"
	"flanneld/backend/udp/options"
	"flanneld/ip"
	"flanneld/subnet"
)

// Type is the name of the backend in the network configuration; records name none.
const Type = options.Type

// Backend satisfies the interface of package backend.
type Backend struct {
	*ip.Managed
	*skip.Filter

	host     ip.Host
	options  Options
	networks []netip.Prefix
	device   string // name
	datapath *datapath
	tables   *tables
}

// New returns the backend. It opens nothing before Set.
func New(c subnet.Config, h ip.Host, k Keeper) (*Backend, error) {
	o, err := ParseOptions(c.Backend)
	if err != nil {
		return nil, err
	}
	device := Devices()[0]
	if len(h.Devices) > 0 {
		device = h.Devices[0]
	}
	own := ip.Scope{Links: []string{device}, Networks: c.Networks()}
	return &Backend{
		Managed: ip.NewManaged(h, own), Filter: skip.New(h, c.Networks()), host: h, options: o, networks: c.Networks(), device: device,
		datapath: newDatapath(device, h.Log, k), tables: newTables(c.Networks()),
	}, nil
}

// Attrs implements backend.Backend.
func (b *Backend) Attrs(prefix netip.Prefix) subnet.Attrs {
	return subnet.Attrs{PublicIP: b.host.Underlay().PublicAddr(prefix), BackendType: Type}
}

// MTU implements backend.Backend.
func (b *Backend) MTU() int {
	mtu, _ := b.options.mtu(b.host.Underlay(), b.networks)
	return mtu
}

// Valid implements backend.Backend.
func (b *Backend) Valid(l subnet.Lease) error {
	if l.PublicIP.BitLen() != l.Subnet.Addr().BitLen() {
		return errors.New("its public IP is not of the subnet's family")
	}
	return b.Outside(l)
}

// Set implements backend.Backend.
func (b *Backend) Set(self []subnet.Lease, peers subnet.Peers) error {
	u := b.host.Underlay()
	mtu, small := b.options.mtu(u, b.networks)
	carried := self
	if small != "" {
		carried = slices.DeleteFunc(slices.Clone(self), func(l subnet.Lease) bool { return l.Subnet.Addr().Is6() })
		if len(carried) == 0 && len(self) > 0 {
			return errors.New(small)
		}
	}
	b.datapath.table.Store(b.tables.next(self, u.Addrs, peers))
	s := spec{port: b.options.Port, offload: b.options.Offload}
	for _, l := range carried {
		s.locals[familyOf(l.Subnet.Addr())] = u.OnLink(u.Receiving(l.Subnet))
	}
	opened := b.datapath.ensure(s)
	if errors.Is(opened, ip.ErrOtherDevice) {
		// Whatever has the name goes; a second try makes our own.
		if err := b.Clear(); err != nil {
			return errors.Join(opened, err)
		}
		opened = b.datapath.ensure(s)
	}
	b.Begin(self, peers)
	networks, problems := b.Routed()
	if small != "" {
		problems = append(problems, small)
	}
	want := b.host.Desired(desired(b.device, networks, carried, mtu)...)
	for _, l := range self {
		want.Put(b.host.OwnRoutes(l.Subnet)...)
	}
	err := b.Reconcile(want.Snapshot())
	b.End(b.leftOut(small, peers), b.Conflicts(), problems...)
	return errors.Join(opened, err)
}

// leftOut says why peers are left out when a family is not carried.
func (b *Backend) leftOut(small string, peers subnet.Peers) map[netip.Prefix]string {
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

// MACs implements backend.Backend.
func (b *Backend) MACs() map[string]ip.MAC { return nil }

// Run implements backend.Backend.
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
