package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"flanneld/backend"
	"flanneld/backend/check"
	"flanneld/options"
	"flanneld/status"
	"flanneld/subnet"
	"flanneld/subnet/keeper"
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
func (d *process) source(ctx context.Context, b *backend.Planner) (leaseSource, subnet.Config, error) {
	if d.o.KubeSubnetMgr {
		return d.kubeSource(ctx, b)
	}
	store, o := d.metrics.Store(d.store.Load()), d.leaseOptions(b)
	n, err := d.config(ctx, store, o)
	if err != nil {
		return nil, subnet.Config{}, err
	}
	return keeper.New(store, n, o), n.Config, nil
}

// network names the network that the state belongs to.
func (d *process) network() string {
	if d.o.KubeSubnetMgr {
		return "kubernetes:" + d.o.KubeAnnotationPrefix
	}
	return d.o.EtcdPrefix
}

// leaseOptions returns what the protocol of the leases must know of this host; b is filled in before that runs.
func (d *process) leaseOptions(b *backend.Planner) keeper.Options {
	host, err := os.Hostname()
	if err != nil {
		d.log.Warn("host name unknown", "error", err)
	}
	o := keeper.Options{
		Identity: d.state.Identity, Host: host, Prefix: d.o.EtcdPrefix,
		TTL: d.o.SubnetLeaseTTL, RenewMargin: d.o.SubnetLeaseRenewMargin, PeerGrace: d.o.PeerGrace, OnLost: d.o.OnLostSubnet,
		Check: check.Config, Attrs: d.attrs(b), Valid: valid(b),
		Avoid:    func() []netip.Prefix { return d.connected.Prefixes() },
		Reserved: func() []netip.Prefix { return d.connected.Reserved(d.underlay.Now().Link) },
		Log:      d.log,
	}
	if len(d.state.Own.Leases) > 0 {
		if err := d.state.Usable(d.o.EtcdPrefix, time.Now()); err != nil {
			d.log.Warn("saved state not used", "reason", err)
		} else {
			o.State = d.state
		}
	}
	if e, err := subnet.ReadEnv(d.o.SubnetFile); err == nil {
		o.Wanted = e.Subnets
	} else if !errors.Is(err, os.ErrNotExist) {
		d.log.Warn("subnet file not used", "reason", err)
	}
	return o
}

// attrs returns what a lease of this host tells others; b is filled in before it is called.
func (d *process) attrs(b *backend.Planner) func(netip.Prefix) subnet.Attrs {
	return func(p netip.Prefix) subnet.Attrs { return withUnderlay((*b).Attrs(p), d.underlay.Now().Addr(p)) }
}

// valid returns what says why a lease of another host is of no use; b is filled in before it is called.
func valid(b *backend.Planner) func(subnet.Lease) error {
	return func(l subnet.Lease) error { return (*b).Valid(l) }
}

// config returns the network configuration: that of the file, if one is given, else the store's, which gets the given one
// if it has none.
func (d *process) config(ctx context.Context, store subnet.Store, o keeper.Options) (keeper.Network, error) {
	if d.o.NetConfigPath != "" {
		c, text, err := readConfigFile(d.o.NetConfigPath)
		return keeper.Fixed(c, text), err
	}
	d.status.Join(status.Sources{})
	d.status.Waiting("waiting for the network configuration")
	return keeper.WaitConfig(ctx, store, keeper.ConfigOptions{
		Prefix: o.Prefix, Check: o.Check, State: o.State, Log: o.Log, Report: d.status.Awaiting,
	})
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
