package status

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"flanneld/api"
	"flanneld/backend"
	"flanneld/firewall"
	"flanneld/ip"
	"flanneld/probe"
	"flanneld/subnet"
	"flanneld/systemd"
)

// Sources are where the facts about the network come from; what is nil says nothing yet.
type Sources struct {
	Alive    func() bool
	Leases   Leases
	Backend  Backend
	Datapath Datapath // in user space
	// Forwarding says which links drop packets of pods.
	Forwarding func() []string
	Sessions   func() map[netip.Prefix]api.Session // of encrypted tunnels, by subnet; nil: there are none
	Counting   []backend.Counting                  // they count the traffic of each peer
	// names another flannel that believes one of the devices to be its own; nil: nobody looks
	Owner    func() string
	NoProbes bool // the backend carries no packets
}

// Leases is what the status asks of the source of leases.
type Leases interface {
	Status() subnet.Status
	Position() subnet.Position
	Inventory() (subnet.Position, []subnet.Listed)
}

// Backend is what the status asks of a backend.
type Backend interface {
	MTU() int     // of pods
	PathMTU() int // the largest packet that every peer gets
	Scope() ip.Scope
	MACs() map[string]ip.MAC
	Drift() [ip.Kinds]int
	Rival() string                    // another flannel that changes the same objects
	Skipped() map[netip.Prefix]string // peers that are left out although their leases are valid, by subnet, and why
	Problems() []string               // all else that is left out
}

// Datapath is what a backend whose datapath is in user space says of it.
type Datapath interface {
	Counters() map[string]uint64 // since the start, by name
	Used() map[netip.Addr]bool   // hosts that packets were sent to since the last call
	Path() string                // where packets are carried, and why there
}

// Options are what New needs; all of it.
type Options struct {
	Process  api.Status // what does not change while the process lives, but for the identity
	Notifier *systemd.Notifier
	Journal  *Journal
	Firewall func() firewall.PolicyStatus
	Passed   func(took time.Duration, err error) // is called after each pass
	Probes   probe.Options                       // without what the status knows
	Used     func(link string) (map[netip.Addr]time.Duration, error)
	Log      *slog.Logger
}

// Status is what the daemon says about itself. Any goroutine may use it.
type Status struct {
	o      Options
	prober *probe.Prober

	mu       sync.Mutex // guards all below
	fixed    api.Status
	from     Sources
	where    string        // what is waited for before the first pass
	awaited  subnet.Status // as long as no source of leases is joined
	underlay ip.Underlay
	view     subnet.View
	passes   api.Passes
	began    time.Time // of the pass that is under way
	failing  failing
	files    map[string]string // errors of files that this host keeps, by what is in them
	embedded string            // why the embedded etcd does not serve
	drift    recurring
	ready    bool
	drained  bool
	state    string // that was logged last
}

// New returns the status of a daemon that starts.
func New(o Options) *Status {
	s := &Status{o: o, fixed: o.Process, where: "starting", files: map[string]string{}}
	site := &probeSite{status: s, used: o.Used, log: o.Log}
	o.Probes.Site, o.Probes.Busy, o.Probes.Forget = site.site, site.busy, site.forget
	o.Probes.Admit = rate.NewLimiter(probe.AnswerRate, probe.AnswerBurst).Allow
	s.prober = probe.New(o.Probes)
	return s
}

// Probe sends and answers probes until ctx ends.
func (s *Status) Probe(ctx context.Context) error { return s.prober.Run(ctx) }

// Join sets where the facts come from.
func (s *Status) Join(from Sources) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.from, s.awaited = from, subnet.Status{}
}

// Identify sets the identity of a host that had that of another one.
func (s *Status) Identify(identity string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fixed.Identity = identity
}

// Waiting says what the daemon waits for before its first pass.
func (s *Status) Waiting(format string, args ...any) {
	s.mu.Lock()
	s.where = fmt.Sprintf(format, args...)
	s.mu.Unlock()
	s.notify()
}

// Awaiting takes in what the wait for the network configuration has found.
func (s *Status) Awaiting(found subnet.Status) {
	s.mu.Lock()
	s.awaited = found
	s.mu.Unlock()
	s.notify()
}

// Begin notes the start of a pass.
func (s *Status) Begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.began = time.Now()
}

// File takes in whether a file that this host keeps could be written.
func (s *Status) File(what string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.files, what)
	if err != nil {
		s.files[what] = err.Error()
	}
}

// Member takes in why the embedded etcd does not serve; nil: it does.
func (s *Status) Member(err error) {
	s.mu.Lock()
	s.embedded = ""
	if err != nil {
		s.embedded = err.Error()
	}
	s.mu.Unlock()
	s.notify()
}

