package firewall

import (
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"flanneld/firewall/foreign"
)

// names are those of what we make. A second network on the same host has others.
type names struct {
	table   string // of the family inet
	forward string // chain of iptables with accept rules
	nat     string // chain of iptables that stands in for ours
}

// namesOf returns the names for a network; the usual one is the empty text.
func namesOf(network string) names {
	n := names{"flannel", "FLANNELD-FORWARD", "FLANNELD-POSTRTG"}
	if network == "" {
		return n
	}
	sum := sha256.Sum256([]byte(network))
	suffix := fmt.Sprintf("-%x", sum[:4])
	return names{n.table + suffix, n.forward + suffix, n.nat + suffix} // chains of iptables have 28 letters at most
}

// edge is the seam to nf_tables of the network namespace. One goroutine uses it at a time.
type edge interface {
	// generation returns the number of the ruleset, that each transaction of whomever raises.
	generation() (uint32, error)
	// read returns our table; the zero value if there is none.
	read(name string) (table, error)
	// replace makes the table stand like this in one transaction, whatever stood before.
	replace(t table) error
	// update changes elements of sets of a table in one transaction.
	update(name string, changes []change) error
	// remove deletes a table that stands.
	remove(t foreign.Table) error
	// chains returns the chains of all tables of the namespace.
	chains() ([]foreign.Chain, error)
	// lead makes the rules of a chain that carry a mark these, before all others, and reports whether that was a change.
	lead(c foreign.Chain, mark string, rules []rule) (bool, error)
	// dropped returns what the table has dropped since it was written.
	dropped(t table) (uint64, []NonPeer, error)
	// diagnose says what the kernel lacks for the table, nil if nothing.
	diagnose() error
	// own reports whether a notification of a netlink port is the echo of what we did.
	own(port uint32) bool
}

// Firewall makes the packet filter what the rules say, and keeps it so. All methods but Run and Watch may be called by
// any goroutine.
//
//	Set ───────────────────────────────┐
//	notification of the kernel ─▶ stale ├─▶ read if stale ──────▶ differs? one transaction
//	resync tick: new generation ─▶ stale┘
type Firewall struct {
	log   *slog.Logger
	names names
	edge  edge
	host  *foreign.Filter
	wake  chan struct{} // capacity 1

	tableStale, hostStale atomic.Bool // others may have changed what is ours

	mu       sync.Mutex // guards all below, and the edge
	rules    Rules      // normal
	given    bool       // somebody has set them
	have     table      // what the kernel held after the last clean pass
	known    bool       // and still holds
	clean    bool       // there was one
	seen     uint32     // generation of the ruleset at the last tick
	drift    int
	lacks    error // what the kernel lacks, so that iptables stands in
	failed   error // of the last pass
	problems []string
	admitted bool // firewalld's table has our rules
	blocked  bool // the kernel forwards nothing
	drops    drops
}

// New returns a firewall of the network namespace of the process. It does nothing until it is given rules. A name tells
// apart the networks of a host that has several; the usual one has none.
func New(network string, log *slog.Logger) *Firewall {
	return newFirewall(network, log, &netfilter{}, foreign.Programs{})
}

func newFirewall(network string, log *slog.Logger, e edge, r foreign.Runner) *Firewall {
	n := namesOf(network)
	f := &Firewall{log: log, names: n, edge: e, wake: make(chan struct{}, 1)}
	f.host = &foreign.Filter{Log: log, Names: foreign.Names{Forward: n.forward, NAT: n.nat}, Runner: r}
	f.hostStale.Store(true)
	return f
}

// Set makes our table that of these rules before it returns. What is to be done in tables of others follows in Run. It
// is idempotent; after an error Run tries again.
func (f *Firewall) Set(r Rules) error {
	r = r.normal()
	f.mu.Lock()
	defer f.mu.Unlock()
	last, first := f.rules, !f.given
	f.rules, f.given = r, true
	if last.equal(r) && f.known && !f.tableStale.Load() {
		return nil
	}
	last.Ingress = r.Ingress
	if first || !last.equal(r) {
		f.hostStale.Store(true)
		f.poke()
	}
	err := f.passLocked()
	if err != nil {
		f.poke()
	}
	return err
}

// invalidate takes in that others may have changed what is ours.
func (f *Firewall) invalidate(table, host bool) {
	if table {
		f.tableStale.Store(true)
	}
	if host {
		f.hostStale.Store(true)
	}
	if table || host {
		f.poke()
	}
}

func (f *Firewall) poke() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// tries is how often a pass starts over when a transaction fails because others changed the table since it was read.
const tries = 2

// passLocked makes our table what it should be.
func (f *Firewall) passLocked() error {
	want := render(f.names.table, f.rules)
	var err error
	for range tries {
		if err = f.tryLocked(want); err == nil {
			break
		}
	}
	if err != nil {
		if lacks := f.edge.diagnose(); lacks != nil {
			err = f.standInLocked(lacks)
		}
	} else if f.lacks != nil {
		f.lacks = nil
		f.hostStale.Store(true)
	}
	f.failed = err
	return err
}

// standInLocked lets iptables do what the kernel cannot do by nf_tables, and returns what nobody does then.
func (f *Firewall) standInLocked(lacks error) error {
	if f.lacks == nil {
		f.log.Warn("nftables is not available, using iptables", "reason", lacks)
		f.hostStale.Store(true)
		f.poke()
	}
	f.lacks = lacks
	if len(f.rules.Ingress.Tunnels) > 0 {
		return fmt.Errorf("the tunnel port accepts packets from any host: %w", lacks)
	}
	return nil
}

