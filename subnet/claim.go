package subnet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// claim is our question whether the owner of a record lives.
//
//	Create claim ──▶ owner deletes it ──▶ refused ──▶ asked again later
//	      └────────▶ claimWait passes ──▶ the record may be taken over by a write that needs the claim to stand
type claim struct {
	target int64 // revision of the record in question
	asked  Entry
	expiry time.Time // of the claim's own store lease
	// until is when silence counts as consent; of a claim that is refused, when to ask again.
	until   time.Time
	refused bool
}

const (
	claimWait = 3 * time.Second
	// claimWaitSame is the wait for a record with our host name and our address. A live daemon answers within milliseconds, unless
	// its store is slow; but no second host has both, while the identity alone is also that of a clone.
	claimWaitSame = 500 * time.Millisecond
	claimTTL      = 30 * time.Second
	claimAgain    = time.Minute
)

// mayTake reports whether no owner of these records has answered a claim to it; false: not known yet, or one has, which is
// then shown. All are asked at the same time. An owner may come back until the moment of the write, and a watch that lags does not show it:
// what is written then must go by the claim, see overwrite and drop.
func (m *Manager) mayTake(ctx context.Context, records ...Entry) (bool, error) {
	var wait time.Time
	all := true
	for _, e := range records {
		until, err := m.asked(ctx, e)
		if err != nil {
			return false, err
		}
		if until.After(wait) {
			wait = until
		}
		all = all && len(m.consent(e)) > 0
	}
	if !all || wait.After(time.Now()) {
		m.settleAt = wait
		return false, nil
	}
	return true, nil
}

// consent returns the claim to a record, if there is one that nobody has answered.
func (m *Manager) consent(e Entry) []Entry {
	if c := m.claims[e.Key]; c != nil && c.target == e.Revision && !c.refused {
		return []Entry{c.asked}
	}
	return nil
}

// overwrite replaces a record, and others with it, by our claim to it if we have made one.
func (m *Manager) overwrite(ctx context.Context, old Entry, r Record, id LeaseID, others ...Entry) (Entry, error) {
	e, err := m.store.Update(ctx, old, r, id, append(m.consent(old), others...)...)
	if err != nil {
		return Entry{}, err
	}
	delete(m.claims, old.Key)
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, o := range append(others, old) {
		m.table.remove(o.Key)
	}
	return e, nil
}

// asked returns when the claim to a record is decided, and opens one if there is none. A record of our own identity whose owner
// lives means that this host is the clone: ErrCloned.
func (m *Manager) asked(ctx context.Context, e Entry) (time.Time, error) {
	c, now := m.claims[e.Key], time.Now()
	switch {
	case c == nil, c.target != e.Revision:
		return m.ask(ctx, e)
	case c.refused && e.Identity == m.o.Identity:
		m.log.Error("the identity of this host belongs to a living host, probably a cloned disk: taking a new one", "holder", e.Record.String())
		return time.Time{}, ErrCloned
	case c.refused && now.Before(c.until):
		m.setWaiting(fmt.Sprintf("the public IP of this host is that of the living host %s: give one of them another address (-iface, -public-ip)", e.Record))
		return c.until, nil
	case !c.refused && now.Before(c.expiry):
		return c.until, nil
	}
	return m.ask(ctx, e)
}

// answered notes that a claim does not stand any more. One that may have expired was not refused.
func (c *claim) answered() {
	if time.Now().Before(c.expiry) {
		c.refused, c.until = true, time.Now().Add(claimAgain)
	}
}

// ask opens a claim and returns when it is decided.
func (m *Manager) ask(ctx context.Context, e Entry) (time.Time, error) {
	question := m.record(e.Prefixes())
	question.Claim = true
	start := time.Now()
	id, err := m.store.Grant(ctx, claimTTL)
	if err != nil {
		return time.Time{}, err
	}
	asked, err := m.store.Create(ctx, question, id)
	if conflict := (*ConflictError)(nil); errors.As(err, &conflict) && (conflict.Current != nil || conflict.Bad != nil) {
		if conflict.Current == nil || !conflict.Current.Equal(question) {
			return m.inTheWay(ctx, e, conflict)
		}
		// Asked by a try whose answer was lost.
		asked, start = *conflict.Current, time.Now()
		if _, err = m.store.KeepAlive(ctx, asked.LeaseID); errors.Is(err, ErrLeaseGone) {
			return time.Now().Add(firstPause), nil
		}
	}
	if err != nil {
		return time.Time{}, err
	}
	if m.claims[e.Key] == nil { // asked again: the last answer stays on show
		m.setWaitingAt(slog.LevelInfo, m.question(e))
	}
	wait := claimWait
	if m.hasOurAddress(e.Record) && e.Host == m.o.Host { // not by the identity: a cloned disk has it, too
		wait = claimWaitSame
	}
	c := &claim{target: e.Revision, asked: asked, expiry: start.Add(claimTTL), until: time.Now().Add(wait)}
	m.claims[e.Key] = c
	return c.until, nil
}

// sameMachine reports whether a record with our address also has our host name or our identity: this host wrote it before
// it lost its state folder, or before it was renamed.
func (m *Manager) sameMachine(r Record) bool {
	return m.hasOurAddress(r) && (r.Host == m.o.Host || r.Identity == m.o.Identity)
}

