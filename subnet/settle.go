package subnet

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// step does what is due: renew, settle, drop ghosts. Its errors end Run; what can heal is tried again later.
func (m *Manager) step(ctx context.Context) error {
	now := time.Now()
	if m.held != nil && m.lease != 0 && !now.Before(m.renewAt) {
		m.renew(ctx)
	}
	if m.retryAt.IsZero() || now.Before(m.retryAt) {
		m.pruned()
		return nil
	}
	m.retryAt = time.Time{}
	err := m.settle(ctx)
	switch {
	case errors.Is(err, ErrLost), errors.Is(err, ErrCloned):
		return err
	case err == nil:
		m.retry = backoff{}
	case ctx.Err() == nil:
		m.retryAt = time.Now().Add(m.retry.next())
		m.setWaiting(fmt.Sprintf("own lease not confirmed: %v", err))
	}
	return nil
}

// untilNext returns how long nothing is due.
func (m *Manager) untilNext() time.Duration {
	next := time.Now().Add(time.Hour)
	sooner := func(t time.Time) {
		if !t.IsZero() && t.Before(next) {
			next = t
		}
	}
	sooner(m.retryAt)
	if m.held != nil && m.lease != 0 {
		sooner(m.renewAt)
	}
	if m.claim != nil {
		sooner(m.claim.until)
	}
	m.mu.Lock()
	ghosts, _ := m.table.prune(time.Now())
	m.mu.Unlock()
	sooner(ghosts)
	return max(0, time.Until(next))
}

// settle brings the store to hold our record, or finds out what to wait for. Every round either ends or has
// learned something new about the table, so that the loop ends.
func (m *Manager) settle(ctx context.Context) error {
	for ctx.Err() == nil {
		round := m.acquire
		if own, ok := m.findOwn(); ok {
			round = func(ctx context.Context) (bool, error) { return m.confirm(ctx, own) }
		}
		done, err := round(ctx)
		if conflict := (*ConflictError)(nil); errors.As(err, &conflict) {
			m.learn(conflict)
			continue
		}
		if errors.Is(err, ErrLeaseGone) {
			m.lease = 0
			continue
		}
		if done || err != nil {
			return err
		}
	}
	return ctx.Err()
}

// learn takes in what stood where we wanted to write.
func (m *Manager) learn(c *ConflictError) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if c.Current != nil {
		m.table.put(*c.Current)
		return
	}
	_, known := m.table.entries[c.Key]
	m.table.remove(c.Key)
	if !known {
		m.table.bad[c.Key] = BadRecord{Key: c.Key, Err: errors.New("taken by a record that makes no sense")}
	}
}

// findOwn returns our record: by identity, before that which the kernel already uses; else, if it has no
// identity, by our address.
func (m *Manager) findOwn() (Entry, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	best, bestRank := Entry{}, 0
	selfKey := Record{Leases: m.self}.Key()
	for _, e := range m.table.entries {
		rank := m.rankLocked(e, selfKey)
		if rank > bestRank || rank == bestRank && rank > 0 && e.Created < best.Created {
			best, bestRank = e, rank
		}
	}
	return best, bestRank > 0
}

// rankLocked says how surely an entry is ours; 0: it is not, or of no use in this network.
func (m *Manager) rankLocked(e Entry, selfKey string) int {
	if e.Claim || !m.fitsLocked(e.Record) {
		return 0
	}
	switch {
	case e.Identity == m.o.Identity && e.Key == selfKey:
		return 4
	case e.Identity == m.o.Identity && m.hasOurAddress(e.Record):
		return 3
	case e.Identity == m.o.Identity:
		return 2
	case e.Identity == "" && m.hasOurAddress(e.Record):
		return 1
	}
	return 0
}

// fitsLocked reports whether the record has one valid subnet for each pool.
func (m *Manager) fitsLocked(r Record) bool {
	return slices.EqualFunc(r.Leases, m.config.Pools, func(l Lease, p Pool) bool { return p.Holds(l.Subnet) })
}

// hasOurAddress reports whether the record names one of our public addresses.
func (m *Manager) hasOurAddress(r Record) bool {
	return slices.ContainsFunc(r.Leases, func(l Lease) bool {
		ours := m.o.Attrs(l.Subnet).PublicIP
		return ours.IsValid() && ours == l.PublicIP
	})
}

// record returns what we publish with these subnets.
func (m *Manager) record(prefixes []netip.Prefix) Record {
	r := Record{Identity: m.o.Identity, Host: m.o.Host}
	for _, p := range prefixes {
		r.Leases = append(r.Leases, Lease{p, m.o.Attrs(p)})
	}
	return r
}

