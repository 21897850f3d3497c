package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"flanneld/backend"
	"flanneld/ip"
	"flanneld/subnet"
	"flanneld/subnet/etcdv3"
	"flanneld/subnet/etcdv3/member"
)

// resyncPeriod is how often the whole state is read from the kernel although nothing has happened.
const resyncPeriod = time.Minute

// daemon is one run: everything that lives as long as the process.
type daemon struct {
	o        Options
	log      *slog.Logger
	kernel   ip.Kernel
	store    *etcdv3.Store
	stateDir *subnet.StateDir
	state    subnet.State
	status   *status
	underlay *underlay
}

// run brings the network up and keeps it up until ctx ends, and returns nil then. The data plane stays.
func run(ctx context.Context, o Options, log *slog.Logger) error {
	stateDir, err := subnet.OpenState(o.StateDir, o.SubnetFile)
	if err != nil {
		return err
	}
	defer stateDir.Close()
	d := &daemon{o: o, log: log, stateDir: stateDir, status: newStatus()}
	if d.state, err = stateDir.Load(); err != nil {
		log.Warn("remembered state not used", "reason", err)
	}
	if d.kernel, err = ip.NewKernel(log); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return d.serveHealth(ctx) })
	g.Go(func() error { return d.status.notify(ctx, log) })
	g.Go(func() error {
		if err := d.startMember(ctx); err != nil {
			return err
		}
		return d.serve(ctx)
	})
	if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// startMember starts the embedded etcd, if there is to be one.
func (d *daemon) startMember(ctx context.Context) error {
	if !d.o.EtcdEmbedded {
		return nil
	}
	m, err := member.Start(ctx, member.Options{Dir: d.o.embeddedDir(), Listen: d.o.EtcdEmbeddedListen, Log: d.log})
	if err != nil {
		return fmt.Errorf("start embedded etcd: %w", err)
	}
	context.AfterFunc(ctx, m.Close)
	return nil
}

// serve opens the store and runs until ctx ends. A host whose identity turns out to be another's starts anew with one of its own.
func (d *daemon) serve(ctx context.Context) error {
	store, err := etcdv3.New(d.o.store(d.log))
	if err != nil {
		return err
	}
	defer store.Close()
	d.store = store
	for {
		err := d.join(ctx)
		if !errors.Is(err, subnet.ErrCloned) {
			return err
		}
		d.state.Identity = rand.Text()
		d.state.Own, d.state.MACs, d.state.Peers = subnet.Record{}, nil, nil
		if err := d.stateDir.Save(d.state); err != nil {
			return err
		}
		d.log.Warn("starting anew with a new identity", "identity", d.state.Identity)
	}
}

// join takes part in the network with one identity and one configuration, until ctx ends.
func (d *daemon) join(ctx context.Context) error {
	var b backend.Backend
	m := d.manager(&b)
	config, err := d.config(ctx, m)
	if err != nil {
		return err
	}
	if d.underlay, err = d.waitUnderlay(ctx, config); err != nil {
		return err
	}
	if b, err = newBackend(config, d.host()); err != nil {
		return err
	}
	p := &publisher{daemon: d, manager: m, backend: b}
	loop := backend.NewLoop(m, b, d.log)
	loop.Resync = resyncPeriod
	loop.Before = func() {
		if d.underlay.refresh() {
			b.Observe(ip.Event{})
			m.Refresh()
		}
	}
	loop.After = p.after
	d.status.watch(loop.Alive, m.Status)

	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return m.Run(ctx) })
	g.Go(func() error { return loop.Run(ctx) })
	g.Go(func() error { return b.Run(ctx) })
	g.Go(func() error { return p.keepPeers(ctx) })
	g.Go(func() error {
		return d.kernel.Watch(ctx, func(ev ip.Event) {
			if concerned := d.underlay.observe(ev); b.Observe(ev) || concerned {
				loop.Poke()
			}
		})
	})
	return g.Wait()
}

// manager returns the lease manager; b is filled in before it runs.
func (d *daemon) manager(b *backend.Backend) *subnet.Manager {
	host, err := os.Hostname()
	if err != nil {
		d.log.Warn("host name unknown", "error", err)
	}
	o := subnet.Options{
		Identity: d.state.Identity, Host: host, Prefix: d.o.EtcdPrefix,
		TTL: d.o.SubnetLeaseTTL, RenewMargin: d.o.renewMargin(), PeerGrace: d.o.PeerGrace, OnLost: subnet.LostPolicy(d.o.OnLostSubnet),
		Attrs: func(p netip.Prefix) subnet.Attrs { return (*b).Attrs(p) },
		Valid: func(l subnet.Lease) error { return (*b).Valid(l) },
		Log:   d.log,
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
	return subnet.NewManager(d.store, o)
}

// config returns the network configuration: that of the file, if one is given, else the store's, which gets the given one
// if it has none.
func (d *daemon) config(ctx context.Context, m *subnet.Manager) (subnet.Config, error) {
	if d.o.NetConfigPath != "" {
		text, err := os.ReadFile(d.o.NetConfigPath)
		if err != nil {
			return subnet.Config{}, fmt.Errorf("read -net-config-path: %w", err)
		}
		c, err := subnet.ParseConfig(text)
		if err != nil {
			return subnet.Config{}, fmt.Errorf("network configuration %s: %w", d.o.NetConfigPath, err)
		}
		m.UseConfig(c, text)
		return c, nil
	}
	d.status.watch(func() bool { return true }, m.Status)
	return m.WaitConfig(ctx)
}

// host returns what the backend is given of this host.
func (d *daemon) host() ip.Host {
	macs := map[string]ip.MAC{}
	for name, text := range d.state.MACs {
		m, err := ip.ParseMAC(text)
		if err != nil {
			d.log.Warn("remembered hardware address not used", "device", name, "reason", err)
			continue
		}
		macs[name] = m
	}
	return ip.Host{
		Kernel: d.kernel, Log: d.log, Underlay: d.underlay.now, Identity: d.state.Identity, MACs: macs,
		Leftovers: ip.Scope{Links: slices.Clone(d.state.Links), Networks: slices.Clone(d.state.Networks)},
	}
}
