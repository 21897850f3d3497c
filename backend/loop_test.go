package backend_test

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"flanneld/backend"
	"flanneld/ip"
	"flanneld/ip/iptest"
	"flanneld/subnet"
)

// source is a backend.Source that the test sets.
type source struct {
	mu      sync.Mutex
	view    subnet.View
	changed chan struct{}
}

func (s *source) View() subnet.View {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.view
}

// leave takes the host's own leases away.
func (s *source) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.view.Self = nil
}

func (s *source) Changed() <-chan struct{} { return s.changed }

// recorder is a backend.Planner that only counts.
type recorder struct {
	mu       sync.Mutex // guards all below
	plans    []time.Time
	observed int
	err      error
	takes    time.Duration // how long a pass lasts
}

func (r *recorder) Plan([]subnet.Lease, subnet.Peers) (ip.Snapshot, error) {
	r.mu.Lock()
	r.plans = append(r.plans, time.Now())
	err, takes := r.err, r.takes
	r.mu.Unlock()
	time.Sleep(takes)
	return ip.Snapshot{}, err
}

// become says how passes end from now on and how long they last, and forgets those so far.
func (r *recorder) become(err error, takes time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err, r.takes, r.plans = err, takes, nil
}

// passes returns when passes began.
func (r *recorder) passes() []time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.plans)
}

func (r *recorder) Observe(ip.Event) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.observed++
	return true
}

func (r *recorder) observations() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.observed
}

func (r *recorder) Attrs(netip.Prefix) subnet.Attrs { return subnet.Attrs{} }
func (r *recorder) MTU() int                        { return 0 }
func (r *recorder) Valid(subnet.Lease) error        { return nil }
func (r *recorder) Owns() ip.Scope                  { return ip.Scope{} }

func (r *recorder) loop(s backend.Source) *backend.Loop {
	h := ip.Host{Kernel: iptest.NewKernel(iptest.Faults{}), Log: slog.New(slog.DiscardHandler)}
	return backend.NewLoop(s, backend.NewApplier(r, h, nil))
}

// loopRig is a loop that runs in a bubble of its own time.
type loopRig struct {
	*backend.Loop
	source  *source
	backend *recorder

	mu        sync.Mutex // guards all below
	after     []error
	unwritten error // of After
}

// outcomes returns the outcomes of passes since it was called last.
func (r *loopRig) outcomes() []error {
	r.mu.Lock()
	defer r.mu.Unlock()
	after := r.after
	r.after = nil
	return after
}

