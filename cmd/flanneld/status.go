package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"flanneld/api"
	"flanneld/backend"
	"flanneld/firewall"
	"flanneld/ip"
	"flanneld/probe"
	"flanneld/redact"
	"flanneld/subnet"
	"flanneld/systemd"
)

// sources are where the facts come from; what is nil says nothing yet.
type sources struct {
	alive    func() bool
	manager  leaseSource
	backend  backend.Backend
	datapath ownDatapath // in user space
	skipped  leftOut     // by the backend
	// forwarding says which links drop packets of pods.
	forwarding func() []string
}

// status is what the daemon tells about itself. Any goroutine may use it.
type status struct {
	notifier *systemd.Notifier
	errors   func() []api.Event
	prober   *probe.Prober
	log      *slog.Logger
	observe  func(took time.Duration, err error) // of each pass
	firewall func() firewall.PolicyStatus

	mu       sync.Mutex // guards all below
	fixed    api.Status // what does not change while the process lives, but for the identity
	from     sources
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

func newStatus(n *systemd.Notifier, log *slog.Logger) *status {
	return &status{
		notifier: n, log: log, where: "starting", files: map[string]string{}, errors: func() []api.Event { return []api.Event{} },
		prober: probe.New(probe.Options{}), observe: func(time.Duration, error) {},
		firewall: func() firewall.PolicyStatus { return firewall.PolicyStatus{} },
	}
}

// join sets where the facts come from.
func (s *status) join(from sources) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.from, s.awaited = from, subnet.Status{}
}

// identify sets the identity of a host that had that of another one.
func (s *status) identify(identity string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fixed.Identity = identity
}

// waiting says what the daemon waits for before its first pass.
func (s *status) waiting(format string, args ...any) {
	s.mu.Lock()
	s.where = fmt.Sprintf(format, args...)
	s.mu.Unlock()
	s.tell()
}

// awaiting takes in what the wait for the network configuration has found.
func (s *status) awaiting(found subnet.Status) {
	s.mu.Lock()
	s.awaited = found
	s.mu.Unlock()
	s.tell()
}

// begin notes the start of a pass.
func (s *status) begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.began = time.Now()
}

// file takes in whether a file that this host keeps could be written.
func (s *status) file(what string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.files, what)
	if err != nil {
		s.files[what] = err.Error()
	}
}

// member takes in why the embedded etcd does not serve; nil: it does.
func (s *status) member(err error) {
	s.mu.Lock()
	s.embedded = ""
	if err != nil {
		s.embedded = err.Error()
	}
	s.mu.Unlock()
	s.tell()
}

// pass takes in the outcome of a pass.
func (s *status) pass(v subnet.View, u ip.Underlay, err error, ready bool) {
	s.mu.Lock()
	s.view, s.underlay, s.ready = v, u, ready
	s.passes.Count++
	s.passes.Last, s.passes.Took, s.passes.LastErr = time.Now().UTC(), time.Since(s.began), ""
	if err != nil {
		s.passes.Failed++
		s.passes.LastErr = brief(err)
	}
	s.failing = newFailing(v.Peers, err)
	s.observe(s.passes.Took, err)
	s.mu.Unlock()
	s.tell()
	if ready {
		s.notifier.Ready()
	}
}

// tell logs a change of the state, and has the service manager show the present one.
func (s *status) tell() {
	findings := s.prober.Findings()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.noteDriftLocked()
	r := s.reportLocked(findings)
	s.notifier.Status(line(r))
	if r.State == s.state {
		return
	}
	first := s.state == "" || s.state == api.StateNotReady
	s.state = r.State
	if r.Ready && first {
		// Tools that wait for flannel look for "bootstrap done".
		s.log.Info("ready, bootstrap done", "subnet", r.Subnets, "backend", r.Backend, "mtu", r.MTU, "peers", r.Peers)
	}
	switch {
	case r.State == api.StateDegraded:
		s.log.Warn("degraded: packets flow, and something is wrong", "reasons", r.Reasons)
	case r.Ready && !first:
		s.log.Info("ready again, nothing is wrong any more")
	case !r.Ready && s.passes.Count > 0 && !s.drained:
		s.log.Warn("not ready", "reasons", r.Reasons)
	}
}