func (f *Firewall) tryLocked(want table) error {
	if f.tableStale.Swap(false) {
		f.known = false
	}
	if !f.known {
		found, err := f.edge.read(f.names.table)
		if err != nil {
			f.log.Debug("own table not readable", "error", err)
			found = table{name: f.names.table, flags: unreadable}
		}
		f.compareLocked(found)
		f.have = found
	}
	f.known = false
	if err := f.applyLocked(want); err != nil {
		return err
	}
	f.have, f.known, f.clean = want, true, true
	return nil
}

// unreadable marks a table that differs from every other one.
const unreadable = 1 << 31

// compareLocked counts what others have changed since the last clean pass.
func (f *Firewall) compareLocked(found table) {
	if !f.clean {
		return
	}
	if n := differences(f.have, found); n > 0 {
		f.drift += n
		f.log.Warn("drift repaired", "kind", "firewall", "object", "table inet "+f.names.table, "count", n,
			"gone", found.name == "")
	}
}

func (f *Firewall) applyLocked(want table) error {
	switch {
	case want.name == "" && f.have.name == "":
		return nil
	case want.name == "":
		f.log.Info("firewall table removed", "table", f.names.table)
		return f.edge.remove(foreign.Table{Family: foreign.INet, Name: f.names.table})
	case f.have.shape() != want.shape():
		f.log.Info("firewall table written", "table", f.names.table, "sets", len(want.sets), "chains", len(want.chains))
		f.drops.restart()
		return f.edge.replace(want)
	}
	if c := changes(f.have, want); len(c) > 0 {
		f.log.Debug("firewall sets updated", "table", f.names.table, "sets", len(c))
		return f.edge.update(f.names.table, c)
	}
	return nil
}

const (
	// pause is the least time between two passes of Run. With something that removes what is ours again and again, it
	// also bounds what that costs.
	pause = 200 * time.Millisecond
	// firstRetry and lastRetry bound the growing pause after a pass that failed.
	firstRetry, lastRetry = time.Second, 30 * time.Second
)

// Run heals what others change: as soon as Watch tells, and at each resync. It returns nil when ctx ends.
func (f *Firewall) Run(ctx context.Context, resync time.Duration) error {
	tick := time.NewTicker(resync)
	defer tick.Stop()
	retry := time.NewTimer(0)
	defer retry.Stop()
	var wait time.Duration
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-f.wake:
		case <-retry.C:
		case <-tick.C:
			f.invalidateAfterTick()
		}
		if f.heal(ctx) {
			wait = 0
		} else {
			wait = min(max(2*wait, firstRetry), lastRetry)
			retry.Reset(wait)
		}
		sleep(ctx, pause)
	}
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// invalidateAfterTick invalidates everything if a transaction has taken place since the last tick: notifications may be
// lost. The legacy iptables tell nobody.
func (f *Firewall) invalidateAfterTick() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if g, err := f.edge.generation(); err != nil || g != f.seen {
		f.seen = g
		f.tableStale.Store(true)
		f.hostStale.Store(true)
	}
	blocked := len(foreign.Unforwarded(f.host.Runner, f.rules.Networks)) > 0
	if f.host.LegacyInUse() || blocked != f.blocked {
		f.hostStale.Store(true)
	}
	f.blocked = blocked
}

// heal makes one pass over everything, and reports whether all is as it should be.
func (f *Firewall) heal(ctx context.Context) bool {
	f.mu.Lock()
	if !f.given {
		f.mu.Unlock()
		return true
	}
	var err error
	if f.tableStale.Load() || !f.known {
		err = f.passLocked()
	}
	f.dropsLocked()
	look, rules, lacks := f.hostStale.Swap(false), f.rules, f.lacks
	var chains []foreign.Chain
	if look && lacks == nil {
		var listed error
		if chains, listed = f.edge.chains(); listed != nil {
			f.hostStale.Store(true)
			f.log.Debug("chains not readable", "error", listed)
			f.mu.Unlock()
			return false
		}
	}
	f.mu.Unlock()
	if look {
		f.lookAround(ctx, rules, chains, lacks)
	}
	return err == nil && !f.hostStale.Load()
}

// lookAround does what is to be done in the tables of others.
func (f *Firewall) lookAround(ctx context.Context, rules Rules, chains []foreign.Chain, lacks error) {
	out := f.host.Pass(ctx, foreign.Input{Rules: rules.foreign(), Chains: chains, StandIn: lacks != nil})
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, t := range out.Tables {
		if err := f.edge.remove(t); err != nil {
			out.Problems = append(out.Problems, err.Error())
		} else {
			f.log.Info("table of flannel removed", "table", t.String())
		}
	}
	f.drift += out.Drift
	if obstacle := f.admitLocked(ctx, rules, chains); obstacle != "" {
		out.Problems = append(out.Problems, obstacle)
	}
	f.sayLocked(append(out.Problems, foreign.Unforwarded(f.host.Runner, rules.Networks)...))
	if out.Failed {
		f.hostStale.Store(true)
	}
}

// sayLocked logs what is new of the problems, and that none is left.
func (f *Firewall) sayLocked(problems []string) {
	for _, p := range problems {
		if !slices.Contains(f.problems, p) {
			f.log.Warn("forwarding or masquerading is incomplete", "reason", p)
		}
	}
	if len(problems) == 0 && len(f.problems) > 0 {
		f.log.Info("forwarding and masquerading are complete again")
	}
	f.problems = problems
}
