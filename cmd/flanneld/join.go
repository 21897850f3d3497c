package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"flanneld/backend"
	"flanneld/backend/registry"
	wgoptions "flanneld/backend/wireguard/options"
	"flanneld/devicelock"
	"flanneld/firewall"
	"flanneld/forwarding"
	"flanneld/ip"
	"flanneld/publish"
	"flanneld/source"
	"flanneld/status"
	"flanneld/subnet"
	"flanneld/subnet/keeper"
	"flanneld/underlay"
	"flanneld/version"
)

// join takes part in the network with one identity and one configuration, until ctx ends.
func (d *daemon) join(ctx context.Context) error {
	var b *registry.Several
	leases, config, err := d.source(ctx, &b)
	if err != nil {
		return err
	}
	if d.underlay, err = d.followUnderlay(ctx, config); err != nil {
		return err
	}
	d.connected = underlay.NewConnected(d.kernel, config.Networks(), d.o.EtcdEndpoints, d.log)
	var loop *backend.Loop
	b, err = registry.Open(ctx, registry.Network{
		Env: registry.Env{
			Config: config, Host: d.host(func() { loop.Poke() }), Files: d.files,
			Former: d.state.Memory.Peers(d.state.Identity), Keys: wgoptions.FindKeyFiles(d.o.StateDir, d.o.SubnetFile),
		},
		Holder: fmt.Sprintf("pid %d, network %s, subnet file %s", os.Getpid(), source.Network(d.o), d.o.SubnetFile),
		Links:  d.state.Links, Waiting: d.waiting, Drop: d.files.Drop,
	})
	if err != nil {
		return err
	}
	defer b.Close()
	d.state.Memory = subnet.Memory{} // leases has it, as long as it is of use
	defer d.rotate.Store(nil)
	loop = backend.NewLoop(leases, b.Applier)
	settings := forwarding.New(d.o.IPForward, config.Networks(), d.log)
	facts := status.Sources{
		Leases: leases, Backend: loop, NoProbes: !loop.Carries(),
		Owner: devicelock.NewWatch(b.Devices).Owner, Alive: loop.Alive, Forwarding: settings.Problems,
	}
	d.know(facts, b.Planners(), leases)
	p := d.publisher(leases, loop)
	tunnels := func() []firewall.Tunnel { return firewall.TunnelsOf(loop.Tunnels()...) }
	rules := d.policy.Join(config.Networks(), tunnels, d.underlay.Now)
	b.Changed = func() {
		d.know(facts, b.Planners(), leases)
		b.Settle()
		leases.Refresh()
	}
	loop.Resync = time.Minute
	loop.Before = func() { b.Again(ctx); d.before(leases, loop, settings) }
	loop.Admit = func(v subnet.View) {
		p.Before(v)
		rules.Set(v.Self, v.Peers)
	}
	loop.After = func(v subnet.View, err error) error {
		if own := v.Own.Prefixes(); len(own) > 0 {
			settings.OnLinks(loop.Scope().Links, append(d.connected.Bridges(own), d.underlay.Now().Link))
		}
		return p.After(v, err)
	}
	d.underlay.OnMove(loop.Poke)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return leases.Run(ctx) })
	g.Go(func() error { return loop.Run(ctx) })
	g.Go(func() error { return source.FollowFile(ctx, leases, d.o.NetConfigPath, d.log) })
	g.Go(func() error { return p.KeepPeers(ctx) })
	g.Go(func() error { return d.drains.Wait(ctx, loop.Scope) })
	g.Go(func() error {
		return d.kernel.Watch(ctx, func(ev ip.Event) {
			if slices.Contains([]bool{d.underlay.Observe(ev), d.connected.Observe(ev), loop.Observe(ev)}, true) {
				loop.Poke()
			}
		})
	})
	return g.Wait()
}

// know has the status and the socket ask the backends that there are now.
func (d *daemon) know(facts status.Sources, backends []backend.Planner, leases source.Source) {
	d.status.Join(facts.Of(backends...))
	d.rotate.Store(nil)
	if k := backend.KeyedOf(backends...); k != nil {
		rotate := func(ctx context.Context) (string, error) { return k.Rotate(ctx, leases.Refresh) }
		d.rotate.Store(&rotate)
	}
}

