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
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"flanneld/backend"
	"flanneld/backend/alloc"
	"flanneld/backend/hostgw"
	"flanneld/backend/udp"
	"flanneld/backend/vxlan"
	"flanneld/backend/wireguard"
	"flanneld/backend/wireguard/options"
	"flanneld/ip"
	"flanneld/subnet"
	"flanneld/subnet/etcdv3"
	"flanneld/subnet/kube"
)

// resyncPeriod is how often the whole state is read from the kernel although nothing has happened.
const resyncPeriod = time.Minute

// routersTime is how long an interface that has only a link-local IPv6 address is waited for: longer than it takes to ask for
// routers (RFC 4861, section 10: three times with four seconds in between).
const routersTime = 15 * time.Second

// offerPause is how long to wait before the network configuration is offered to the store again.
const offerPause = time.Second

// process is one run: everything that lives as long as the process.
type process struct {
	o        Options
	log      *slog.Logger
	kernel   ip.Kernel
	store    atomic.Pointer[etcdv3.Store] // nil until it is open, and with Kubernetes
	journal  *Journal
	drains   chan *drainRequest
	stateDir *subnet.StateDir
	state    subnet.State
	status   *status
	metrics  *Metrics
	underlay *liveUnderlay
	// connected is what the host reaches otherwise of the network's ranges.
	connected *connected
	files     *FDStore
	wall      *wall
}

// run brings the network up and keeps it up until ctx ends, and returns nil then. The data plane stays.
func run(ctx context.Context, o Options, log *slog.Logger) error {
	var stateDir *subnet.StateDir
	err := Patiently(ctx, log, func() (err error) {
		stateDir, err = subnet.OpenState(o.StateDir, o.SubnetFile)
		return err
	})
	if err != nil || stateDir == nil {
		return err
	}
	defer stateDir.Close()
	journal := NewJournal(log.Handler())
	log = slog.New(journal)
	notifier := NewNotifier(log)
	d := &process{o: o, log: log, journal: journal, drains: make(chan *drainRequest), stateDir: stateDir, status: newStatus(notifier, log), metrics: NewMetrics(), files: OpenFDStore(log)}
	if d.state, err = stateDir.Load(); err != nil {
		log.Warn("remembered state not used", "reason", err)
	}
	if err := stateDir.Unwritable(); err != nil {
		log.Warn("state folder cannot be written, going on without: after a restart this host may be taken for a new one", "reason", err)
		d.status.file(stateFile, err)
	}
	var kernel *ip.LinuxKernel
	err = Patiently(ctx, log, func() (err error) {
		kernel, err = ip.NewKernel(log)
		return err
	})
	if err != nil || kernel == nil {
		return err
	}
	if kernel.FixedSettings() {
		log.Info("kernel settings cannot be changed from here: /proc/sys is read-only, as in a container that is not privileged",
			"consequence", "the host's own settings hold for router advertisements on the network's devices, and for forwarding")
	}
	d.kernel = countedKernel{kernel, d.metrics}
	d.observe(kernel)
	d.wall = newWall(o, log)
	d.status.firewall = d.wall.report
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return d.socket().Run(ctx) })
	g.Go(func() error { return notifier.Run(ctx, func() bool { return d.status.Alive() == nil }) })
	g.Go(func() error { return d.health().Run(ctx) })
	g.Go(func() error { return d.status.prober.Run(ctx) })
	g.Go(func() error { return Patiently(ctx, log, func() error { return d.wall.run(ctx) }) })
	g.Go(func() error { return Patiently(ctx, log, func() error { return d.serve(ctx) }) })
	if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// serve opens the store and runs until ctx ends. A host whose identity turns out to be another's starts anew with one of its own.
func (d *process) serve(ctx context.Context) error {
	if d.o.KubeSubnetMgr {
		return d.joinAnew(ctx)
	}
	store, err := etcdv3.New(etcdv3.Options{
		Endpoints: d.o.EtcdEndpoints, Prefix: d.o.EtcdPrefix,
		CertFile: d.o.EtcdCertfile, KeyFile: d.o.EtcdKeyfile, CAFile: d.o.EtcdCAFile,
		Username: string(d.o.EtcdUsername), Password: string(d.o.EtcdPassword), Log: d.log,
	})
	if err != nil {
		return err
	}
	defer store.Close()
	d.store.Store(store)
	g, ctx := errgroup.WithContext(ctx)
	if d.o.EtcdEmbedded {
		d.runMember(ctx, g)
	} else {
		g.Go(func() error { return d.offerConfig(ctx) })
	}
	g.Go(func() error { return d.joinAnew(ctx) })
	return g.Wait()
}

