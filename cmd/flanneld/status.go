package main

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"flanneld/ip"
	"flanneld/subnet"
)

// Report is what /status shows: the daemon's picture of the network, for an operator and for scripts.
type Report struct {
	Version     string            `json:"version"`
	Ready       bool              `json:"ready"`
	Reason      string            `json:"reason,omitempty"` // why not ready, or what is not as it should be
	Interface   string            `json:"interface,omitempty"`
	Backend     string            `json:"backend,omitempty"`
	Subnets     []string          `json:"subnets"`
	Peers       int               `json:"peers"`
	Kept        int               `json:"kept_peers"` // lost by the store, still forwarded to
	Skipped     int               `json:"skipped_records"`
	StoreSince  *time.Time        `json:"store_unreachable_since,omitempty"`
	StoreReason string            `json:"store_error,omitempty"`
	Pending     string            `json:"pending,omitempty"` // waits for a restart
	Drift       map[string]uint64 `json:"drift"`             // objects changed by others and repaired, by kind
}

// status is what the daemon tells about itself. Any goroutine may use it.
type status struct {
	notifier *Notifier

	mu     sync.Mutex // guards all below
	alive  func() bool
	lease  func() subnet.Status
	drift  func() [ip.Kinds]int
	where  string // what is waited for before the first pass
	iface  string
	view   subnet.View
	failed error // of the last pass
	ready  bool
}

func newStatus(n *Notifier) *status {
	s := &status{notifier: n, where: "starting"}
	s.join(nil, nil, nil)
	return s
}

// join sets where the facts come from; nil: from nowhere yet.
func (s *status) join(alive func() bool, lease func() subnet.Status, drift func() [ip.Kinds]int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.alive, s.lease, s.drift = func() bool { return true }, func() subnet.Status { return subnet.Status{} }, func() [ip.Kinds]int { return [ip.Kinds]int{} }
	if alive != nil {
		s.alive = alive
	}
	if lease != nil {
		s.lease = lease
	}
	if drift != nil {
		s.drift = drift
	}
}

// waiting says what the daemon waits for before its first pass.
func (s *status) waiting(format string, args ...any) {
	s.mu.Lock()
	s.where = fmt.Sprintf(format, args...)
	s.mu.Unlock()
	s.notifier.Status(s.line())
}

// pass takes in the outcome of a pass.
func (s *status) pass(v subnet.View, iface string, err error, ready bool) {
	s.mu.Lock()
	s.view, s.iface, s.failed, s.ready = v, iface, err, ready
	s.mu.Unlock()
	s.notifier.Status(s.line())
	if ready {
		s.notifier.Ready()
	}
}

// Alive says why the daemon is stuck; nil: it is not.
func (s *status) Alive() error {
	s.mu.Lock()
	alive := s.alive
	s.mu.Unlock()
	if alive() {
		return nil
	}
	return errors.New("the control loop is stuck")
}

// Ready says why the data plane is not as it should be; nil: it is.
func (s *status) Ready() error {
	r := s.report()
	if r.Ready {
		return nil
	}
	return errors.New(r.Reason)
}

// report collects the facts.
func (s *status) report() Report {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.lease()
	r := Report{
		Version: version, Ready: s.ready, Interface: s.iface, Backend: s.view.Config.BackendType, Subnets: []string{},
		Peers: len(s.view.Peers), Kept: s.view.Status.Ghosts, Skipped: s.view.Status.Skipped,
		StoreReason: l.StoreError, Pending: l.Pending, Drift: map[string]uint64{},
	}
	for _, own := range s.view.Self {
		r.Subnets = append(r.Subnets, own.Subnet.String())
	}
	for k, n := range s.drift() {
		r.Drift[ip.Kind(k).String()] = uint64(n)
	}
	if !l.StoreSince.IsZero() {
		since := l.StoreSince.UTC()
		r.StoreSince = &since
	}
	var reasons []string
	say := func(text string) {
		if text != "" {
			reasons = append(reasons, text)
		}
	}
	say(l.Waiting)
	if s.failed != nil {
		say(s.failed.Error())
	}
	if r.StoreSince != nil {
		say("store unreachable since " + r.StoreSince.Format(time.RFC3339) + ": " + l.StoreError)
	}
	if len(reasons) == 0 && !s.ready {
		say(s.where)
	}
	r.Reason = strings.Join(reasons, "; ")
	return r
}

// line is the one that "systemctl status" shows.
func (s *status) line() string {
	r := s.report()
	text := "not ready"
	if r.Ready {
		text = fmt.Sprintf("%s, %s, %d peers", strings.Join(r.Subnets, " "), r.Backend, r.Peers)
	}
	if r.Skipped > 0 {
		text += fmt.Sprintf(", %d records skipped", r.Skipped)
	}
	if r.Kept > 0 {
		text += fmt.Sprintf(", %d peers kept that the store has lost", r.Kept)
	}
	if r.Reason != "" {
		text += ": " + r.Reason
	}
	return text
}