func (s *status) noteDriftLocked() {
	if s.from.backend == nil {
		return
	}
	totals := s.backendDriftLocked()
	totals["firewall"] = uint64(s.firewall().Drift)
	s.drift.note(totals, time.Now())
}

func (s *status) backendDriftLocked() map[string]uint64 {
	totals := map[string]uint64{}
	for k, n := range s.from.backend.Drift() {
		totals[ip.Kind(k).String()] = uint64(n)
	}
	return totals
}

// leave says that the host has left the network for good.
func (s *status) leave() {
	s.mu.Lock()
	s.drained, s.ready, s.from, s.view, s.failing = true, false, sources{}, subnet.View{}, failing{}
	s.where = "drained by the operator: restart the daemon to join again"
	clear(s.files)
	s.mu.Unlock()
	s.tell()
}

// Alive says why the daemon is stuck; nil: it is not.
func (s *status) Alive() error {
	s.mu.Lock()
	alive := s.from.alive
	s.mu.Unlock()
	if alive == nil || alive() {
		return nil
	}
	return errors.New("the control loop is stuck")
}

// Ready says why the data plane is not as it should be; nil: it is.
func (s *status) Ready() error {
	if r := s.readiness(); !r.Ready {
		return errors.New(r.Reason)
	}
	return nil
}

func (s *status) readiness() api.Ready {
	findings := s.prober.Findings()
	s.mu.Lock()
	defer s.mu.Unlock()
	state, reasons := s.conditionLocked(s.leaseLocked(), findings).judge()
	return api.Ready{Ready: s.ready, Reason: strings.Join(reasons, "; "), State: state}
}

func (s *status) leaseLocked() subnet.Status {
	if s.from.manager == nil {
		return s.awaited
	}
	return s.from.manager.Status()
}

func (s *status) conditionLocked(l subnet.Status, findings map[netip.Prefix]probe.Finding) condition {
	c := condition{
		ready: s.ready, waiting: s.where, lease: l, kept: s.view.Status.Stale, pass: s.passes.LastErr, files: s.files,
		embedded: s.embedded, changed: s.drift.kinds(time.Now()),
	}
	c.firewall = s.firewall().Problems
	if s.from.backend == nil {
		return c
	}
	if b, ok := s.from.backend.(interface{ Rival() string }); ok {
		c.rival = b.Rival()
	}
	if s.from.skipped != nil {
		c.routes = s.from.skipped.Problems()
	}
	if s.from.forwarding != nil {
		c.routes = slices.Concat(c.routes, s.from.forwarding())
	}
	c.peers = peerProblems(s.view.Peers, s.skippedLocked(), s.failing, findings, s.from.backend.MTU())
	if len(s.failing.single) > 0 {
		c.pass = "" // the peers are named
	}
	return c
}

// report collects the facts, those included that the kernel is asked for.
func (s *status) report() api.Status {
	findings := s.prober.Findings()
	s.mu.Lock()
	r, from := s.reportLocked(findings), s.from
	s.mu.Unlock()
	if from.backend == nil {
		return r
	}
	fw := s.firewall()
	r.Firewall, r.Drift["firewall"] = apiFirewall(fw), uint64(fw.Drift)
	r.Probes = summary(findings, r.MTU)
	if from.datapath != nil {
		r.Datapath = from.datapath.Counters()
	}
	r.Silent = silent(sessionsOf(from.backend))
	return r
}

