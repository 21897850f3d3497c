package subnet

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"
)

// The pauses before a new session: after a break all hosts of the cluster list, not all at once.
const (
	firstBreak = 500 * time.Millisecond
	// steadyAfter is how long a session must last for the next pause to count as a first one.
	steadyAfter = 10 * time.Second
	// electing is how long the members of a store need to elect a new leader, at most, by etcd's defaults. Hosts ask on as often as at
	// first meanwhile: a record that is deleted just then is back while its peers still linger.
	electing = 3 * time.Second
)

// watchWait is how long after a list the watch may take to open: a store that is replaced by another one breaks the connection,
// and cannot come back within that time with a revision beyond the list's.
const watchWait = 5 * time.Second

// linger is how long packets still go to a peer whose record was deleted: its host, if it lives, takes it again meanwhile, also one
// whose watch has just ended. A deleted peer must be gone from all hosts within a second.
const linger = 800 * time.Millisecond

// Run keeps the lease until ctx ends, and then returns nil: the lease stays. Other ends are ErrLost
// and ErrCloned. WaitConfig or UseConfig must have succeeded before.
func (m *Manager) Run(ctx context.Context) error {
	pause := backoff{}
	for ctx.Err() == nil {
		start := time.Now()
		if err := m.session(ctx); err != nil {
			return err
		}
		if time.Since(start) > steadyAfter {
			pause = backoff{}
		}
		sleep(ctx, pause.next(firstBreak, m.mostPause()))
	}
	return nil
}

// mostPause bounds the pause before the next session.
func (m *Manager) mostPause() time.Duration {
	since := m.Status().StoreSince
	if !since.IsZero() && time.Since(since) < electing {
		return firstBreak
	}
	return maxPause
}

// session lasts from a list to the end of the watch that follows it. Its errors end Run.
func (m *Manager) session(ctx context.Context) error {
	snap, err := m.list(ctx)
	if err != nil {
		m.storeDown(ctx, err)
		return nil
	}
	m.reset(snap)
	from := snap.Position // not the list itself, which may go now
	start, wait, watches := time.Now(), watchWait*time.Duration(max(1, m.o.Patience)), false
	opened := atomic.Bool{}
	ctx, cancel := context.WithCancel(ctx)
	batches, ended := make(chan []Event), make(chan error, 1)
	go func() {
		ended <- m.store.Watch(ctx, from, func(events []Event) {
			opened.Store(true)
			select {
			case batches <- events:
			case <-ctx.Done():
			}
		})
	}()
	var why error // the watch ended
	defer func() {
		cancel()
		if why == nil {
			<-ended
		}
	}()
	for {
		if err := m.step(ctx); err != nil {
			return err
		}
		next := m.untilNext()
		if !opened.Load() {
			next = min(next, time.Until(start.Add(wait)))
		}
		timer := time.NewTimer(next)
		select {
		case <-ctx.Done():
		case why = <-ended:
		case events := <-batches:
			watches = true
			m.follow(events)
		case <-m.refresh:
			m.settleAt = time.Now()
		case <-timer.C:
		}
		timer.Stop()
		switch late := !opened.Load() && time.Since(start) >= wait; {
		case ctx.Err() != nil:
			return nil
		case why != nil || late:
			m.broken(ctx, watches, time.Since(start), why)
			return nil
		case watches:
			m.storeUp()
		}
	}
}

// broken says that the watch has ended or did not open. A store that lists and does not let watch is as good as away.
func (m *Manager) broken(ctx context.Context, watched bool, lasted time.Duration, why error) {
	switch {
	case !watched && why == nil:
		m.storeDown(ctx, fmt.Errorf("the watch did not open within %s", lasted.Round(time.Second)))
	case !watched:
		m.storeDown(ctx, why)
	case lasted > steadyAfter:
		m.log.Info("watch ended, listing again", "reason", why)
	default:
		m.log.Debug("watch ended, listing again", "reason", why)
	}
}

// list uses the snapshot of WaitConfig once, if it is fresh.
func (m *Manager) list(ctx context.Context) (Snapshot, error) {
	s := m.first
	m.first = nil
	if s != nil && time.Since(m.firstAt) < firstBreak {
		return *s, nil
	}
	return m.store.List(ctx)
}