// offerConfig writes -network-config to the store if that has none, as soon as it can be reached. It returns an error only for
// a wrong flag.
func (d *process) offerConfig(ctx context.Context) error {
	if d.o.NetworkConfig == "" {
		return nil
	}
	for ctx.Err() == nil {
		written, err := d.store.Load().PutConfigIfAbsent(ctx, d.o.NetworkConfig)
		if err == nil {
			d.log.Info("network configuration offered to the store", "key", d.o.EtcdPrefix+"/config", "written", written)
			return nil
		}
		select {
		case <-ctx.Done():
		case <-time.After(offerPause):
		}
	}
	return nil
}

// joinAnew joins the network, again with a new identity whenever the old one turns out to be another host's.
func (d *process) joinAnew(ctx context.Context) error {
	for {
		joined := false
		err := Patiently(ctx, d.log, func() error {
			if joined {
				d.remember()
			}
			joined = true
			return d.join(ctx)
		})
		if req := (*drainRequest)(nil); errors.As(err, &req) {
			if d.leave(ctx, req) {
				<-ctx.Done()
				return nil
			}
			continue
		}
		if !errors.Is(err, subnet.ErrCloned) {
			return err
		}
		d.renew()
	}
}

// remember takes in what the last join has saved.
func (d *process) remember() {
	if st, err := d.stateDir.Load(); err == nil && st.Identity == d.state.Identity {
		d.state = st
	}
}

// renew gives the host a new identity, and forgets what it had under the old one.
func (d *process) renew() {
	d.state.Identity = rand.Text()
	d.state.Own, d.state.MACs, d.state.Peers = subnet.Record{}, nil, nil
	d.status.identify(d.state.Identity)
	d.log.Warn("starting anew with a new identity", "identity", d.state.Identity)
	if err := d.stateDir.Save(d.state); err != nil {
		d.log.Error("new identity not saved: the next start is with the old one", "error", err)
	}
}

// join takes part in the network with one identity and one configuration, until ctx ends.
func (d *process) join(ctx context.Context) error {
	var b backend.Backend
	m, config, err := d.source(ctx, &b)
	if err != nil {
		return err
	}
	if d.underlay, err = d.waitUnderlay(ctx, config); err != nil {
		return err
	}
	locks := NewDeviceLocks(deviceFolder, fmt.Sprintf("pid %d, network %s, subnet file %s", os.Getpid(), d.network(), d.o.SubnetFile))
	defer locks.Release()
	devices, err := d.waitDevices(ctx, locks, config)
	if err != nil {
		return err
	}
	d.connected = newConnected(d.kernel, config.Networks(), d.o.EtcdEndpoints, d.log)
	host := d.host()
	host.Devices, host.Leftovers.Links = devices, locks.unused(host.Leftovers.Links, devices)
	if b, err = newBackend(config, host, d.files, options.FindKeyFiles(d.o.StateDir, d.o.SubnetFile)); err != nil {
		return err
	}
	path, skipped := datapathOf(b), leftOutOf(b)
	b = d.wall.guard(b, config, d.underlay.now)
	p := &publisher{process: d, manager: m, backend: b, unwritten: map[string]string{}, ready: func() {}}
	switch m := m.(type) {
	case *kube.Source:
		p.ready = m.SetReady
	case *subnet.Manager:
		m.LeaveReserved()
	}
	loop := backend.NewLoop(m, b, d.log)
	loop.Resync = resyncPeriod
	settings := &forwarding{turnOn: d.o.IPForward, networks: config.Networks(), log: d.log}
	loop.Before = func() {
		d.status.begin()
		before := d.underlay.now().Addrs
		if d.underlay.refresh() {
			b.Observe(ip.Event{})
			m.Refresh()
		}
		if store := d.store.Load(); store != nil && !slices.Equal(before, d.underlay.now().Addrs) {
			store.Redial()
		}
		settings.check(d.underlay.now().Link)
	}
	d.underlay.poke = loop.Poke
	loop.After = func(v subnet.View, err error) error {
		if own := v.Own.Prefixes(); len(own) > 0 {
			settings.onLinks(b.Scope().Links, append(d.connected.bridges(own), d.underlay.now().Link))
		}
		return p.after(v, err)
	}
	d.status.join(sources{alive: loop.Alive, manager: m, backend: b, datapath: path, skipped: skipped, forwarding: settings.Problems})

	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return m.Run(ctx) })
	g.Go(func() error { return loop.Run(ctx) })
	g.Go(func() error { return b.Run(ctx) })
	g.Go(func() error { return p.keepPeers(ctx) })
	g.Go(func() error { return d.awaitDrain(ctx, b) })
	g.Go(func() error {
		return d.kernel.Watch(ctx, func(ev ip.Event) {
			if concerned := slices.Contains([]bool{d.underlay.observe(ev), d.connected.observe(ev), b.Observe(ev)}, true); concerned {
				loop.Poke()
			}
		})
	})
	return g.Wait()
}