// Pass takes in the outcome of a pass.
func (s *Status) Pass(v subnet.View, u ip.Underlay, err error, ready bool) {
	s.mu.Lock()
	s.view, s.underlay, s.ready = v, u, ready
	s.passes.Count++
	s.passes.Last, s.passes.Took, s.passes.LastErr = time.Now().UTC(), time.Since(s.began), ""
	if err != nil {
		s.passes.Failed++
		s.passes.LastErr = brief(err)
	}
	s.failing = newFailing(v.Peers, err)
	s.o.Passed(s.passes.Took, err)
	s.mu.Unlock()
	s.notify()
	if ready {
		s.o.Notifier.Ready()
	}
}

// notify logs a change of the state, and has the service manager show the present one.
func (s *Status) notify() {
	findings := s.prober.Findings()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.noteDriftLocked()
	r := s.reportLocked(findings)
	s.o.Notifier.Status(line(r))
	if r.State == s.state {
		return
	}
	first := s.state == "" || s.state == api.StateNotReady
	s.state = r.State
	if r.Ready && first {
		// Tools that wait for flannel look for "bootstrap done".
		s.o.Log.Info("ready, bootstrap done", "subnet", r.Subnets, "backend", r.Backend, "mtu", r.MTU, "peers", r.Peers)
	}
	switch {
	case r.State == api.StateDegraded:
		s.o.Log.Warn("degraded: packets flow, but there is a fault", "reasons", r.Reasons)
	case r.Ready && !first:
		s.o.Log.Info("ready again, all faults are gone")
	case !r.Ready && s.passes.Count > 0 && !s.drained:
		s.o.Log.Warn("not ready", "reasons", r.Reasons)
	}
}

func (s *Status) noteDriftLocked() {
	if s.from.Backend == nil {
		return
	}
	totals := s.backendDriftLocked()
	totals["firewall"] = uint64(s.o.Firewall().Drift)
	s.drift.note(totals, time.Now())
}

func (s *Status) backendDriftLocked() map[string]uint64 {
	totals := map[string]uint64{}
	for k, n := range s.from.Backend.Drift() {
		totals[ip.Kind(k).String()] = uint64(n)
	}
	return totals
}

// Leave says that the host has left the network for good.
func (s *Status) Leave() {
	s.mu.Lock()
	s.drained, s.ready, s.from, s.view, s.failing = true, false, Sources{}, subnet.View{}, failing{}
	s.where = "drained by the operator: restart the daemon to join again"
	clear(s.files)
	s.mu.Unlock()
	s.notify()
}

// Alive says why the daemon is stuck; nil: it is not.
func (s *Status) Alive() error {
	s.mu.Lock()
	alive := s.from.Alive
	s.mu.Unlock()
	if alive == nil || alive() {
		return nil
	}
	return errors.New("the control loop is stuck")
}

// Ready says why the data plane is not as it should be; nil: it is.
func (s *Status) Ready() error {
	if r := s.Readiness(); !r.Ready {
		return errors.New(r.Reason)
	}
	return nil
}

func (s *Status) Readiness() api.Ready {
	findings := s.prober.Findings()
	s.mu.Lock()
	defer s.mu.Unlock()
	state, reasons := s.conditionLocked(s.leaseLocked(), findings).judge()
	return api.Ready{Ready: s.ready, Reason: strings.Join(reasons, "; "), State: state}
}

func (s *Status) leaseLocked() subnet.Status {
	if s.from.Leases == nil {
		return s.awaited
	}
	return s.from.Leases.Status()
}

func (s *Status) conditionLocked(l subnet.Status, findings map[netip.Prefix]probe.Finding) condition {
	c := condition{
		ready: s.ready, waiting: s.where, lease: l, kept: s.view.Status.Stale, pass: s.passes.LastErr, files: s.files,
		embedded: s.embedded, changed: s.drift.kinds(time.Now()),
	}
	c.firewall = s.o.Firewall().Problems
	if s.from.Backend == nil {
		return c
	}
	c.rival, c.routes = s.from.Backend.Rival(), s.from.Backend.Problems()
	if c.rival == "" && s.from.Owner != nil {
		c.rival = s.from.Owner()
	}
	if s.from.Forwarding != nil {
		c.routes = slices.Concat(c.routes, s.from.Forwarding())
	}
	c.peers = peerProblems(s.view.Peers, s.skippedLocked(), s.failing, findings, s.from.Backend.PathMTU())
	if len(s.failing.single) > 0 {
		c.pass = "" // the peers are named
	}
	return c
}

// brief is the text of an error, cut where a pass over a large cluster joins thousands.
func brief(err error) string {
	const most = 5
	lines := strings.Split(err.Error(), "\n")
	if len(lines) <= most {
		return strings.Join(lines, "; ")
	}
	return fmt.Sprintf("%s; and %d more", strings.Join(lines[:most], "; "), len(lines)-most)
}
