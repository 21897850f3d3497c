package keeper

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"flanneld/subnet"
	"flanneld/trigger"
)

const (
	// firstBreak is the pause before a new session: after a break all hosts of the cluster list, not all at once.
	firstBreak = 500 * time.Millisecond
	// firstResume is the pause before one that needs no list. A record that is deleted while its host hears nothing must
	// be back while its peers linger.
	firstResume = 200 * time.Millisecond
	// steadyAfter is how long a session must last for the next pause to count as a first one.
	steadyAfter = 10 * time.Second
	// electing is how long the members of a store need to elect a new leader, at most, by etcd's defaults. Hosts ask on as
	// often as at first meanwhile: a record that is deleted just then is back while its peers still forward to it.
	electing = 3 * time.Second
	// watchWait is how long after a list the watch may take to open: a store that is replaced by another one breaks the
	// connection, and cannot come back within that time with a revision beyond the list's. A store that needed longer
	// for the list has as long again.
	watchWait = 5 * time.Second
	// linger is how long packets still go to a peer whose record was deleted: its host, if it lives, takes it again
	// meanwhile, also one whose watch has just ended. A deleted peer must be gone from all hosts within a second.
	linger = 800 * time.Millisecond
)

// Run keeps the lease until ctx ends, and then returns nil: the lease stays. Other ends are ErrLost and ErrCloned.
func (k *Keeper) Run(ctx context.Context) error {
	if k.read.at != 0 {
		k.setConfig(k.read.text)
	}
	pause := backoff{}
	for ctx.Err() == nil {
		start := time.Now()
		if err := k.session(ctx); err != nil {
			return err
		}
		if time.Since(start) > steadyAfter {
			pause = backoff{}
		}
		first := firstBreak
		if k.trail.proves {
			first = firstResume
		}
		_ = trigger.Pause(ctx, pause.next(first, k.longestPause()))
	}
	return nil
}

// longestPause bounds the pause before the next session.
func (k *Keeper) longestPause() time.Duration {
	since := k.Status().StoreSince
	if !since.IsZero() && time.Since(since) < electing {
		return firstBreak
	}
	return maxPause
}

// watch is a watch that runs.
type watch struct {
	resumes bool // it goes on where the last one ended, without a list
	batches chan []subnet.Event
	ended   chan error
	done    chan struct{} // closed when nothing of it runs any more
	opened  atomic.Bool
	started time.Time
	heard   bool // a change has come
	seen    bool // the confirmation has come, and what a resumed one tells again
}

// session lasts until the end of a watch. That begins where the last one ended, or else after a list. Its errors end
// Run.
func (k *Keeper) session(ctx context.Context) error {
	resumes, began := k.trail.rewind(), time.Now()
	for list := !resumes; ; {
		if list {
			snap, err := k.list(ctx)
			if err != nil {
				k.storeDown(ctx, err)
				return nil
			}
			k.reset(snap)
			began = time.Now()
		}
		w, why, err := k.watch(ctx, resumes, began)
		if err != nil || ctx.Err() != nil {
			return err
		}
		history, from := errors.Is(why, subnet.ErrHistory), k.trail.from()
		if history {
			k.loseTrail()
		}
		switch {
		case history && resumes:
			k.log.Info("the watch on the store cannot be continued, reading all records again", "reason", why)
			list = true
		case history && !w.heard && from != 0: // compacted after its write; what was listed still holds for a while
			list = false
		default:
			k.broken(ctx, w, why)
			return nil
		}
		resumes = false
	}
}

// loseTrail has the next session begin with a list.
func (k *Keeper) loseTrail() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.trail = trail{}
}

