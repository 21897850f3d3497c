package subnet

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// acquire takes a subnet: the one in use, the one in the subnet file, or a free one. It reports whether there
// is nothing more to do now.
func (m *Manager) acquire(ctx context.Context) (bool, error) {
	if holder := m.holder(); holder != "" {
		if done, err := m.lost(holder); done || err != nil {
			return done, err
		}
	}
	if e, ok := m.sameAddress(); ok {
		if ok, err := m.mayTake(ctx, e); !ok || err != nil {
			return !ok, err
		}
		return m.takeOver(ctx, e)
	}
	prefixes, ok := m.choose()
	if !ok {
		return true, nil
	}
	id, err := m.granted(ctx)
	if err != nil {
		return false, err
	}
	e, err := m.store.Create(ctx, m.record(prefixes), id)
	if err != nil {
		m.seed = fmt.Sprint(m.seed, "+") // whoever lost a race to a neighbour in hash order starts elsewhere
		return false, err
	}
	m.hold(e)
	return true, m.tidy(ctx)
}

// takeOver makes the record of a host that had our address, and does not answer, ours.
func (m *Manager) takeOver(ctx context.Context, e Entry) (bool, error) {
	m.mu.Lock()
	fits := m.fitsLocked(e.Record)
	m.mu.Unlock()
	if !fits {
		if err := m.store.Delete(ctx, e); err != nil {
			return false, err
		}
		m.mu.Lock()
		m.table.remove(e.Key)
		m.mu.Unlock()
		return false, nil
	}
	id, err := m.alive(ctx, e.LeaseID)
	if err != nil {
		return false, err
	}
	m.log.Info("taking over the record of a host that had this address and is gone", "key", e.Key, "host", e.Host)
	if e, err = m.store.Update(ctx, e, m.record(e.Prefixes()), id); err != nil {
		return false, err
	}
	m.hold(e)
	return true, nil
}

// holder says who has the subnet that this host uses; empty: nobody, or it uses none.
func (m *Manager) holder() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range m.table.entries {
		for _, l := range e.Leases {
			if !e.Claim && slices.ContainsFunc(m.self, func(own Lease) bool { return own.Subnet.Overlaps(l.Subnet) }) {
				return e.Record.String()
			}
		}
	}
	for key, b := range m.table.bad {
		prefixes, _ := parseRecordKey(key)
		for _, p := range prefixes {
			if slices.ContainsFunc(m.self, func(own Lease) bool { return own.Subnet.Overlaps(p) }) {
				return fmt.Sprintf("a record that makes no sense (%v)", b.Err)
			}
		}
	}
	return ""
}

// lost acts on the loss of our subnet to the holder. It reports whether to wait.
func (m *Manager) lost(holder string) (bool, error) {
	subnets := joinPrefixes(Record{Leases: m.self}.Prefixes())
	why := fmt.Sprintf("subnet %s was taken by %s", subnets, holder)
	m.mu.Lock()
	again := m.status.Waiting == why
	m.status.Held, m.status.Waiting = false, why
	m.mu.Unlock()
	if !again {
		m.log.Error("subnet lost to another host", "subnet", subnets, "holder", holder, "policy", string(m.o.OnLost),
			"hint", "find out who wrote that record; delete it, or restart the pods of this host on the new subnet")
		poke(m.changed)
	}
	switch m.o.OnLost {
	case LostExit:
		return true, fmt.Errorf("%w: %s", ErrLost, why)
	case LostHold:
		return true, nil
	}
	m.mu.Lock()
	m.self = nil
	m.mu.Unlock()
	return false, nil
}

// choose returns the subnets to ask for, one for each pool, or false after having said that there are none.
func (m *Manager) choose() ([]netip.Prefix, bool) {
	m.mu.Lock()
	taken := m.table.taken(m.config)
	pools := m.config.Pools
	inUse := Record{Leases: m.self}.Prefixes()
	m.mu.Unlock()
	free := func(prefixes []netip.Prefix, may func(Pool, netip.Prefix) bool) bool {
		return slices.EqualFunc(prefixes, pools, func(s netip.Prefix, p Pool) bool { return may(p, s) && !taken(s) })
	}
	if free(inUse, Pool.Holds) {
		return inUse, true
	}
	if free(m.o.Wanted, Pool.Leases) {
		return m.o.Wanted, true
	}
	var chosen []netip.Prefix
	for _, p := range pools {
		prefix, ok := p.Choose(m.seed, taken)
		if !ok {
			m.full(p)
			return nil, false
		}
		chosen = append(chosen, prefix)
	}
	return chosen, true
}

