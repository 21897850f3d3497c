package main

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"flanneld/api"
	"flanneld/backend"
	"flanneld/backend/vxlan"
	"flanneld/ip"
	"flanneld/ip/masq"
	"flanneld/options"
	"flanneld/subnet"
)

// wall turns flags and leases into the rules of the firewall. Any goroutine may use it.
type wall struct {
	o        options.Options
	log      *slog.Logger
	firewall *masq.Firewall
	resync   time.Duration

	mu     sync.Mutex // guards all below
	strict bool       // tunnelled packets are accepted from peers only
	open   string     // why not
	failed string     // last error that was logged
}

func newWall(o options.Options, log *slog.Logger) *wall {
	network := ""
	if o.EtcdPrefix != options.Defaults().EtcdPrefix {
		network = o.EtcdPrefix
	}
	return &wall{o: o, log: log, firewall: masq.New(network, log), resync: o.IPTablesResync}
}

// run keeps the rules in place until ctx ends; they stay.
func (w *wall) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return w.firewall.Watch(ctx) })
	g.Go(func() error { return w.firewall.Run(ctx, w.resync) })
	return g.Wait()
}

// remove takes the rules away.
func (w *wall) remove() error { return w.firewall.Set(masq.Rules{}) }

// guarded is a backend behind the firewall: a peer's packets are admitted before any route leads to it. Set is called by one goroutine.
type guarded struct {
	backend.Backend
	wall     *wall
	networks []netip.Prefix
	tunnel   masq.Ingress // without peers; port 0: nothing to close
	underlay func() ip.Underlay
	senders  Senders
}

// guard puts a backend behind the firewall.
func (w *wall) guard(b backend.Backend, c subnet.Config, underlay func() ip.Underlay) backend.Backend {
	g := &guarded{Backend: b, wall: w, networks: c.Networks(), underlay: underlay}
	if o, err := vxlan.ParseOptions(c.Backend); c.BackendType == vxlan.Type && err == nil {
		g.tunnel = masq.Ingress{Port: o.Port, VXLAN: true, VNI: o.VNI}
	}
	return g
}

// Set implements backend.Backend. A firewall that is not as it should be holds up no routes; it is tried again by itself, and the
// status shows it.
func (g *guarded) Set(self []subnet.Lease, peers subnet.Peers) error {
	o := g.wall.o
	r := masq.Rules{Networks: g.networks, Masquerade: o.IPMasq, FullyRandom: !o.IPMasqFullyRandomDisable, Forward: o.IPTablesForwardRules}
	for _, l := range self {
		r.Subnets = append(r.Subnets, l.Subnet)
	}
	open := ""
	switch {
	case g.tunnel.Port == 0:
	case !o.StrictIngress:
		open = "-strict-ingress=false"
	default:
		var admitted masq.Addrs
		if admitted, open = g.senders.Follow(g.underlay(), peers); open == "" {
			r.Ingress = g.tunnel
			r.Ingress.Peers = admitted
		}
	}
	g.wall.note(r.Ingress.Port != 0, open, g.wall.firewall.Set(r))
	return g.Backend.Set(self, peers)
}

// withUnderlay adds the host's own address where peers are told another one.
func withUnderlay(a subnet.Attrs, own netip.Addr) subnet.Attrs {
	if own.IsValid() && own != a.PublicIP {
		a.Underlay = own
	}
	return a
}

// note remembers, and says when it changes, whether the tunnel is closed to strangers, and whether the firewall could be set.
func (w *wall) note(strict bool, open string, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if open != w.open && open != "" {
		w.log.Warn("tunnelled packets are accepted from anybody", "reason", open)
	}
	if open == "" && w.open != "" {
		w.log.Info("tunnelled packets are accepted from peers only")
	}
	w.strict, w.open = strict, open
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != w.failed && err != nil {
		w.log.Error("firewall not as it should be, trying again", "error", err)
	}
	w.failed = text
}

// report returns what the status shows of the firewall, and how much of it others had changed.
func (w *wall) report() (api.Firewall, uint64) {
	s := w.firewall.Status()
	w.mu.Lock()
	defer w.mu.Unlock()
	f := api.Firewall{StrictIngress: w.strict, Open: w.open, Dropped: s.Dropped, Strangers: []api.Stranger{}, Problems: append([]string{}, s.Problems...)}
	for _, one := range s.Strangers {
		f.Strangers = append(f.Strangers, api.Stranger{Address: one.Addr, Packets: one.Packets})
	}
	return f, uint64(s.Drift)
}