func inBubble(t *testing.T, f func(r *loopRig)) {
	synctest.Test(t, func(t *testing.T) {
		r := &loopRig{source: &source{changed: make(chan struct{}, 1)}, backend: &recorder{}}
		r.source.view.Self = []subnet.Lease{{Subnet: netip.MustParsePrefix("10.5.1.0/24")}}
		r.Loop = r.backend.loop(r.source)
		r.After = func(_ subnet.View, err error) error {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.after = append(r.after, err)
			return r.unwritten
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- r.Run(ctx) }()
		r.rest()
		f(r)
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

// rest waits until the loop has nothing to do but what is planned.
func (r *loopRig) rest() {
	time.Sleep(10 * time.Millisecond)
	synctest.Wait()
}

func TestTheLoopPassesOnceForABurst(t *testing.T) {
	inBubble(t, func(r *loopRig) {
		r.backend.become(nil, 0)
		for range 100 {
			r.Poke()
			select {
			case r.source.changed <- struct{}{}:
			default:
			}
		}
		r.rest()
		r.rest()
		if n := len(r.backend.passes()); n < 1 || n > 3 {
			t.Errorf("%d passes for a burst", n)
		}
	})
}

func TestTheLoopRestsAsLongAsAPassTook(t *testing.T) {
	inBubble(t, func(r *loopRig) {
		r.backend.become(nil, 300*time.Millisecond)
		for range 1000 { // a storm
			r.Poke()
			time.Sleep(10 * time.Millisecond)
		}
		if n := len(r.backend.passes()); n < 15 || n > 18 {
			t.Errorf("%d passes in 10 s, each of 300 ms", n)
		}
	})
}

func TestTheLoopIsIdleWithoutAReason(t *testing.T) {
	inBubble(t, func(r *loopRig) {
		r.backend.become(nil, 0)
		time.Sleep(time.Hour)
		if n := len(r.backend.passes()); n != 0 {
			t.Errorf("%d passes", n)
		}
		if !r.Alive() {
			t.Error("an idle loop counts as dead")
		}
	})
}

func TestAFailureAfterAPassIsTriedAgainSoon(t *testing.T) {
	inBubble(t, func(r *loopRig) {
		r.backend.become(nil, 0)
		r.outcomes()
		become := func(err error) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.unwritten = err
		}
		become(errors.New("no space left on device"))
		r.Poke()
		time.Sleep(time.Minute)
		if n := len(r.outcomes()); n < 12 || n > 40 {
			t.Errorf("%d passes in a minute, want one in five seconds at least", n)
		}
		become(nil)
		time.Sleep(5 * time.Second)
		r.outcomes()
		time.Sleep(time.Hour)
		if n := len(r.outcomes()); n != 0 {
			t.Errorf("%d passes after it was written", n)
		}
	})
}

func TestAFailedPassIsTriedAgainEverSlowerAndNewsDoNotWait(t *testing.T) {
	inBubble(t, func(r *loopRig) {
		r.backend.become(errors.New("no"), 0)
		r.Poke()
		time.Sleep(10 * time.Minute)
		sets := r.backend.passes()
		if first := sets[1].Sub(sets[0]); first > 60*time.Millisecond {
			t.Errorf("first retry after %s", first)
		}
		for i := 1; i < len(sets); i++ {
			if gap := sets[i].Sub(sets[i-1]); gap > 31*time.Second {
				t.Errorf("retry %d after %s", i, gap)
			}
		}
		if n := len(sets); n < 20 || n > 60 {
			t.Errorf("%d tries in 10 minutes", n)
		}
		at := time.Now()
		r.Poke()
		r.rest()
		if sets := r.backend.passes(); sets[len(sets)-1].Before(at) {
			t.Error("news wait for the retry")
		}
		r.backend.become(nil, 0)
		time.Sleep(time.Hour)
		if n := len(r.backend.passes()); n != 1 {
			t.Errorf("%d passes after the end of the error, want 1", n)
		}
	})
}

func TestWhatOthersKeepChangingIsRepairedEveryFewSeconds(t *testing.T) {
	inBubble(t, func(r *loopRig) {
		r.backend.become(ip.ErrContention, 0)
		r.Poke()
		time.Sleep(10 * time.Minute)
		if n := len(r.backend.passes()); n < 120 || n > 300 {
			t.Errorf("%d passes in 10 minutes", n)
		}
	})
}

func TestNothingIsSetWithoutALeaseOfOurOwn(t *testing.T) {
	inBubble(t, func(r *loopRig) {
		r.source.leave()
		r.backend.become(nil, 0)
		r.outcomes()
		r.Poke()
		r.rest()
		if sets, after := r.backend.passes(), r.outcomes(); len(sets) != 0 || len(after) != 1 {
			t.Errorf("%d sets, %d outcomes", len(sets), len(after))
		}
	})
}

func TestALoopThatHangsIsNotAlive(t *testing.T) {
	inBubble(t, func(r *loopRig) {
		r.backend.become(nil, 2*time.Minute)
		r.Poke()
		time.Sleep(90 * time.Second)
		if r.Alive() {
			t.Error("alive after 90 s in one pass")
		}
		r.backend.become(nil, 0)
		time.Sleep(5 * time.Minute)
		if !r.Alive() {
			t.Error("dead after the pass has ended")
		}
	})
}

func TestTheKernelIsReadAnewOnTheResyncTick(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, b := &source{changed: make(chan struct{})}, &recorder{}
		s.view.Self = []subnet.Lease{{Subnet: netip.MustParsePrefix("10.5.1.0/24")}}
		l := b.loop(s)
		l.Resync = time.Minute
		go func() { _ = l.Run(t.Context()) }()
		time.Sleep(10*time.Minute + time.Second)
		if len(b.passes()) != 11 || b.observations() != 10 {
			t.Errorf("%d passes, %d observations", len(b.passes()), b.observations())
		}
	})
}

func TestWhatFailsBecauseTheDaemonEndsIsNoFault(t *testing.T) {
	var ended *loopRig
	inBubble(t, func(r *loopRig) {
		ended = r
		r.backend.become(errors.New("the command was killed"), time.Minute)
		r.outcomes()
		r.Poke()
		time.Sleep(time.Second) // of the bubble: the pass has begun
	})
	if got := ended.outcomes(); len(got) != 0 || len(ended.backend.passes()) != 1 {
		t.Errorf("%d passes, outcomes %v; want none of the one that the end has met", len(ended.backend.passes()), got)
	}
}