// watch follows the store until the watch ends, and returns why. It must open within a time after it, or the list
// before it, began. The second error ends Run.
func (k *Keeper) watch(ctx context.Context, resumes bool, began time.Time) (w *watch, why, err error) {
	ctx, cancel := context.WithCancel(ctx)
	w = k.startWatch(ctx, resumes, began)
	defer func() {
		cancel()
		<-w.done
	}()
	wait := max(cmp.Or(k.o.WatchWait, watchWait), k.took)
	for {
		next := time.Until(w.started.Add(wait))
		if w.seen || !resumes {
			if why := k.followHeard(ctx); why != nil {
				return w, why, nil
			}
			if err := k.step(ctx); err != nil {
				return w, nil, err
			}
			if due := k.untilNext(); due < next || w.opened.Load() {
				next = due
			}
		}
		timer := time.NewTimer(next)
		select {
		case <-ctx.Done():
		case why = <-w.ended:
		case events := <-w.batches:
			why = k.hear(w, events)
		case <-k.refresh:
			k.decideAt = time.Now()
		case text := <-k.texts:
			k.followText(text)
			k.changed.Set()
		case <-timer.C:
		}
		timer.Stop()
		if open := w.opened.Load() && (w.seen || !resumes); why == nil && !open && time.Since(w.started) >= wait {
			why = fmt.Errorf("the watch on the store did not start within %s", time.Since(w.started).Round(time.Second))
			if resumes {
				why = fmt.Errorf("%w: %w", why, subnet.ErrHistory)
			}
		}
		switch {
		case ctx.Err() != nil || why != nil:
			return w, why, nil
		case w.seen:
			k.storeUp()
		}
	}
}

// untilNext returns how long nothing is due.
func (k *Keeper) untilNext() time.Duration {
	now := time.Now()
	next := now.Add(time.Hour)
	for _, t := range []time.Time{k.decideAt, k.facts.records.Due()} {
		if !t.IsZero() && t.Before(next) {
			next = t
		}
	}
	return max(0, next.Sub(now))
}

// startWatch follows the store in a goroutine, until ctx ends or the store does not let it.
func (k *Keeper) startWatch(ctx context.Context, resumes bool, began time.Time) *watch {
	w := &watch{resumes: resumes, started: began}
	w.batches, w.ended, w.done = make(chan []subnet.Event), make(chan error, 1), make(chan struct{})
	after, from := k.position, k.trail.from()
	if resumes {
		k.mu.Lock()
		clear(k.facts.claims) // silence counts only while the watch was unbroken
		k.mu.Unlock()
		k.decideAt = time.Now()
	}
	go func() {
		defer close(w.done)
		w.ended <- k.store.Watch(ctx, after, from, func(events []subnet.Event) {
			w.opened.Store(true)
			select {
			case w.batches <- events:
			case <-ctx.Done():
			}
		})
	}()
	return w
}

// broken says that the watch has ended or did not open. A store that lists and does not let watch is as good as away.
func (k *Keeper) broken(ctx context.Context, w *watch, why error) {
	lasted := time.Since(w.started)
	switch {
	case !w.seen:
		k.storeDown(ctx, why)
	case lasted > steadyAfter:
		k.log.Info("watch on the store ended, beginning again", "reason", why)
	default:
		k.log.Debug("watch on the store ended, beginning again", "reason", why)
	}
}

// hear takes in what a watch tells. An error ends it.
func (k *Keeper) hear(w *watch, events []subnet.Event) error {
	for _, ev := range events {
		w.heard = w.heard || ev.IsChange()
		if w.resumes && !ev.IsChange() {
			k.missed = missed{k.position.Revision, ev.Revision, !k.asked}
		}
	}
	k.mu.Lock()
	news, err := k.trail.take(events, k.position.Revision)
	if err == nil {
		w.seen = w.seen || !w.resumes || k.trail.proven()
		k.asked = k.asked || w.seen
	}
	k.mu.Unlock()
	k.follow(news)
	return err
}

// list uses the snapshot of WaitConfig once, if it is fresh.
func (k *Keeper) list(ctx context.Context) (subnet.Snapshot, error) {
	s := k.first
	k.first = nil
	if s != nil && time.Since(k.listed) < max(firstBreak, k.took) {
		return *s, nil
	}
	start := time.Now()
	snap, err := k.store.List(ctx)
	k.took = time.Since(start)
	return snap, err
}

// reset takes in a list. Peers that it has lost are kept for a while whenever the store's history may have broken:
// always after a break while running, at start only if it is not the history that the last run saw.
func (k *Keeper) reset(s subnet.Snapshot) {
	k.mu.Lock()
	k.graced = time.Now()
	until, f := k.graced.Add(k.o.PeerGrace), &k.facts
	if !k.asked {
		if k.sameHistory(s) {
			until = time.Time{}
		}
		f.records.RetainAll(until)
	}
	f.records.Replace(s, until)
	f.records.Release(f.inUse)
	f.recent = nil
	f.hearClaims(k.graced, s.Claims...)
	clear(f.claims) // silence counts only while the watch was unbroken
	k.position, k.asked, k.trail = s.Position, true, trailOf(s)
	k.mu.Unlock()
	k.missed = missed{}
	k.held, k.heard, k.old, k.decideAt = nil, nil, false, time.Now()
	k.setConfig(s.Config)
	k.prune()
	k.logSkipped()
	k.changed.Set()
}