// confirm makes sure that our record says what we want and expires when we do. It reports whether that is done.
func (m *Manager) confirm(ctx context.Context, own Entry) (bool, error) {
	want := m.record(own.Prefixes())
	moved := own.Identity == m.o.Identity && !sameAddresses(own.Record, want)
	if moved {
		// Not the address that we published: ours has changed, or a clone of this host has written it.
		if m.wrote != nil && !sameAddresses(own.Record, *m.wrote) {
			m.log.Error("another host has this host's identity, probably a cloned disk: taking a new identity", "holder", own.Record.String(), "subnet", own.Key)
			return false, ErrCloned
		}
		if m.wrote == nil {
			if ok, err := m.mayTake(ctx, own); !ok || err != nil {
				return !ok, err
			}
		}
	}
	if !m.hasOurAddress(own.Record) {
		if ok, err := m.addressFree(ctx); !ok || err != nil {
			return !ok, err
		}
	}
	id, err := m.alive(ctx, own.LeaseID)
	if err != nil {
		return false, err
	}
	if !own.Equal(want) || id != own.LeaseID {
		if own, err = m.store.Update(ctx, own, want, id); err != nil {
			return false, err
		}
	}
	m.hold(own)
	return true, m.tidy(ctx)
}

func sameAddresses(a, b Record) bool {
	return slices.EqualFunc(a.Leases, b.Leases, func(a, b Lease) bool { return a.PublicIP == b.PublicIP })
}

// alive returns a store lease that lives: the given one, renewed once by this process, or a new one. A reservation (zero)
// stays one.
func (m *Manager) alive(ctx context.Context, id LeaseID) (LeaseID, error) {
	if id == 0 || id == m.lease {
		m.setLease(id)
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
	m.setLease(id)
	m.renewed(start, ttl)
	return id, nil
}

// granted returns the store lease of this process, a new one if it has none.
func (m *Manager) granted(ctx context.Context) (LeaseID, error) {
	if m.lease != 0 {
		return m.lease, nil
	}
	start := time.Now()
	id, err := m.store.Grant(ctx, m.o.TTL)
	if err != nil {
		return 0, err
	}
	m.setLease(id)
	m.renewed(start, m.o.TTL)
	return id, nil
}

func (m *Manager) setLease(id LeaseID) {
	m.lease = id
	if id == 0 {
		m.mu.Lock()
		m.until = time.Time{}
		m.mu.Unlock()
	}
}

// renewed plans the next renewal: a third of the time to live later, or sooner if the margin asks for it. The
// lease surely lives until start + ttl, start being the time before the request.
func (m *Manager) renewed(start time.Time, ttl time.Duration) {
	pause := ttl / 3
	if early := ttl - m.o.RenewMargin; early >= time.Minute {
		pause = min(pause, early)
	}
	m.renewAt = start.Add(pause)
	m.mu.Lock()
	m.until = start.Add(ttl)
	m.mu.Unlock()
	poke(m.changed)
}

// renew keeps the store lease alive. If it is gone, so is our record: the settling that follows makes both anew.
func (m *Manager) renew(ctx context.Context) {
	start := time.Now()
	ttl, err := m.store.KeepAlive(ctx, m.lease)
	switch {
	case err == nil:
		m.retry = backoff{}
		m.renewed(start, ttl)
	case errors.Is(err, ErrLeaseGone):
		m.log.Warn("store lease expired or revoked, taking the subnet again", "subnet", m.held.Key)
		m.mu.Lock()
		m.table.remove(m.held.Key)
		m.mu.Unlock()
		m.lease, m.held, m.retryAt = 0, nil, time.Now()
	default:
		m.renewAt = time.Now().Add(m.retry.next())
		m.log.Debug("store lease not renewed", "error", err)
	}
}

// hold takes in that the store has our record.
func (m *Manager) hold(e Entry) {
	fresh := m.wrote == nil || m.wrote.Key() != e.Key
	m.held, m.wrote, m.claim = &e, &e.Record, nil
	m.mu.Lock()
	m.table.put(e)
	changed := !slices.Equal(m.self, e.Leases) || !m.status.Held
	m.self = e.Leases
	m.status.Held, m.status.Waiting = true, ""
	m.mu.Unlock()
	if fresh {
		m.log.Info("subnet leased", "subnet", strings.TrimPrefix(e.Key, SubnetsFolder), "revision", e.Revision, "reservation", e.LeaseID == 0)
	}
	if changed {
		poke(m.changed)
	}
}

// tidy deletes other records that carry our identity and address: left behind by a write whose answer was lost, or by an
// earlier network configuration. Reservations stay.
func (m *Manager) tidy(ctx context.Context) error {
	for _, e := range m.strays() {
		m.log.Info("deleting an old record of this host", "key", e.Key)
		if err := m.store.Delete(ctx, e); err != nil {
			return err
		}
		m.mu.Lock()
		m.table.remove(e.Key)
		m.mu.Unlock()
	}
	return nil
}

func (m *Manager) strays() []Entry {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []Entry
	for key, e := range m.table.entries {
		ours := e.Identity == m.o.Identity || e.Identity == "" && !m.fitsLocked(e.Record)
		if key != m.held.Key && !e.Claim && e.LeaseID != 0 && ours && m.hasOurAddress(e.Record) {
			out = append(out, e)
		}
	}
	return out
}

// setWaiting shows, and says once, what we wait for.
func (m *Manager) setWaiting(why string) {
	m.mu.Lock()
	changed := m.status.Waiting != why
	m.status.Held, m.status.Waiting = false, why
	m.mu.Unlock()
	if changed {
		poke(m.changed)
		m.log.Warn("own subnet is not in the store", "reason", why)
	}
}
