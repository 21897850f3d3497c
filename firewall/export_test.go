package firewall

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// RunWithoutWatch starts the firewall as start does, deaf to notifications.
func RunWithoutWatch(t testing.TB, f *Firewall, resync time.Duration, start func(testing.TB, *Firewall, time.Duration)) {
	f.edge = deaf{f.edge}
	start(t, f, resync)
}

// deaf takes every notification for an echo of its own.
type deaf struct{ edge }

func (deaf) own(uint32) bool { return true }

// PlanForward returns the lines that let the networks pass in a table filter that "iptables -S" printed.
func PlanForward(text string, r Rules) []string {
	t := parseIPT(text)
	return t.plan(forwardHook(namesOf("").forward, t, r.normal().Networks))
}

// PlanLeftovers returns the lines that remove what flannel has left in a table.
func PlanLeftovers(table, text string) []string { return planLeftovers(table, parseIPT(text)) }

// Heal makes the pass that Run makes.
func Heal(f *Firewall) { f.heal(context.Background()) }

// lacking is a kernel without nf_tables.
type lacking struct{ edge }

var errLacking = errors.New("this kernel lacks nftables")

func (lacking) read(string) (table, error) { return table{}, errLacking }

func (lacking) replace(table) error { return errLacking }

func (lacking) remove(foreignTable) error { return errLacking }

func (lacking) generation() (uint32, error) { return 0, errLacking }

func (lacking) diagnose() error { return errLacking }

// NewLacking returns a firewall of a kernel without nf_tables.
func NewLacking(log *slog.Logger) *Firewall {
	return newFirewall("", log, lacking{&netfilter{}}, execRunner{})
}

// Recover gives the kernel what it lacked.
func Recover(f *Firewall) {
	f.edge = f.edge.(lacking).edge
	f.tableStale.Store(true)
}

// Programs is a host with these programs only, and what they print by "name arguments".
type Programs struct {
	Print  map[string]string
	Legacy []string // tables in use
	Ran    []string
}

func (p *Programs) has(name string) bool {
	for line := range p.Print {
		if first, _, _ := strings.Cut(line, " "); first == name {
			return true
		}
	}
	return false
}

func (p *Programs) run(_ context.Context, stdin, name string, args ...string) (string, error) {
	line := strings.Join(append([]string{name}, args...), " ")
	p.Ran = append(p.Ran, line+"\n"+stdin)
	out, ok := p.Print[line]
	if !ok {
		return "", errors.New("exit status 1")
	}
	return out, nil
}

func (p *Programs) forwards(bool) bool { return true }

func (p *Programs) legacyTables(is4 bool) []string {
	if !is4 {
		return nil
	}
	return p.Legacy
}

// NewWith returns a firewall of a host with these programs. lacking: its kernel has no nf_tables.
func NewWith(log *slog.Logger, p *Programs, isLacking bool) *Firewall {
	if isLacking {
		return newFirewall("", log, lacking{&netfilter{}}, p)
	}
	return newFirewall("", log, &netfilter{}, p)
}

// Diagnose says what the kernel lacks.
func Diagnose() error { return (&netfilter{}).diagnose() }

// counting counts the runs of programs.
type counting struct {
	runner
	n *atomic.Int64
}

func (c counting) run(ctx context.Context, stdin, name string, args ...string) (string, error) {
	c.n.Add(1)
	return c.runner.run(ctx, stdin, name, args...)
}

// Count counts the programs that the firewall runs from now on.
func Count(f *Firewall) *atomic.Int64 {
	n := new(atomic.Int64)
	f.host.runner = counting{f.host.runner, n}
	return n
}

// Judge reports whether a datagram of notifications makes the table stale, and what it needs in tables of others.
func Judge(b []byte) (table, host bool) {
	f := newFirewall("", slog.New(slog.DiscardHandler), &netfilter{}, execRunner{})
	f.hostStale.Store(false)
	f.take(b)
	return f.tableStale.Load(), f.hostStale.Load()
}

// PlanAll makes every plan for a table that a program has printed.
func PlanAll(text string, r Rules) []string {
	lines := PlanForward(text, r)
	for table := range leftovers {
		lines = append(lines, PlanLeftovers(table, text)...)
	}
	return append(lines, parseIPT(text).plan(masqueradeHook("X", r.normal(), true))...)
}

// dropping is a kernel that has dropped packets of these senders.
type dropping struct {
	edge
	senders []NonPeer
}

func (c dropping) dropped(table) (packets uint64, nonPeers []NonPeer, err error) {
	for _, s := range c.senders {
		packets += s.Packets
	}
	return packets, slices.Clone(c.senders), nil
}

// StatusAfterDrops returns the status of a firewall that admits these peers and has dropped packets of these senders.
func StatusAfterDrops(log *slog.Logger, peers Addrs, senders []NonPeer) Status {
	f := newFirewall("", log, dropping{&netfilter{}, senders}, execRunner{})
	f.known, f.rules = true, Rules{Ingress: Ingress{Port: 8472, Peers: peers}}
	return f.Status()
}