// sameHistory reports whether the list continues what the last run saw: the same store, not gone back, and with our
// record still in it.
func (k *Keeper) sameHistory(s subnet.Snapshot) bool {
	last := k.o.State.Memory.Position
	if s.Cluster != last.Cluster || s.Revision < last.Revision {
		return false
	}
	return slices.ContainsFunc(s.Entries, func(e *subnet.Entry) bool { return e.Identity == k.o.Identity })
}

// follow takes in a batch of events.
func (k *Keeper) follow(events []subnet.Event) {
	if len(events) == 0 {
		return
	}
	k.mu.Lock()
	lost := k.facts.records.Lost()
	for _, ev := range events {
		if at := k.whenConcerned(ev); !at.IsZero() && (k.decideAt.IsZero() || at.Before(k.decideAt)) {
			k.decideAt = at
		}
		if ev.Put != nil && ev.Put.Claim {
			k.facts.hearClaims(time.Now(), *ev.Put)
		}
		k.apply(ev)
		k.position.Revision = max(k.position.Revision, ev.Revision)
	}
	if k.facts.records.Lost() < lost {
		k.extendGrace(time.Now())
	}
	k.mu.Unlock()
	for _, ev := range events {
		if ev.ConfigSet && ev.Revision > k.read.at && !k.fixed {
			k.heard = &configRead{ev.Config, ev.Revision}
		}
	}
	k.prune()
	k.logSkipped()
	k.changed.Set()
}

// apply takes in one change of the records. Peers whose records went while this host was not listening are kept for a
// while, unless it did not run, and its own record has outlived theirs.
func (k *Keeper) apply(ev subnet.Event) {
	lost, now := k.missed.lost(ev, k.facts.records), time.Now()
	if lost && k.missed.stopped && k.facts.records.At(ev.Deleted).Identity == k.o.Identity {
		k.missed.stopped = false
		k.facts.records.RetainAll(now.Add(k.o.PeerGrace))
	}
	if lost && !k.missed.stopped {
		k.facts.records.ApplyLate(ev, now.Add(k.o.PeerGrace))
	} else {
		k.facts.records.Apply(ev, now.Add(linger))
	}
}

// whenConcerned returns when an event calls for a decision: at once if it is about our record or a claim of or to us;
// if we wait for a subnet, anything may help, but not more often than we may write. Zero: it does not.
func (k *Keeper) whenConcerned(ev subnet.Event) time.Time {
	now := time.Now()
	for key, c := range k.facts.claims {
		if ev.Deleted == c.entry.Key && ev.Revision > c.entry.Revision && !c.refused {
			k.facts.claims[key] = c.answer(now)
			return now
		}
	}
	var named []netip.Prefix
	switch {
	case k.held == nil:
	case ev.Deleted != "":
		if ev.Deleted == k.held.Key && ev.Revision > k.held.Revision {
			return now
		}
	case ev.Bad != nil:
		named, _ = subnet.ParseKey(strings.TrimPrefix(ev.Bad.Key, subnet.SubnetsFolder))
	case ev.Put != nil && (ev.Put.Key != k.held.Key || ev.Put.Revision > k.held.Revision):
		if named = ev.Put.Prefixes(); ev.Put.Claim && len(k.facts.claims) > 0 {
			return now // the host that we have asked may be moving itself: see hasLeft
		}
	}
	held := func(p netip.Prefix) bool { return slices.Contains(k.held.Prefixes(), p) }
	if k.held != nil && slices.ContainsFunc(named, held) {
		return now
	}
	if k.held == nil || !k.status.Held {
		return k.pace.at(now)
	}
	return time.Time{}
}

func (k *Keeper) storeDown(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if storeDown(&k.status, k.log, err) {
		k.changed.Set()
	}
}

func (k *Keeper) storeUp() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if storeUp(&k.status, k.log) {
		k.changed.Set()
	}
}