func (s *status) reportLocked(findings map[netip.Prefix]probe.Finding) api.Status {
	l := s.leaseLocked()
	r := s.fixed
	r.Ready, r.Drained = s.ready, s.drained
	r.State, r.Reasons = s.conditionLocked(l, findings).judge()
	r.Reason = strings.Join(r.Reasons, "; ")
	r.Network, r.Backend = s.view.Config.Networks(), s.view.Config.BackendType
	if json.Valid([]byte(s.view.Text)) {
		r.Config = redact.Text([]byte(s.view.Text))
	}
	r.Interface, r.Chosen, r.Addresses, r.PublicIPs = s.underlay.Link, s.underlay.Reason, s.underlay.Addrs, s.underlay.PublicAddrs
	r.Subnets = s.view.Own.Prefixes()
	r.Lease = s.ownLeaseLocked(l)
	r.Peers, r.Failing = s.view.Peers.Len(), s.failing.count(s.view.Peers, s.skippedLocked())
	r.Kept, r.Skipped = s.view.Status.Stale, s.view.Status.Skipped
	r.StoreReason, r.Pending, r.Passes = l.StoreError, l.Pending, s.passes
	r.Drift, r.Errors = map[string]uint64{}, s.errors()
	if !l.StoreSince.IsZero() {
		since := l.StoreSince.UTC()
		r.StoreSince = &since
	}
	if m := s.from.manager; m != nil {
		at := m.Position()
		r.Revision, r.Cluster = at.Revision, strconv.FormatUint(at.Cluster, 16)
	}
	if b := s.from.backend; b != nil {
		r.MTU, r.Devices = b.MTU(), b.Scope().Links
		r.Drift = s.backendDriftLocked()
	}
	return r
}

func (s *status) ownLeaseLocked(l subnet.Status) api.Lease {
	lease := api.Lease{Held: l.Held, Reservation: l.Held && s.view.Until.IsZero()}
	if len(s.view.Self) > 0 && !s.view.Until.IsZero() {
		until := s.view.Until.UTC()
		lease.Until = &until
	}
	return lease
}

func apiFirewall(s firewall.PolicyStatus) *api.Firewall {
	f := api.Firewall{
		StrictIngress: s.Strict, Open: s.Open, Dropped: s.Dropped, Strangers: []api.Stranger{}, Problems: append([]string{}, s.Problems...),
	}
	for _, one := range s.Strangers {
		f.Strangers = append(f.Strangers, api.Stranger{Address: one.Addr, Packets: one.Packets})
	}
	return &f
}

// line is the one that "systemctl status" shows.
func line(r api.Status) string {
	text := r.State
	if r.Ready {
		var subnets []string
		for _, p := range r.Subnets {
			subnets = append(subnets, p.String())
		}
		text += fmt.Sprintf(": %s, %s, %d peers", strings.Join(subnets, " "), r.Backend, r.Peers)
	}
	if r.Skipped > 0 {
		text += fmt.Sprintf(", %d records skipped", r.Skipped)
	}
	if r.Reason != "" {
		text += ": " + r.Reason
	}
	return text
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

// leases returns all records of the network.
func (s *status) leases() api.Leases {
	s.mu.Lock()
	m := s.from.manager
	s.mu.Unlock()
	out := api.Leases{Records: []api.Record{}}
	if m == nil {
		return out
	}
	at, records := m.Inventory()
	out.Revision = at.Revision
	for _, r := range records {
		out.Records = append(out.Records, wireRecord(r))
	}
	return out
}

func wireRecord(l subnet.Listed) api.Record {
	r := api.Record{
		Key: l.Key, Subnets: l.Prefixes(), Host: l.Host, Identity: l.Identity, Reservation: len(l.Leases) > 0 && l.LeaseID == 0 && !l.Stale,
		Own: l.Own, Kept: l.Stale, Created: l.Created, Revision: l.Revision, Skipped: l.Skipped,
	}
	for _, lease := range l.Leases {
		r.PublicIPs = append(r.PublicIPs, lease.PublicIP)
		r.Backend = cmp.Or(r.Backend, lease.BackendType)
	}
	return r
}

// peers returns all peers of the last pass, sorted by subnet.
func (s *status) peers() []api.Peer {
	s.mu.Lock()
	peers, failing, skipped, from := s.view.Peers, s.failing, s.skippedLocked(), s.from.backend
	s.mu.Unlock()
	out := make([]api.Peer, 0, peers.Len())
	findings, sessions := s.prober.Findings(), sessionsOf(from)
	for l, r := range peers.Records() {
		why := cmp.Or(skipped[l.Subnet], failing.of(l))
		p := api.Peer{
			Subnet: l.Subnet, PublicIP: l.PublicIP, Host: r.Host, Backend: l.BackendType, Programmed: why == "", Reason: why,
		}
		if f, ok := findings[l.Subnet]; ok {
			p.Probe = wireProbe(f)
		}
		p.Session = wireSession(sessions, l.Subnet)
		out = append(out, p)
	}
	return out
}
