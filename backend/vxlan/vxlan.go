package vxlan

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"

	"flanneld/backend/reach"
	"flanneld/backend/vxlan/options"
	"flanneld/ip"
	"flanneld/subnet"
)

// Type is the name of the backend in the network configuration and in records.
const Type = options.Type

// Backend is a backend.Planner.
type Backend struct {
	host    ip.Host
	options Options
	config  subnet.Config
	owns    ip.Scope
	macs    map[string]ip.MAC
	desired *desired // of the last plan
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
		host: h, options: o, config: c, owns: ip.Scope{Networks: c.Networks(), BootGateways: o.DirectRouting},
		macs:    map[string]ip.MAC{},
		desired: newDesired(h), reach: reach.New(o.DirectRouting, c.Networks()),
	}
	for _, network := range c.Networks() {
		name := o.device(network).name
		b.owns.Links = append(b.owns.Links, name)
		if b.macs[name], err = b.mac(name); err != nil {
			return nil, err
		}
	}
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

// MACs implements backend.Addressed.
func (b *Backend) MACs() map[string]ip.MAC { return b.macs }

// Ingress implements backend.Ingress.
func (b *Backend) Ingress() (port uint16, vni uint32) { return b.options.Port, b.options.VNI }

// Attrs implements backend.Planner.
func (b *Backend) Attrs(prefix netip.Prefix) subnet.Attrs {
	text, err := json.Marshal(data{b.options.VNI, b.macs[b.options.device(prefix).name]})
	if err != nil {
		panic(err) // a number and a text marshaler that never fails
	}
	return subnet.Attrs{PublicIP: b.host.Underlay().PublicAddr(prefix), BackendType: Type, BackendData: string(text)}
}

// MTU implements backend.Planner: the largest packet of every family that is carried.
func (b *Backend) MTU() int {
	u, overhead := b.host.Underlay(), 0
	for _, network := range b.config.Networks() {
		if b.options.tooSmall(u, network) == "" {
			overhead = max(overhead, b.options.device(network).overhead)
		}
	}
	return b.options.underlayMTU(u) - overhead
}

// Valid implements backend.Planner.
func (b *Backend) Valid(l subnet.Lease) error {
	d, err := parseData(l.BackendData)
	if err != nil {
		return err
	}
	return b.options.checkVNI(d)
}

// Owns implements backend.Planner.
func (b *Backend) Owns() ip.Scope { return b.owns }

// Observe implements backend.Observer.
func (b *Backend) Observe(ev ip.Event) bool { return b.reach.Observe(ev) }

// Plan implements backend.Planner.
func (b *Backend) Plan(self []subnet.Lease, peers subnet.Peers) (ip.Snapshot, error) {
	u := b.host.Underlay()
	carried, small := b.options.carried(u, self)
	if len(carried) == 0 && len(small) > 0 {
		return ip.Snapshot{}, errors.New(small[0])
	}
	own, halves := b.options.base(u, b.macs, carried)
	direct, during := b.reach.Start(b.host.Kernel, u)
	if b.desired.fold.Start(self, during, own...) {
		b.desired.begin(u.Link, halves, direct, small)
	}
	return b.desired.follow(peers), nil
}

// Skipped implements backend.Skipper.
func (b *Backend) Skipped() (peers map[netip.Prefix]string, problems []string) {
	return b.desired.leftOut(), b.desired.small
}
