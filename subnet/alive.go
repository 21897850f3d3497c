package subnet

import (
	"context"
	"errors"
	"time"
)

// leaseFor returns the store lease for a record that we take: none for a reservation; that of the record, unless another
// process may still be keeping it alive, so that one host's life never hangs on another's.
func (m *Manager) leaseFor(ctx context.Context, e Entry, foreign bool) (LeaseID, error) {
	if e.LeaseID != 0 && foreign {
		return m.granted(ctx)
	}
	return m.alive(ctx, e.LeaseID)
}

// alive returns a store lease that lives: the given one, renewed once by this process, or a new one. A reservation (zero)
// stays one.
func (m *Manager) alive(ctx context.Context, id LeaseID) (LeaseID, error) {
	switch {
	case id == 0:
		m.setUntil(time.Time{})
		return 0, m.keepStrays(ctx)
	case id == m.lease && !m.renewalDue():
		m.setUntil(m.ends)
		return id, nil
	}
	start := time.Now()
	ttl, err := m.store.KeepAlive(ctx, id)
	if errors.Is(err, ErrLeaseGone) {
		return m.granted(ctx)
	}
	if err != nil {
		return 0, err
	}
	m.lease = id
	m.renewed(start, ttl)
	m.setUntil(m.ends)
	return id, nil
}

// keepStrays keeps another record of this host alive that a reservation of it cannot replace yet, such as a half of its pair: others go by
// the older one.
func (m *Manager) keepStrays(ctx context.Context) error {
	for _, e := range m.strays() {
		if e.LeaseID == m.lease && !m.renewalDue() {
			return nil
		}
		start := time.Now()
		ttl, err := m.store.KeepAlive(ctx, e.LeaseID)
		switch {
		case errors.Is(err, ErrLeaseGone):
			continue
		case err == nil:
			m.lease = e.LeaseID
			m.renewed(start, ttl)
		}
		return err
	}
	return nil
}

// hangs reports whether a record of this host hangs on a store lease.
func (m *Manager) hangs(id LeaseID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for e := range m.table.living.all() {
		if e.LeaseID == id && e.Identity == m.o.Identity {
			return true
		}
	}
	return false
}

// renewalDue reports whether the store lease of this process must be renewed: one that nobody has renewed while there was no record may end
// at any moment.
func (m *Manager) renewalDue() bool { return !time.Now().Before(m.renewAt) }

// granted returns the store lease of this process, a new one if it has none that is fresh.
func (m *Manager) granted(ctx context.Context) (LeaseID, error) {
	if m.lease != 0 && !m.renewalDue() {
		m.setUntil(m.ends)
		return m.lease, nil
	}
	start := time.Now()
	id, err := m.store.Grant(ctx, m.o.TTL)
	if err != nil {
		return 0, err
	}
	m.lease = id
	m.renewed(start, m.o.TTL)
	m.setUntil(m.ends)
	return id, nil
}

// setUntil sets when our record surely ends; zero: never.
func (m *Manager) setUntil(t time.Time) {
	m.mu.Lock()
	changed := !m.until.Equal(t)
	m.until = t
	m.mu.Unlock()
	if changed {
		poke(m.changed)
	}
}

// renewed plans the next renewal: a third of the time to live later, or sooner if the margin asks for it. The lease surely lives until
// start + ttl, start being the time before the request.
func (m *Manager) renewed(start time.Time, ttl time.Duration) {
	pause := ttl / 3
	if early := ttl - m.o.RenewMargin; early >= time.Minute {
		pause = min(pause, early)
	}
	m.renewAt, m.ends, m.renewals = start.Add(pause), start.Add(ttl), backoff{}
}

// renew keeps the store lease alive. If it is gone, so is our record: the settling that follows makes both anew. When that is a
// reservation, another record that we wrote may still hang on the lease, such as a half of the pair that the reservation cannot replace yet.
func (m *Manager) renew(ctx context.Context) {
	held := m.held.LeaseID == m.lease
	if !held && !m.hangs(m.lease) {
		m.lease = 0
		return
	}
	start := time.Now()
	ttl, err := m.store.KeepAlive(ctx, m.lease)
	switch {
	case err == nil:
		m.renewed(start, ttl)
		if held {
			m.setUntil(m.ends)
		}
	case errors.Is(err, ErrLeaseGone) && !held:
		m.lease = 0
	case errors.Is(err, ErrLeaseGone):
		m.log.Warn("store lease expired or revoked, taking the subnet again", "subnet", m.held.Key)
		m.mu.Lock()
		m.table.remove(m.held.Key)
		m.mu.Unlock()
		m.lease, m.held, m.settleAt = 0, nil, time.Now()
	default:
		m.renewAt = time.Now().Add(m.renewals.next(firstPause, maxPause))
		m.log.Debug("store lease not renewed", "error", err)
	}
}
