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
	"flanneld/backend/registry"
	wgoptions "flanneld/backend/wireguard/options"
	"flanneld/devicelock"
	"flanneld/firewall"
	"flanneld/forwarding"
	"flanneld/ip"
	"flanneld/options"
	"flanneld/probe"
	"flanneld/retry"
	"flanneld/serve"
	"flanneld/status"
	"flanneld/subnet"
	"flanneld/subnet/etcdv3"
	"flanneld/subnet/keeper"
	"flanneld/subnet/kube"
	"flanneld/systemd"
	"flanneld/underlay"
)

// resyncPeriod is how often the whole state is read from the kernel although nothing has happened.
const resyncPeriod = time.Minute

// offerPause is how long to wait before the network configuration is offered to the store again.
const offerPause = time.Second

// process is one run: everything that lives as long as the process.
type process struct {
	o        options.Options
	log      *slog.Logger
	kernel   ip.Kernel
	store    atomic.Pointer[etcdv3.Store] // nil until it is open, and with Kubernetes
	kube     atomic.Pointer[kubeAccess]   // nil with etcd, and until the flags are read
	journal  *status.Journal
	drains   chan *drainRequest
	rotator  atomic.Pointer[rotator] // nil: there is no key
	stateDir *subnet.StateDir
	state    subnet.State
	status   *status.Status
	metrics  *serve.Metrics
	underlay *underlay.Live
	// connected is what the host reaches otherwise of the network's ranges.
	connected *underlay.Connected
	files     *systemd.FDStore
	policy    *firewall.Policy
}

