package firewall

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"flanneld/ip"
	"flanneld/subnet"
)

// PolicyOptions say what the firewall is to do on this host.
type PolicyOptions struct {
	Network       string // its table has this in its name; empty: the usual network
	Masquerade    bool
	FullyRandom   bool
	Forward       bool
	StrictIngress bool          // accept tunnelled packets from peers only
	Resync        time.Duration // longest time until a missing rule is restored
	Log           *slog.Logger
}

// Policy turns flags and leases into the rules of the firewall. Any goroutine may use it.
type Policy struct {
	o        PolicyOptions
	firewall *Firewall

	mu     sync.Mutex // guards all below
	strict bool       // tunnel packets are accepted from peers only
	open   string     // why not
	failed string     // last error that was logged
}

// NewPolicy returns a policy without rules.
func NewPolicy(o PolicyOptions) *Policy {
	return &Policy{o: o, firewall: New(o.Network, o.Log)}
}

// Run keeps the rules in place until ctx ends; they stay.
func (p *Policy) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return p.firewall.Watch(ctx) })
	g.Go(func() error { return p.firewall.Run(ctx, p.o.Resync) })
	return g.Wait()
}

// Remove takes the rules away.
func (p *Policy) Remove() error { return p.firewall.Set(Rules{}) }

// Applier applies the policy to the leases of one network. Set is called by one goroutine.
type Applier struct {
	policy   *Policy
	networks []netip.Prefix
	tunnels  func() []Tunnel
	underlay func() ip.Underlay
	sources  Sources
}

// Join returns what applies the policy to a network. tunnels returns what may be closed to others than peers.
func (p *Policy) Join(networks []netip.Prefix, tunnels func() []Tunnel, underlay func() ip.Underlay) *Applier {
	return &Applier{policy: p, networks: networks, tunnels: tunnels, underlay: underlay}
}

// Set applies the policy to these leases. It is to be called before any route leads to a new peer, so that packets of
// the peer are admitted. A failure is retried and shown in the status; it must not hold up the routes.
func (a *Applier) Set(self []subnet.Lease, peers subnet.Peers) {
	o := a.policy.o
	r := Rules{Networks: a.networks, Masquerade: o.Masquerade, FullyRandom: o.FullyRandom, Forward: o.Forward}
	for _, l := range self {
		r.Subnets = append(r.Subnets, l.Subnet)
	}
	open, tunnels := "", a.tunnels()
	switch {
	case len(tunnels) == 0:
	case !o.StrictIngress:
		open = "-strict-ingress=false"
	default:
		var admitted Addrs
		if admitted, open = a.sources.Follow(a.underlay(), peers); open == "" {
			r.Ingress = Ingress{tunnels, admitted}
		}
	}
	a.policy.note(len(r.Ingress.Tunnels) > 0, open, a.policy.firewall.Set(r))
}

// note remembers, and logs when it changes, whether the tunnel accepts packets of peers only, and whether the firewall
// could be set.
func (p *Policy) note(strict bool, open string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if open != p.open && open != "" {
		p.o.Log.Warn("tunnel packets are accepted from any host", "reason", open)
	}
	if open == "" && p.open != "" {
		p.o.Log.Info("tunnel packets are accepted from peers only")
	}
	p.strict, p.open = strict, open
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != p.failed && err != nil {
		p.o.Log.Error("firewall update failed, retrying", "error", err)
	}
	p.failed = text
}

// PolicyStatus is what there is to say about a policy.
type PolicyStatus struct {
	Status
	Strict bool   // tunnel packets are accepted from peers only
	Open   string // why not
}

// Status returns how the firewall is.
func (p *Policy) Status() PolicyStatus {
	s := p.firewall.Status()
	p.mu.Lock()
	defer p.mu.Unlock()
	return PolicyStatus{s, p.strict, p.open}
}
