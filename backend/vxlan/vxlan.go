package vxlan

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"flanneld/backend/reach"
	"flanneld/backend/skip"
	"flanneld/backend/vxlan/options"
	"flanneld/ip"
	"flanneld/subnet"
)

// Type is the name of the backend in the network configuration and in records.
const Type = options.Type

// Backend satisfies the interface of package backend.
type Backend struct {
	*ip.Managed
	*skip.Filter

	host    ip.Host
	options Options
	config  subnet.Config
	macs    map[string]ip.MAC
	desired *desired // of the last pass
	reach   *reach.Reach
}

// New reads the options and finds the hardware addresses of our devices: the one of an earlier run, else that
// of a device which stands there (so that a host swapped in place is reached by peers at once), else one derived
// from the identity.
func New(c subnet.Config, h ip.Host) (*Backend, error) {
	o, err := ParseOptions(c.Backend)
	if err != nil {
		return nil, err
	}
	b := &Backend{
		host: h, options: o, config: c, macs: map[string]ip.MAC{}, Filter: skip.New(h, c.Networks()),
		reach: reach.New(o.DirectRouting, c.Networks()),
	}
	own := ip.Scope{Networks: c.Networks()}
	for _, network := range c.Networks() {
		name := o.device(network).name
		own.Links = append(own.Links, name)
		if b.macs[name], err = b.mac(name); err != nil {
			return nil, err
		}
	}
	b.Managed = ip.NewManaged(h, own)
	return b, nil
}

func (b *Backend) mac(name string) (ip.MAC, error) {
	if m, ok := b.host.MACs[name]; ok {
		return m, nil
	}
	found, err := b.host.Kernel.Dump(ip.Scope{Links: []string{name}})
	if err != nil {
		return ip.MAC{}, fmt.Errorf("look for device %s: %w", name, err)
	}
	for _, l := range found.Links {
		if l.Name == name && l.Type == "vxlan" {
			return l.MAC, nil
		}
	}
	sum := sha256.Sum256([]byte(b.host.Identity + " " + name))
	m := ip.MAC(sum[:])
	m[0] = m[0]&^1 | 2 // unicast, locally administered
	return m, nil
}

// MACs implements backend.Backend.
func (b *Backend) MACs() map[string]ip.MAC { return b.macs }

// Attrs implements backend.Backend.
func (b *Backend) Attrs(prefix netip.Prefix) subnet.Attrs {
	text, err := json.Marshal(data{b.options.VNI, b.macs[b.options.device(prefix).name]})
	if err != nil {
		panic(err) // a number and a text marshaler that never fails
	}
	return subnet.Attrs{PublicIP: b.host.Underlay().PublicAddr(prefix), BackendType: Type, BackendData: string(text)}
}

// MTU implements backend.Backend: the largest packet of every family that is carried.
func (b *Backend) MTU() int {
	u, overhead := b.host.Underlay(), 0
	for _, network := range b.config.Networks() {
		if b.options.tooSmall(u, network) == "" {
			overhead = max(overhead, b.options.device(network).overhead)
		}
	}
	return b.options.underlayMTU(u) - overhead
}

// Valid implements backend.Backend.
func (b *Backend) Valid(l subnet.Lease) error {
	d, err := parseData(l.BackendData)
	if err != nil {
		return err
	}
	return b.options.checkVNI(d)
}

// Set implements backend.Backend.
func (b *Backend) Set(self []subnet.Lease, peers subnet.Peers) error {
	u := b.host.Underlay()
	carried, small := b.options.carried(u, self)
	if len(carried) == 0 && len(small) > 0 {
		return errors.New(small[0])
	}
	own, halves := b.options.base(u, b.macs, carried)
	for _, l := range self {
		own = append(own, b.host.OwnRoutes(l.Subnet)...)
	}
	direct, moved := b.reach.Start(b.host.Kernel, u)
	moved = b.Begin(self, peers) || moved
	if d := b.desired; moved || d == nil || d.link != u.Link || !slices.Equal(d.own, own) {
		b.desired = &desired{
			link: u.Link, own: own, halves: halves, direct: direct, skip: func(p netip.Prefix) bool { return b.Why(p) != "" },
			state: b.host.Desired(own...), doubled: map[netip.Prefix]peer{}, small: small,
		}
	}
	err := b.Reconcile(b.desired.follow(peers))
	b.End(b.desired.leftOut(), b.Conflicts(), small...)
	return err
}

// Observe implements backend.Backend.
func (b *Backend) Observe(ev ip.Event) bool {
	moved, drifted := b.reach.Observe(ev), b.Managed.Observe(ev)
	return moved || drifted
}

// Run implements backend.Backend: the datapath is the kernel's.
func (b *Backend) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}