// run brings the network up and keeps it up until ctx ends, and returns nil then. The data plane stays.
func run(ctx context.Context, o options.Options, log *slog.Logger) error {
	var stateDir *subnet.StateDir
	err := retry.Shortage(ctx, log, func() (err error) {
		stateDir, err = subnet.OpenState(o.StateDir, o.SubnetFile)
		return err
	})
	if err != nil || stateDir == nil {
		return err
	}
	defer stateDir.Close()
	journal := status.NewJournal(log.Handler())
	log = slog.New(journal)
	notifier := systemd.NewNotifier(log)
	d := &process{
		o: o, log: log, journal: journal, drains: make(chan *drainRequest), stateDir: stateDir,
		metrics: serve.NewMetrics(version), files: systemd.OpenFDStore(log),
	}
	if d.state, err = stateDir.Load(); err != nil {
		log.Warn("saved state not used", "reason", err)
	}
	var kernel *ip.LinuxKernel
	err = retry.Shortage(ctx, log, func() (err error) {
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
	d.kernel = d.metrics.Kernel(kernel)
	d.policy = firewall.NewPolicy(firewallOptions(o, log))
	d.status = status.New(status.Options{
		Process: d.fixed(), Notifier: notifier, Journal: journal, Firewall: d.policy.Status, Passed: d.metrics.Pass,
		Probes: probe.Options{Port: o.ProbePort, Period: o.ProbeInterval, Version: version, Observe: d.metrics.Probed, Log: log},
		Used:   kernel.Used, Log: log,
	})
	d.metrics.Register(serve.NewStatusCollector(d.status.Report, "/proc"))
	if err := stateDir.Unwritable(); err != nil {
		log.Warn("state folder cannot be written, continuing without it: after a restart this host may get a new identity", "reason", err)
		d.status.File(stateFile, err)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return d.socket().Run(ctx) })
	g.Go(func() error { return notifier.Run(ctx, func() bool { return d.status.Alive() == nil }) })
	g.Go(func() error { return d.health().Run(ctx) })
	g.Go(func() error { return d.status.Probe(ctx) })
	g.Go(func() error { return retry.Shortage(ctx, log, func() error { return d.policy.Run(ctx) }) })
	g.Go(func() error { return retry.Shortage(ctx, log, func() error { return d.serve(ctx) }) })
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
			d.log.Info("initial network configuration sent to the store", "key", d.o.EtcdPrefix+"/config", "written", written)
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
		err := retry.Shortage(ctx, d.log, func() error {
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
		if !errors.Is(err, keeper.ErrCloned) {
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
	d.status.Identify(d.state.Identity)
	d.log.Warn("restarting with a new identity", "identity", d.state.Identity)
	if err := d.stateDir.Save(d.state); err != nil {
		d.log.Error("new identity not saved: the next start uses the old one", "error", err)
	}
}

// join takes part in the network with one identity and one configuration, until ctx ends.
func (d *process) join(ctx context.Context) error {
	var b backend.Planner
	m, config, err := d.source(ctx, &b)
	if err != nil {
		return err
	}
	if d.underlay, err = d.followUnderlay(ctx, config); err != nil {
		return err
	}
	locks := devicelock.New(devicelock.Folder, fmt.Sprintf("pid %d, network %s, subnet file %s", os.Getpid(), d.network(), d.o.SubnetFile))
	defer locks.Release()
	devices, err := d.waitDevices(ctx, locks, config)
	if err != nil {
		return err
	}
	d.connected = underlay.NewConnected(d.kernel, config.Networks(), d.o.EtcdEndpoints, d.log)
	host := d.host()
	host.Devices, host.Leftovers.Links = devices, locks.Unused(host.Leftovers.Links, devices)
	b, err = d.startBackend(ctx, registry.Env{
		Config: config, Host: host, Files: d.files, Keys: wgoptions.FindKeyFiles(d.o.StateDir, d.o.SubnetFile), Former: d.state.Peers,
	})
	if err != nil {
		return err
	}
	d.state.Peers = nil // m has them, as long as they are of use
	loop := backend.NewLoop(m, backend.NewApplier(b, host, config.Networks()))
	facts := status.Sources{
		Leases: m, Backend: loop, NoProbes: !loop.Carries(), Sessions: sessionsOf(b), Owner: devicelock.NewWatch(devices).Owner,
	}
	facts.Datapath, _ = b.(status.Datapath) // nil where the datapath is the kernel's
	if k, ok := b.(keyed); ok {
		rotate := rotator(func(ctx context.Context) (string, error) { return k.Rotate(ctx, m.Refresh) })
		d.rotator.Store(&rotate)
		defer d.rotator.Store(nil)
	}
	p := &publisher{process: d, manager: m, backend: loop, unwritten: map[string]string{}, ready: func() {}}
	switch m := m.(type) {
	case *kube.Source:
		p.ready = m.SetReady
	case *keeper.Keeper:
		m.LeaveReserved()
	}
	loop.Resync, loop.Admit = resyncPeriod, d.policy.Join(config.Networks(), tunnelOf(b), d.underlay.Now).Set
	settings := forwarding.New(d.o.IPForward, config.Networks(), d.log)
	loop.Before = func() {
		d.status.Begin()
		before := d.underlay.Now().Addrs
		if d.underlay.Refresh() {
			loop.Observe(ip.Event{})
			m.Refresh()
		}
		if store := d.store.Load(); store != nil && !slices.Equal(before, d.underlay.Now().Addrs) {
			store.Redial()
		}
		settings.Check(d.underlay.Now().Link)
	}
	d.underlay.OnMove(loop.Poke)
	loop.After = func(v subnet.View, err error) error {
		if own := v.Own.Prefixes(); len(own) > 0 {
			settings.OnLinks(loop.Scope().Links, append(d.connected.Bridges(own), d.underlay.Now().Link))
		}
		return p.after(v, err)
	}
	facts.Alive, facts.Forwarding = loop.Alive, settings.Problems
	d.status.Join(facts)

	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return m.Run(ctx) })
	g.Go(func() error { return loop.Run(ctx) })
	g.Go(func() error { return p.keepPeers(ctx) })
	g.Go(func() error { return d.awaitDrain(ctx, loop) })
	g.Go(func() error {
		return d.kernel.Watch(ctx, func(ev ip.Event) {
			if concerned := slices.Contains([]bool{d.underlay.Observe(ev), d.connected.Observe(ev), loop.Observe(ev)}, true); concerned {
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
			d.log.Warn("saved hardware address not used", "device", name, "reason", err)
			continue
		}
		macs[name] = m
	}
	return ip.Host{
		Kernel: d.kernel, Log: d.log, Underlay: d.underlay.Now, Connected: d.connected.Now, Identity: d.state.Identity, MACs: macs,
		Leftovers: ip.Scope{Links: slices.Clone(d.state.Links), Networks: slices.Clone(d.state.Networks)},
		Blackhole: d.o.IPBlackholeRoute,
	}
}

// followUnderlay returns the interface to use once there is one, with an address of each family of the network.
func (d *process) followUnderlay(ctx context.Context, c subnet.Config) (*underlay.Live, error) {
	u, err := underlay.Follow(ctx, d.kernel, underlay.FollowOptions{
		Flags: underlayFlags(d.o), Families: underlay.FamiliesOf(c.Networks()), Home: publicIPs(d.state.Own), Log: d.log,
		Waiting: func(reason error) { d.status.Waiting("waiting for an interface: %v", reason) },
	})
	if err == nil {
		d.status.Waiting("waiting for a subnet")
	}
	return u, err
}

func underlayFlags(o options.Options) underlay.Options {
	return underlay.Options{
		Ifaces: o.Iface, Regexes: o.IfaceRegex, CanReach: o.IfaceCanReach, PublicIPv4: o.PublicIP, PublicIPv6: o.PublicIPv6,
	}
}

// publicIPs returns the addresses that a record tells peers.
func publicIPs(r subnet.Record) (out []netip.Addr) {
	for _, l := range r.Leases {
		out = append(out, l.PublicIP)
	}
	return out
}
