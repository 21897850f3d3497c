package backend

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"flanneld/ip"
	"flanneld/subnet"
	"flanneld/trigger"
)

// Source is where the leases come from.
type Source interface {
	// View returns the present leases.
	View() subnet.View
	// Changed receives after every change of them.
	Changed() <-chan struct{}
}

// Loop makes the data plane be what the leases call for, whenever anything may have changed.
//
//	leases changed ─┐
//	Poke ───────────┼─▶ View ─▶ Admit ─▶ Set ─▶ After ──┐
//	resync tick ────┤                                   │ failed: again, with backoff
//	retry timer ◀───┴───────────────────────────────────┘
type Loop struct {
	*Applier

	// Resync is how often everything is read anew from the kernel; 0: never.
	Resync time.Duration
	// Before is called at the start of each pass.
	Before func()
	// Admit is called with what each pass is made of, before any route leads to the peers.
	Admit func(v subnet.View)
	// After is called with the outcome of each pass. What it returns fails the pass too: the next one comes soon.
	After func(v subnet.View, err error) error

	source Source
	wake   trigger.Trigger
	beat   atomic.Int64 // Unix nanoseconds of the last sign of life
}

const (
	firstRetry = 50 * time.Millisecond
	lastRetry  = 30 * time.Second
	// contendedRetry is the pace at which what others keep changing is put right, and at which After is tried again: slow
	// enough to cost nothing, and fast enough for traffic to have most of the time.
	contendedRetry = 5 * time.Second
	heartbeat      = 10 * time.Second
	// stuckAfter is how long a pass may take before the loop counts as dead.
	stuckAfter = time.Minute
	// quiet is the least pause between two passes. After a long pass the pause is as long as the pass, so that a storm of
	// events costs at most half a core.
	quiet = 5 * time.Millisecond
	// longestQuiet bounds it: a pass that takes longer has waited for a processor, and peers have waited with it.
	longestQuiet = time.Second
)

// NewLoop returns a loop that Run starts. The fields may be set until then.
func NewLoop(s Source, a *Applier) *Loop {
	l := &Loop{
		Applier: a, source: s, wake: trigger.New(),
		Before: func() {}, Admit: func(subnet.View) {}, After: func(subnet.View, error) error { return nil },
	}
	l.alive()
	return l
}

// Poke asks for a pass. Any goroutine may call it; it never blocks.
func (l *Loop) Poke() {
	l.wake.Set()
}

// Alive reports whether the loop gave a sign of life lately.
func (l *Loop) Alive() bool { return time.Since(time.Unix(0, l.beat.Load())) < stuckAfter }

func (l *Loop) alive() { l.beat.Store(time.Now().UnixNano()) }

// Run makes passes, and carries the datapath if there is one, until ctx ends; it returns nil then.
func (l *Loop) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var passes sync.WaitGroup
	passes.Go(func() { l.passes(ctx) })
	err := l.Applier.run(ctx)
	cancel()
	passes.Wait()
	return err
}

func (l *Loop) passes(ctx context.Context) {
	var retry time.Duration // 0: the last pass was clean
	var resync <-chan time.Time
	if l.Resync > 0 {
		t := time.NewTicker(l.Resync)
		defer t.Stop()
		resync = t.C
	}
	beats := time.NewTicker(heartbeat)
	defer beats.Stop()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-beats.C:
			l.alive()
			continue
		case <-l.source.Changed():
		case <-l.wake:
		case <-resync:
			l.Observe(ip.Event{})
		case <-timer.C:
		}
		start := time.Now()
		if slowest, err := l.pass(ctx); err != nil {
			retry = min(max(2*retry, firstRetry), slowest)
			timer.Reset(retry/2 + rand.N(retry/2))
		} else {
			retry = 0
			timer.Stop()
		}
		l.alive()
		_ = trigger.Pause(ctx, min(max(quiet, time.Since(start)), longestQuiet))
	}
}

// pass makes one pass. After an error the next one comes within slowest.
func (l *Loop) pass(ctx context.Context) (slowest time.Duration, err error) {
	l.Before()
	v := l.source.View()
	if len(v.Self) > 0 {
		l.Admit(v)
		err = l.Set(v.Self, v.Peers)
	}
	slowest = lastRetry
	if err != nil && ctx.Err() != nil {
		return slowest, err // the daemon ends, and commands that the pass waited for with it: that is no fault
	}
	after := l.After(v, err)
	unsettled := l.Unsettled()
	if after != nil || unsettled != nil || errors.Is(err, ip.ErrContention) {
		slowest = contendedRetry
	}
	return slowest, errors.Join(err, after, unsettled)
}