// reset takes in a list. Peers that it has lost are kept for a while whenever the store's history may have
// broken: always after a break while running, at start only if it is not the history that the last run saw.
func (m *Manager) reset(s Snapshot) {
	m.mu.Lock()
	until := time.Now().Add(m.o.PeerGrace)
	if m.position == (Position{}) {
		if m.sameHistory(s) {
			until = time.Time{}
		}
		m.table.keepGhosts(until)
	}
	m.table.reset(s, until)
	m.layOwnLocked()
	m.position = s.Position
	m.mu.Unlock()
	m.pruned()
	m.setConfig(s.Config)
	m.held = nil
	clear(m.claims) // silence counts only while the watch was unbroken
	m.settleAt = time.Now()
	poke(m.changed)
}

// layOwnLocked ends what is left of records of this host: its own subnets are not kept from it.
func (m *Manager) layOwnLocked() {
	for _, e := range m.table.ghosts.kin(&Entry{Record: Record{Identity: m.o.Identity, Leases: m.self}}) {
		if isOwn(e, m.o.Identity, m.self) {
			m.table.lay(e.Key)
		}
	}
}

// sameHistory reports whether the list continues what the last run saw: the same store, not gone back, and
// with our record still in it.
func (m *Manager) sameHistory(s Snapshot) bool {
	last := m.o.State.Position
	if s.Cluster != last.Cluster || s.Revision < last.Revision {
		return false
	}
	return slices.ContainsFunc(s.Entries, func(e *Entry) bool { return e.Identity == m.o.Identity })
}

// follow takes in a batch of events. Those about our own record are settled by the next step.
func (m *Manager) follow(events []Event) {
	for _, ev := range events {
		if ev.ConfigSet {
			m.setConfig(ev.Config)
		}
		m.heardOfClaim(ev)
		m.mu.Lock()
		m.table.apply(ev, time.Now().Add(linger))
		m.position.Revision = max(m.position.Revision, ev.Revision)
		m.mu.Unlock()
		if m.concerns(ev) {
			m.settleAt = time.Now()
		}
	}
	if len(events) > 0 {
		m.pruned()
		poke(m.changed)
	}
}

// waits reports whether this host does not have all its subnets.
func (m *Manager) waits() bool { return m.held == nil || !m.Status().Held }

// concerns reports whether an event calls for settling: it is about our record, or we wait for a subnet.
func (m *Manager) concerns(ev Event) bool {
	if m.waits() {
		return true
	}
	switch {
	case ev.Put != nil && ev.Put.Claim:
		return len(m.claims) > 0 // the host that we have asked may be moving itself: see sameAddress
	case ev.Put != nil:
		// A record with one of our subnets under another key is of interest above all if it is older than ours.
		return (ev.Put.Revision > m.held.Revision || ev.Put.Key != m.held.Key) && m.namesHeld(ev.Put.Prefixes())
	case ev.Bad != nil:
		prefixes, _ := parseRecordKey(ev.Bad.Key)
		return ev.Bad.Revision > m.held.Revision && m.namesHeld(prefixes)
	}
	return ev.Deleted == m.held.Key && ev.Revision > m.held.Revision
}

func (m *Manager) namesHeld(prefixes []netip.Prefix) bool {
	return slices.ContainsFunc(prefixes, func(p netip.Prefix) bool {
		return slices.ContainsFunc(m.held.Leases, func(l Lease) bool { return l.Subnet == p })
	})
}

// pruned drops ghosts that are due, and says so. A deleted record frees its subnet only then.
func (m *Manager) pruned() {
	m.mu.Lock()
	lost, deleted := m.table.prune(time.Now())
	m.mu.Unlock()
	if lost > 0 {
		m.log.Info("peers dropped that the store has lost", "count", lost)
	}
	if lost+deleted > 0 {
		if m.waits() {
			m.settleAt = time.Now()
		}
		poke(m.changed)
	}
}

func (m *Manager) storeDown(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	m.mu.Lock()
	first := m.status.StoreSince.IsZero()
	if first {
		m.status.StoreSince = time.Now()
	}
	since := m.status.StoreSince
	m.status.StoreError = fmt.Sprint(err)
	m.mu.Unlock()
	if first {
		m.log.Warn("store unreachable, the data plane stays as it is", "since", since.UTC().Format(time.RFC3339), "reason", err)
		poke(m.changed)
	}
}

func (m *Manager) storeUp() {
	m.mu.Lock()
	since := m.status.StoreSince
	m.status.StoreSince, m.status.StoreError = time.Time{}, ""
	m.mu.Unlock()
	if !since.IsZero() {
		m.log.Info("store is back", "away", time.Since(since).Round(time.Millisecond))
		poke(m.changed)
	}
}
