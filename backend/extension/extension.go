package extension

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"flanneld/backend"
	"flanneld/backend/extension/options"
	"flanneld/ip"
	"flanneld/subnet"
)

// atOnce is how many commands run at the same time.
const atOnce = 8

// patience is how long a pass waits for its commands; those that take longer go on, and a later pass takes their
// results.
const patience = 5 * time.Second

// Type is the name of the backend in the network configuration and in records.
const Type = options.Type

// Backend is a backend.Planner whose datapath are commands.
type Backend struct {
	host    ip.Host
	owns    ip.Scope // nothing, or the networks that the host's own routes are in
	fold    *backend.Fold
	config  subnet.Config
	options options.Options
	data    string // what is published, JSON
	runner  runner
	stop    context.CancelFunc
	slots   chan struct{}
	running sync.WaitGroup

	mu     sync.Mutex // guards all below
	closed bool
	ready  peer // what PostStartupCommand has succeeded for
	states map[netip.Prefix]*state
	from   ip.Underlay // of the last pass
	lost   lost        // of the underlay
	again  bool        // the underlay has been away: the next pass runs all commands again
	round  int         // how often that was
}

// StartupError says that PreStartupCommand has failed. What it needs may come, so that New is worth another try.
type StartupError struct{ Err error }

func (e *StartupError) Error() string { return fmt.Sprintf("PreStartupCommand: %v", e.Err) }

func (e *StartupError) Unwrap() error { return e.Err }

// New reads the options and runs PreStartupCommand, whose standard output is published with the lease. former are the
// peers of earlier runs: of those that have left since, the first pass removes what the commands had made.
func New(ctx context.Context, c subnet.Config, h ip.Host, former []subnet.Record) (*Backend, error) {
	return start(ctx, c, h, timeLimit, former)
}

func start(ctx context.Context, c subnet.Config, h ip.Host, limit time.Duration,
	former []subnet.Record) (*Backend, error) {
	b, err := newBackend(c, h, limit)
	if err != nil {
		return nil, err
	}
	if err := b.preStartup(ctx); err != nil {
		b.stop()
		return nil, err
	}
	b.remember(former)
	return b, nil
}

func newBackend(c subnet.Config, h ip.Host, limit time.Duration) (*Backend, error) {
	o, err := options.Parse(c.Backend)
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	b := &Backend{
		host: h, fold: backend.NewFold(h), config: c, options: o,
		runner: runner{ctx, limit}, stop: stop, slots: make(chan struct{}, atOnce), states: map[netip.Prefix]*state{},
	}
	if h.Blackhole {
		b.owns.Networks = c.Networks()
	}
	return b, nil
}

// preStartup runs PreStartupCommand. It ends with ctx as well: nobody else can end it before Run.
func (b *Backend) preStartup(ctx context.Context) error {
	if len(b.options.PreStartup) == 0 {
		return nil
	}
	printed, said, err := runner{ctx, b.runner.limit}.run(b.options.PreStartup, nil, "")
	if err != nil {
		return &StartupError{err}
	}
	b.host.Log.Info("command finished", "command", words(b.options.PreStartup), "output", said)
	data, err := json.Marshal(printed)
	b.data = string(data)
	return err
}

// Attrs implements backend.Planner.
func (b *Backend) Attrs(prefix netip.Prefix) subnet.Attrs {
	return subnet.Attrs{PublicIP: b.host.Underlay().PublicAddr(prefix), BackendType: Type, BackendData: b.data}
}

// MTU implements backend.Planner.
func (b *Backend) MTU() int { return b.host.Underlay().MTU }

// Valid implements backend.Planner.
func (b *Backend) Valid(l subnet.Lease) error {
	if _, err := parseData(l.BackendData); err != nil {
		return errors.New("its backend data are no JSON string")
	}
	return nil
}

// Owns implements backend.Planner.
func (b *Backend) Owns() ip.Scope { return b.owns }

// Plan implements backend.Planner. All that leads to the peers is made by the commands.
func (b *Backend) Plan(self []subnet.Lease, _ subnet.Peers) (ip.Snapshot, error) {
	b.fold.Start(self, nil)
	return b.fold.Snapshot(), nil
}

// Open implements backend.Datapath.
func (b *Backend) Open([]subnet.Lease, subnet.Peers) error { return nil }

// Carry implements backend.Datapath.
func (b *Backend) Carry(self []subnet.Lease, peers subnet.Peers) error {
	b.followUnderlay(b.host.Underlay())
	if err := b.postStartup(self); err != nil {
		return err
	}
	hosts := peersOf(peers)
	b.await(b.begin(hosts))
	return b.failures(hosts).orNil()
}

// postStartup runs PostStartupCommand, unless it has succeeded for the same leases.
func (b *Backend) postStartup(self []subnet.Lease) error {
	u, own := b.host.Underlay(), peer{}
	network := ""
	for _, l := range self {
		if l.Subnet.Addr().Is4() {
			own.subnet4, own.public4 = l.Subnet, u.PublicAddr(l.Subnet)
		} else {
			own.subnet6, own.public6 = l.Subnet, u.PublicAddr(l.Subnet)
		}
	}
	if n := b.config.Networks(); len(n) > 0 {
		network = n[0].String()
	}
	b.mu.Lock()
	done := b.ready == own || len(b.options.PostStartup) == 0
	b.mu.Unlock()
	if done {
		return nil
	}
	_, said, err := b.runner.run(b.options.PostStartup, append(own.vars(), "NETWORK="+network), "")
	if err != nil {
		return fmt.Errorf("PostStartupCommand: %w", err)
	}
	b.host.Log.Info("command finished", "command", words(b.options.PostStartup), "output", said)
	b.mu.Lock()
	b.ready = own
	b.mu.Unlock()
	return nil
}

// Run implements backend.Datapath: commands that run when it ends are killed.
func (b *Backend) Run(ctx context.Context) error {
	<-ctx.Done()
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	b.stop()
	b.running.Wait()
	return nil
}