// host returns what the backend is given of this host.
func (d *process) host() ip.Host {
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
		Kernel: d.kernel, Log: d.log, Underlay: d.underlay.now, Connected: d.connected.now, Identity: d.state.Identity, MACs: macs,
		Leftovers: ip.Scope{Links: slices.Clone(d.state.Links), Networks: slices.Clone(d.state.Networks)},
		Blackhole: d.o.IPBlackholeRoute,
	}
}

// waitUnderlay returns the interface to use once there is one, with an address of each family of the network.
func (d *process) waitUnderlay(ctx context.Context, c subnet.Config) (*liveUnderlay, error) {
	families, start, home := FamiliesOf(c.Networks()), time.Now(), publicIPs(d.state.Own)
	choose := func(last ip.Underlay, moved bool) (ip.Underlay, error) {
		o := d.o.Underlay()
		o.Last, o.Moved, o.Home = last, moved, home
		o.LinkLocal = last.Link == "" && time.Since(start) > routersTime || slices.ContainsFunc(last.Addrs, netip.Addr.IsLinkLocalUnicast)
		return Choose(d.kernel, o, families)
	}
	u, err := WaitUnderlay(ctx, d.kernel, func() (ip.Underlay, error) { return choose(ip.Underlay{}, false) }, func(reason error) {
		d.log.Warn("waiting for an interface", "reason", reason)
		d.status.waiting("waiting for an interface: %v", reason)
	})
	if err != nil {
		return nil, err
	}
	if links, err := d.kernel.Interfaces(); err == nil {
		home = HomeAfter(home, u, links)
	}
	d.log.Info("underlay chosen", "interface", u.Link, "addresses", u.Addrs, "public", u.PublicAddrs, "mtu", u.MTU, "reason", u.Reason)
	if slices.ContainsFunc(u.PublicAddrs, func(a netip.Addr) bool { return a.Is6() && a.IsLinkLocalUnicast() }) {
		d.log.Warn("the underlay has a link-local IPv6 address only: all hosts must be on this link", "interface", u.Link)
	}
	d.status.waiting("waiting for a subnet")
	return &liveUnderlay{choose: choose, log: d.log, current: u}, nil
}

// newBackend makes the backend that the network configuration names.
func newBackend(c subnet.Config, h ip.Host, files *FDStore, keys options.KeyFiles) (backend.Backend, error) {
	files.Drop(c.BackendType) // of an earlier run with another backend
	switch c.BackendType {
	case vxlan.Type:
		return vxlan.New(c, h)
	case hostgw.Type:
		return hostgw.New(c, h)
	case udp.Type:
		return udp.New(c, h, files)
	case wireguard.Type:
		return wireguard.New(c, h, keys, files)
	case alloc.Type:
		return alloc.New(c, h), nil
	}
	return nil, checkBackend(c)
}

// checkBackend says what is wrong with the backend that the network configuration names.
func checkBackend(c subnet.Config) error {
	switch c.BackendType {
	case vxlan.Type:
		_, err := vxlan.ParseOptions(c.Backend)
		return err
	case udp.Type:
		_, err := udp.ParseOptions(c.Backend)
		return err
	case wireguard.Type:
		_, err := options.Parse(c.Backend)
		return err
	case hostgw.Type, alloc.Type:
		return nil
	}
	return fmt.Errorf("backend %q is not available: want vxlan, wireguard, host-gw, udp or alloc", c.BackendType)
}