func (m *Manager) full(p Pool) {
	m.mu.Lock()
	leases, reservations := m.table.counts(p)
	m.mu.Unlock()
	m.setWaiting(fmt.Sprintf("no free subnet: %s holds %d, with %d leases and %d reservations; delete unused records or widen the range",
		p, p.Size(), leases, reservations))
}

// claim is an open question whether the owner of a record lives.
//
//	Create claim ──▶ owner deletes it ──▶ refused
//	      └────────▶ claimWait passes ──▶ the record may be taken over
type claim struct {
	target Entry
	asked  Entry
	until  time.Time // while open: when silence counts as consent; when refused: when to ask again
	answer claimAnswer
}

type claimAnswer uint8

const (
	claimOpen claimAnswer = iota
	claimRefused
	claimGranted
)

const (
	claimWait  = 3 * time.Second
	claimTTL   = 30 * time.Second
	claimAgain = time.Minute
)

// mayTake reports whether the owner of a record has not answered a claim to it; false: not known yet, or it has, which is
// then shown. A record of our own identity whose owner lives means that this host is the clone: ErrCloned.
func (m *Manager) mayTake(ctx context.Context, e Entry) (bool, error) {
	c := m.claim
	now := time.Now()
	switch {
	case c == nil || c.target.Key != e.Key || c.target.Revision != e.Revision:
		return false, m.ask(ctx, e)
	case c.answer == claimGranted:
		return true, nil
	case c.answer == claimRefused && e.Identity == m.o.Identity:
		m.log.Error("the identity of this host belongs to a living host, probably a cloned disk: taking a new one", "holder", e.Record.String())
		return false, ErrCloned
	case c.answer == claimRefused && now.Before(c.until):
		m.setWaiting(fmt.Sprintf("the public IP of this host is that of the living host %s: give one of them another address (-iface, -public-ip)", e.Record))
		m.retryAt = c.until
		return false, nil
	case c.answer == claimRefused:
		return false, m.ask(ctx, e)
	case now.Before(c.until):
		m.retryAt = c.until
		return false, nil
	}
	c.answer = claimGranted
	return true, m.store.Delete(ctx, c.asked)
}

// ask opens a claim.
func (m *Manager) ask(ctx context.Context, e Entry) error {
	question := m.record(e.Prefixes())
	question.Claim = true
	id, err := m.store.Grant(ctx, claimTTL)
	if err != nil {
		return err
	}
	asked, err := m.store.Create(ctx, question, id)
	if conflict := (*ConflictError)(nil); errors.As(err, &conflict) && conflict.Current != nil {
		if !conflict.Current.Equal(question) {
			m.setWaiting(fmt.Sprintf("%s also claims the record of %s", conflict.Current.Record, e.Record))
			m.retryAt = time.Now().Add(claimWait)
			return nil
		}
		asked, err = *conflict.Current, nil
	}
	if err != nil {
		return err
	}
	m.claim = &claim{target: e, asked: asked, until: time.Now().Add(claimWait)}
	m.retryAt = m.claim.until
	m.setWaiting(fmt.Sprintf("asking whether %s, whose record this host would take over, is alive", e.Record))
	return nil
}

// answer refuses a claim to the record that we hold, and notes the refusal of our own claim.
func (m *Manager) answer(ctx context.Context, ev Event) {
	if c := m.claim; c != nil && c.answer == claimOpen && ev.Deleted == c.asked.Key && ev.Revision > c.asked.Revision {
		c.answer, c.until = claimRefused, time.Now().Add(claimAgain)
		m.retryAt = time.Now()
	}
	if ev.Put == nil || !ev.Put.Claim || m.held == nil || Key(ev.Put.Prefixes()) != Key(m.held.Prefixes()) {
		return
	}
	m.log.Warn("another host has this host's identity or address and asks for its subnet: refused", "claimant", ev.Put.Record.String())
	if err := m.store.Delete(ctx, *ev.Put); err != nil {
		m.log.Debug("claim not refused", "error", err)
	}
}

// sameAddress returns the record of another host, known by an identity, that names our address.
func (m *Manager) sameAddress() (Entry, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range m.table.entries {
		if !e.Claim && e.Identity != "" && e.Identity != m.o.Identity && m.hasOurAddress(e.Record) {
			return e, true
		}
	}
	return Entry{}, false
}

// addressFree reports whether no living host has the address that our record is about to name. The record of one that
// does not answer is deleted.
func (m *Manager) addressFree(ctx context.Context) (bool, error) {
	e, found := m.sameAddress()
	if !found {
		return true, nil
	}
	if ok, err := m.mayTake(ctx, e); !ok || err != nil {
		return false, err
	}
	if err := m.store.Delete(ctx, e); err != nil {
		return false, err
	}
	m.mu.Lock()
	m.table.remove(e.Key)
	m.mu.Unlock()
	return true, nil
}