// source returns where the leases come from, and the network configuration; b is filled in before it runs.
func (d *daemon) source(ctx context.Context, b **registry.Several) (source.Source, subnet.Config, error) {
	h := source.Host{
		Options: d.o, Version: version.This().Version, State: d.state, Report: d.status, Log: d.log,
		Follow:  func(c subnet.Config) error { return (*b).Follow(ctx, c) },
		Backend: func() source.Backend { return *b }, Underlay: func() ip.Underlay { return d.underlay.Now() },
		Connected: func() source.Connected { return d.connected },
	}
	if !d.o.KubeSubnetMgr {
		if d.o.NetConfigPath == "" {
			d.status.Join(status.Sources{}) // what was joined before says nothing while the configuration is waited for
		}
		return source.FromStore(ctx, d.metrics.Store(d.store.Load()), h)
	}
	leases, config, node, err := d.kube.Open(ctx, h)
	if err != nil {
		return nil, subnet.Config{}, err
	}
	d.o.PublicIP, d.o.PublicIPv6 = node.PublicIPs[0], node.PublicIPs[1]
	d.state.MACs = node.MACs
	return leases, config, nil
}

// waiting returns what shows why the start waits.
func (d *daemon) waiting(what string) func(error) {
	return func(reason error) {
		d.log.Warn(what, "reason", reason)
		d.status.Waiting("%v", reason)
	}
}

func (d *daemon) publisher(leases source.Source, loop *backend.Loop) *publish.Publisher {
	o := publish.Options{
		SubnetFile: d.o.SubnetFile, IPMasq: d.o.IPMasq, Network: source.Network(d.o), State: d.state, StateDir: d.stateDir,
		Underlay: d.underlay.Now, Leases: leases, Backend: loop, Report: d.status, Ready: func() {}, Log: d.log,
	}
	switch l := leases.(type) {
	case source.Conditioned:
		o.Ready = l.SetReady
	case *keeper.Keeper:
		l.LeaveReserved()
	}
	return publish.New(o)
}

// before is called before each pass: it takes in where the host is now.
func (d *daemon) before(leases source.Source, loop *backend.Loop, settings *forwarding.Settings) {
	d.status.Begin()
	addrs := d.underlay.Now().Addrs
	if d.underlay.Refresh() {
		loop.Observe(ip.Event{})
		leases.Refresh()
	}
	if store := d.store.Load(); store != nil && !slices.Equal(addrs, d.underlay.Now().Addrs) {
		store.Redial()
	}
	settings.Check(d.underlay.Now().Link)
}

// host returns what the backend is given of this host.
func (d *daemon) host(poke func()) ip.Host {
	macs, err := ip.ParseMACs(d.state.MACs)
	if err != nil {
		d.log.Warn("saved hardware address not used", "reason", err)
	}
	return ip.Host{
		Kernel: d.kernel, Log: d.log, Underlay: d.underlay.Now, Connected: d.connected.Now, Poke: poke,
		Identity: d.state.Identity, MACs: macs, Blackhole: d.o.IPBlackholeRoute, Filtered: firewall.NewBypass().Why,
		Leftovers: ip.Scope{Links: slices.Clone(d.state.Links), Networks: slices.Clone(d.state.Networks)},
	}
}

// followUnderlay returns the interface to use once there is one, with an address of each family of the network.
func (d *daemon) followUnderlay(ctx context.Context, c subnet.Config) (*underlay.Live, error) {
	u, err := underlay.Follow(ctx, d.kernel, underlay.FollowOptions{
		Flags: underlay.Options{
			Ifaces: d.o.Iface, Regexes: d.o.IfaceRegex, CanReach: d.o.IfaceCanReach,
			PublicIPv4: d.o.PublicIP, PublicIPv6: d.o.PublicIPv6,
		},
		Families: underlay.FamiliesOf(c.Networks()), Home: d.state.Own.PublicIPs(), Log: d.log,
		Waiting: func(reason error) { d.status.Waiting("waiting for an interface: %v", reason) },
	})
	if err == nil {
		d.status.Waiting("waiting for a subnet")
	}
	return u, err
}
