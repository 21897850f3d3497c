package main

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"flanneld/api"
	"flanneld/drain"
	"flanneld/firewall"
	"flanneld/ip"
	"flanneld/options"
	"flanneld/probe"
	"flanneld/publish"
	"flanneld/rejoin"
	"flanneld/retry"
	"flanneld/serve"
	"flanneld/source"
	"flanneld/status"
	"flanneld/subnet"
	"flanneld/subnet/etcdv3"
	"flanneld/systemd"
	"flanneld/underlay"
	"flanneld/version"
)

// daemon is everything that lives as long as the process.
type daemon struct {
	o         options.Options
	log       *slog.Logger
	kernel    ip.Kernel
	store     atomic.Pointer[etcdv3.Store] // nil until it is open, and with Kubernetes
	etcd      *source.Etcd
	kube      source.Kubernetes
	journal   *status.Journal
	drains    drain.Requests
	rotate    atomic.Pointer[func(context.Context) (string, error)] // replaces the key of this host; nil: it has none
	stateDir  *subnet.StateDir
	state     subnet.State
	status    *status.Status
	metrics   *serve.Metrics
	underlay  *underlay.Live
	connected *underlay.Connected // what the host reaches otherwise of the network's ranges
	files     *systemd.FDStore
	policy    *firewall.Policy
}

// run brings the network up and keeps it up until ctx ends, and returns nil then. The data plane stays.
func run(ctx context.Context, o options.Options, log *slog.Logger) error {
	stateDir, err := retry.Value(ctx, log,
		func() (*subnet.StateDir, error) { return subnet.OpenState(o.StateDir, o.SubnetFile) })
	if err != nil || stateDir == nil {
		return err
	}
	defer stateDir.Close()
	journal := status.NewJournal(log.Handler())
	log = slog.New(journal)
	d := &daemon{
		o: source.Resolve(o), log: log, journal: journal, drains: drain.NewRequests(), stateDir: stateDir,
		metrics: serve.NewMetrics(version.This()), files: systemd.OpenFDStore(log),
	}
	if d.state, err = stateDir.Load(); err != nil {
		log.Warn("saved state not used", "reason", err)
	}
	kernel, err := retry.Value(ctx, log, func() (*ip.LinuxKernel, error) { return ip.NewKernel(log) })
	if err != nil || kernel == nil {
		return err
	}
	if kernel.FixedSettings() {
		log.Info("kernel settings cannot be changed: /proc/sys is read-only, as in a container that is not privileged",
			"consequence", "the host's own settings hold for router advertisements on the network's devices, and for forwarding")
	}
	notifier := systemd.NewNotifier(log)
	d.kernel = d.metrics.Kernel(kernel)
	d.policy = firewall.NewPolicy(firewallOptions(o, log))
	d.status = status.New(status.Options{
		Process: d.fixed(), Notifier: notifier, Journal: journal, Firewall: d.policy.Status, Passed: d.metrics.Pass,
		Probes: probe.Options{
			Port: o.ProbePort, Period: o.ProbeInterval, Version: version.This().Version, Observe: d.metrics.Probed, Log: log,
		},
		Used: kernel.Used, Log: log,
	})
	d.etcd = source.NewEtcd(o, d.state.Identity, d.status, log)
	d.metrics.Register(serve.NewStatusCollector(d.status.Report, "/proc"))
	if err := stateDir.Unwritable(); err != nil {
		log.Warn("state folder cannot be written, continuing without it: after a restart this host may get a new identity",
			"reason", err)
		d.status.File(publish.StateFile, err)
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

// serve opens the store and runs until ctx ends.
func (d *daemon) serve(ctx context.Context) error {
	if d.o.KubeSubnetMgr {
		return d.stayJoined(ctx)
	}
	store, err := d.etcd.Open(ctx)
	if err != nil || store == nil {
		return err
	}
	defer store.Close()
	d.store.Store(store)
	g, ctx := errgroup.WithContext(ctx)
	d.etcd.Start(ctx, g, store)
	g.Go(func() error { return d.stayJoined(ctx) })
	return g.Wait()
}

// stayJoined joins the network whenever that can be mended by another try.
func (d *daemon) stayJoined(ctx context.Context) error {
	return rejoin.Run(ctx, rejoin.Options{
		State: &d.state, StateDir: d.stateDir, Join: d.join, Leave: d.leave, Report: d.status, Log: d.log,
	})
}

// leave takes the host out of the network.
func (d *daemon) leave(ctx context.Context, req *drain.Request) (out api.Drained, left bool, err error) {
	h := drain.Host{
		Store: d.store.Load(), Kernel: d.kernel, Scope: req.Scope(), Firewall: d.policy, SubnetFile: d.o.SubnetFile,
		StateDir: d.stateDir,
	}
	return h.Leave(ctx, &d.state)
}

func firewallOptions(o options.Options, log *slog.Logger) firewall.PolicyOptions {
	network := ""
	if o.EtcdPrefix != options.Defaults().EtcdPrefix {
		network = o.EtcdPrefix
	}
	return firewall.PolicyOptions{
		Network: network, Masquerade: o.IPMasq, FullyRandom: !o.IPMasqFullyRandomDisable, Forward: o.IPTablesForwardRules,
		StrictIngress: o.StrictIngress, Resync: o.IPTablesResync, Log: log,
	}
}
