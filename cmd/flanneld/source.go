package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"time"

	"flanneld/backend"
	"flanneld/backend/check"
	"flanneld/options"
	"flanneld/subnet"
)

// leaseSource is where the leases come from, and what the rest of the daemon asks of it.
type leaseSource interface {
	backend.Source
	// Run follows the store until ctx ends, and returns nil then.
	Run(ctx context.Context) error
	// Refresh tells that what this host publishes may be another thing now.
	Refresh()
	Status() subnet.Status
	Position() subnet.Position
	// Peers returns the records of all others, to be remembered over a restart, and the position that they stand at.
	Peers() (subnet.Position, []subnet.Record)
	Inventory() (subnet.Position, []subnet.Listed)
}

// source returns where the leases come from, and the network configuration; b is filled in before it runs.
func (d *process) source(ctx context.Context, b *backend.Backend) (leaseSource, subnet.Config, error) {
	if d.o.KubeSubnetMgr {
		return d.kubeSource(ctx, b)
	}
	m := d.manager(b)
	c, err := d.config(ctx, m)
	return m, c, err
}

// network names the network that the state belongs to.
func (d *process) network() string {
	if d.o.KubeSubnetMgr {
		return "kubernetes:" + d.o.KubeAnnotationPrefix
	}
	return d.o.EtcdPrefix
}

// manager returns the lease manager; b is filled in before it runs.
func (d *process) manager(b *backend.Backend) *subnet.Manager {
	host, err := os.Hostname()
	if err != nil {
		d.log.Warn("host name unknown", "error", err)
	}
	o := subnet.Options{
		Identity: d.state.Identity, Host: host, Prefix: d.o.EtcdPrefix,
		TTL: d.o.SubnetLeaseTTL, RenewMargin: d.o.SubnetLeaseRenewMargin, PeerGrace: d.o.PeerGrace, OnLost: d.o.OnLostSubnet,
		Check: check.Config, Attrs: d.attrs(b), Valid: valid(b),
		Avoid:    func() []netip.Prefix { return d.connected.Prefixes() },
		Reserved: func() []netip.Prefix { return d.connected.Reserved(d.underlay.Now().Link) },
		Log:      d.log,
	}
	if len(d.state.Own.Leases) > 0 {
		if err := d.state.Usable(d.o.EtcdPrefix, time.Now()); err != nil {
			d.log.Warn("remembered state not used", "reason", err)
		} else {
			o.State = d.state
		}
	}
	if e, err := subnet.ReadEnv(d.o.SubnetFile); err == nil {
		o.Wanted = e.Subnets
	} else if !errors.Is(err, os.ErrNotExist) {
		d.log.Warn("subnet file not used", "reason", err)
	}
	return subnet.NewManager(d.metrics.Store(d.store.Load()), o)
}

// attrs returns what a lease of this host tells others; b is filled in before it is called.
func (d *process) attrs(b *backend.Backend) func(netip.Prefix) subnet.Attrs {
	return func(p netip.Prefix) subnet.Attrs { return withUnderlay((*b).Attrs(p), d.underlay.Now().Addr(p)) }
}

// valid returns what says why a lease of another host is of no use; b is filled in before it is called.
func valid(b *backend.Backend) func(subnet.Lease) error {
	return func(l subnet.Lease) error { return (*b).Valid(l) }
}

// config returns the network configuration: that of the file, if one is given, else the store's, which gets the given one
// if it has none.
func (d *process) config(ctx context.Context, m *subnet.Manager) (subnet.Config, error) {
	if d.o.NetConfigPath != "" {
		c, text, err := readConfigFile(d.o.NetConfigPath)
		if err == nil {
			m.UseConfig(c, text)
		}
		return c, err
	}
	d.status.join(sources{manager: m})
	d.status.waiting("waiting for the network configuration")
	ctx, cancel := context.WithCancel(ctx)
	var telling sync.WaitGroup
	defer telling.Wait()
	defer cancel()
	telling.Go(func() { d.status.follow(ctx, m.Changed()) })
	return m.WaitConfig(ctx)
}

// readConfigFile reads the network configuration from a file.
func readConfigFile(path string) (subnet.Config, []byte, error) {
	text, err := subnet.ReadFile(path, options.MaxConfigSize)
	if err != nil {
		return subnet.Config{}, nil, fmt.Errorf("read -net-config-path: %w", err)
	}
	c, err := check.Network(text)
	if err != nil {
		return subnet.Config{}, nil, fmt.Errorf("network configuration %s: %w", path, err)
	}
	return c, text, nil
}
