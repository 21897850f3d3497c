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

	"flanneld/firewall/foreign"
)

// RunWithoutWatch starts the firewall as start does, deaf to notifications.
func RunWithoutWatch(t testing.TB, f *Firewall, resync time.Duration,
	start func(testing.TB, *Firewall, time.Duration)) {
	f.edge = deaf{f.edge}
	start(t, f, resync)
}

// deaf takes every notification for an echo of its own.
type deaf struct{ edge }

func (deaf) own(uint32) bool { return true }

// Heal makes the pass that Run makes.
func Heal(f *Firewall) { f.heal(context.Background()) }

// lacking is a kernel without nf_tables.
type lacking struct{ edge }

var errLacking = errors.New("this kernel lacks nftables")

func (lacking) read(string) (table, error) { return table{}, errLacking }

func (lacking) replace(table) error { return errLacking }

func (lacking) remove(foreign.Table) error { return errLacking }

func (lacking) generation() (uint32, error) { return 0, errLacking }

func (lacking) diagnose() error { return errLacking }

// NewLacking returns a firewall of a kernel without nf_tables.
func NewLacking(log *slog.Logger) *Firewall {
	return newFirewall("", log, lacking{&netfilter{}}, foreign.Programs{})
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

func (p *Programs) Has(name string) bool {
	for line := range p.Print {
		if first, _, _ := strings.Cut(line, " "); first == name {
			return true
		}
	}
	return false
}

func (p *Programs) Run(_ context.Context, stdin, name string, args ...string) (string, error) {
	line := strings.Join(append([]string{name}, args...), " ")
	p.Ran = append(p.Ran, line+"\n"+stdin)
	out, ok := p.Print[line]
	if !ok {
		return "", errors.New("exit status 1")
	}
	return out, nil
}

func (p *Programs) Forwards(bool) bool { return true }

func (p *Programs) LegacyTables(is4 bool) []string {
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
	foreign.Runner
	n *atomic.Int64
}

func (c counting) Run(ctx context.Context, stdin, name string, args ...string) (string, error) {
	c.n.Add(1)
	return c.Runner.Run(ctx, stdin, name, args...)
}

// Count counts the programs that the firewall runs from now on.
func Count(f *Firewall) *atomic.Int64 {
	n := new(atomic.Int64)
	f.host.Runner = counting{f.host.Runner, n}
	return n
}

// Judge reports whether a datagram of notifications makes the table stale, and what it needs in tables of others.
func Judge(b []byte) (table, host bool) {
	f := newFirewall("", slog.New(slog.DiscardHandler), &netfilter{}, foreign.Programs{})
	f.hostStale.Store(false)
	f.take(b)
	return f.tableStale.Load(), f.hostStale.Load()
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
	f := newFirewall("", log, dropping{&netfilter{}, senders}, foreign.Programs{})
	f.known, f.rules = true, Rules{Ingress: Ingress{[]Tunnel{{Port: 8472}}, peers}}
	return f.Status()
}