// question tells a person what a claim to a record is for.
func (m *Manager) question(e Entry) string {
	switch {
	case !m.sameMachine(e.Record):
		return fmt.Sprintf("asking whether %s, whose record this host would take over, is alive", e.Record)
	case e.Identity == m.o.Identity:
		return fmt.Sprintf("found this host's record under another host name, %s: checking that no other host uses it", e.Record)
	}
	const text = "found this host's record, %s, with an old identity (new state folder): checking that no other daemon uses it"
	return fmt.Sprintf(text, e.Record)
}

// standing is a claim of another that was in the way of ours.
type standing struct {
	revision int64
	since    time.Time // when it was first seen
}

// inTheWay handles a claim of another that has the key of ours, and returns when to try again. The claim is left to expire. It
// is deleted if this host's last run made it, or if it has not changed for the lifetime of a claim: junk, or one without a store lease.
func (m *Manager) inTheWay(ctx context.Context, e Entry, conflict *ConflictError) (time.Time, error) {
	other := Entry{Record: Record{Claim: true}, Key: conflict.Key}
	who := "an invalid record"
	if conflict.Bad != nil {
		other.Revision, other.LeaseID = conflict.Bad.Revision, conflict.Bad.LeaseID
	} else {
		other, who = *conflict.Current, conflict.Current.Record.String()
	}
	s := m.standing[conflict.Key]
	if s.revision != other.Revision {
		s = standing{other.Revision, time.Now()}
		m.standing[conflict.Key] = s
	}
	again := time.Now().Add(claimWait)
	switch dead := s.since.Add(claimTTL); {
	case other.Host == m.o.Host && m.hasOurAddress(other.Record), !time.Now().Before(dead):
		delete(m.standing, conflict.Key)
		m.log.Info("deleting a stale claim", "key", other.Key, "claimant", who)
		return time.Now(), m.store.Delete(ctx, other)
	case again.After(dead):
		again = dead
	}
	m.setWaiting(fmt.Sprintf("%s also claims the record of %s", who, e.Record))
	return again, nil
}

// heardOfClaim takes in that a claim of ours was deleted.
func (m *Manager) heardOfClaim(ev Event) {
	for _, c := range m.claims {
		if ev.Deleted == c.asked.Key && ev.Revision > c.asked.Revision && !c.refused {
			c.answered()
			m.settleAt = time.Now()
		}
	}
}

// lostClaim reports whether a write did not happen because a claim of ours does not stand any more.
func (m *Manager) lostClaim(conflict *ConflictError) bool {
	for _, c := range m.claims {
		if conflict.Key == c.asked.Key {
			c.answered()
			c.expiry = time.Time{} // not to be gone by again
			return true
		}
	}
	return false
}

// withdraw deletes the claims of ours that were not needed in the end.
func (m *Manager) withdraw(ctx context.Context) {
	for _, c := range m.claims {
		if c.refused || !time.Now().Before(c.expiry) {
			continue
		}
		if err := m.store.Delete(ctx, c.asked); err != nil {
			m.log.Debug("claim left to expire", "key", c.asked.Key, "error", err)
		}
	}
	clear(m.claims)
}

// claimed returns the claim of another to the record that we hold, or to one that this host has written and that stands while it does not hold
// any: whoever looks for its place in the store lives.
func (m *Manager) claimed() (Entry, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.held != nil {
		e, ok := m.table.claims[Record{Leases: m.held.Leases, Claim: true}.Key()]
		return e, ok && !m.ownClaim(e)
	}
	for _, e := range m.table.claims {
		target := m.table.living.at(Record{Leases: e.Leases}.Key())
		if !m.written(e.Record) && target != nil && m.written(target.Record) && m.hasOurAddress(target.Record) {
			return e, true
		}
	}
	return Entry{}, false
}

// ownClaim reports whether this host made a claim. It claims its own record if somebody else has edited that. A clone has
// another address or another host name.
func (m *Manager) ownClaim(e Entry) bool {
	for _, c := range m.claims {
		if c.asked.Key == e.Key && c.asked.LeaseID == e.LeaseID {
			return true
		}
	}
	return m.written(e.Record) && m.hasOurAddress(e.Record)
}

// refuseAt returns when to refuse a claim to the record that we hold: at once, but not before what is to be settled, because
// a host that is asked for an address which it has left must say so in its record.
func (m *Manager) refuseAt() time.Time {
	if m.settleAt.IsZero() || m.settleAt.After(time.Now()) {
		return m.refusals.from
	}
	return m.refusals.at(m.pace.at(m.settleAt))
}

// refuse deletes a claim to the record that we hold: its owner lives.
func (m *Manager) refuse(ctx context.Context) {
	e, ok := m.claimed()
	if !ok || time.Now().Before(m.refuseAt()) {
		return
	}
	if m.refusedLast != e.Revision {
		m.refusedLast = e.Revision
		m.log.Warn("another host has this host's identity or address and asks for its subnet: refused", "claimant", e.Record.String())
	}
	err := m.drop(ctx, e)
	m.refusals.tried(racePause)
	if conflict := (*ConflictError)(nil); errors.As(err, &conflict) {
		m.mu.Lock()
		m.table.learn(conflict)
		m.mu.Unlock()
	} else if err != nil {
		m.log.Debug("claim not refused yet", "error", err)
	}
}
