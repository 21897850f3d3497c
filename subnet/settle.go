package subnet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// maxRounds bounds what one try to settle may do without a pause.
const maxRounds = 4

// errUnsettled is the end of a try that took too many rounds: somebody keeps changing what we look at.
var errUnsettled = errors.New("the store keeps changing under our hands")

// step does what is due: renew, drop ghosts, settle, refuse claims. Its errors end Run; what can heal is tried again later.
func (m *Manager) step(ctx context.Context) error {
	if m.held != nil && m.lease != 0 && m.renewalDue() {
		m.renew(ctx)
	}
	m.pruned()
	if !m.settleAt.IsZero() && !time.Now().Before(m.pace.at(m.settleAt)) {
		if err := m.try(ctx); err != nil {
			return err
		}
	}
	m.refuse(ctx)
	return nil
}

// try settles once. However it ends, the next try keeps its distance: neither a store that answers nonsense nor
// somebody who keeps deleting our record makes a storm of requests.
func (m *Manager) try(ctx context.Context) error {
	m.settleAt = time.Time{}
	err := m.settle(ctx)
	conflict := (*ConflictError)(nil)
	switch {
	case errors.Is(err, ErrLost), errors.Is(err, ErrCloned):
		return err
	case ctx.Err() != nil:
		return nil
	case err == nil:
		m.pace.tried(racePause)
	case errors.As(err, &conflict):
		m.mu.Lock()
		m.table.learn(conflict)
		m.mu.Unlock()
		if !m.lostClaim(conflict) {
			m.seed += "+" // whoever lost a race to a neighbour in hash order starts elsewhere
		}
		m.pace.tried(racePause)
		m.settleAt = time.Now()
	default:
		m.pace.tried(maxPause)
		m.settleAt = time.Now()
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
	if !m.settleAt.IsZero() {
		sooner(m.pace.at(m.settleAt))
	}
	if m.held != nil && m.lease != 0 {
		sooner(m.renewAt)
	}
	if _, ok := m.claimed(); ok {
		sooner(m.refuseAt())
	}
	m.mu.Lock()
	sooner(m.table.due())
	m.mu.Unlock()
	return max(0, time.Until(next))
}

// settle brings the store to hold our record, or finds out what to wait for.
func (m *Manager) settle(ctx context.Context) error {
	for range maxRounds {
		round := m.acquire
		if own, ok := m.findOwn(); ok {
			round = func(ctx context.Context) (bool, error) { return m.confirm(ctx, own) }
		}
		done, err := round(ctx)
		if errors.Is(err, ErrLeaseGone) {
			m.lease = 0
			continue
		}
		if done || err != nil {
			return err
		}
	}
	return errUnsettled
}

// findOwn returns our record: by identity, before that which the kernel already uses; else, if it has no
// identity, by our address.
func (m *Manager) findOwn() (Entry, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	best, bestRank := Entry{}, 0
	selfKey := ""
	if len(m.self) > 0 {
		selfKey = Record{Leases: m.self}.Key()
	}
	for e := range m.table.living.all() {
		rank := m.rankLocked(*e, selfKey)
		if rank > bestRank || rank == bestRank && rank > 0 && e.Created < best.Created {
			best, bestRank = *e, rank
		}
	}
	return best, bestRank > 0
}

// rankLocked says how surely an entry is ours; 0: it is not, or of no use in this network. Pods live on the subnet in use:
// another record of ours is no reason to leave it, unless it is a reservation that was made while we did not run.
func (m *Manager) rankLocked(e Entry, selfKey string) int {
	if !m.fitsLocked(e.Record) || selfKey != "" && e.Key != selfKey && (m.wrote != nil || e.LeaseID != 0) {
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
	return slices.EqualFunc(r.Leases, m.config.Pools, func(l Lease, p Pool) bool { return p.Holds(l.Subnet) }) && !m.reserved(r.Prefixes()...)
}

// reserved reports whether subnets of this host would take from it what it needs to reach its peers and the store. Pods would get addresses of
// hosts.
func (m *Manager) reserved(subnets ...netip.Prefix) bool {
	if m.o.Reserved == nil {
		return false
	}
	all := m.o.Reserved()
	return slices.ContainsFunc(subnets, func(s netip.Prefix) bool { return slices.ContainsFunc(all, s.Overlaps) })
}

// LeaveReserved gives up the subnets of the last run if they are reserved. It is called before Run, when Options.Reserved has an answer.
func (m *Manager) LeaveReserved() {
	m.mu.Lock()
	own := Record{Leases: m.self}.Prefixes()
	given := m.reserved(own...)
	if given {
		m.self = nil
	}
	m.mu.Unlock()
	if given {
		m.log.Warn("subnet of the last run given up: this host needs addresses in it to reach its peers or the store", "subnet", fmt.Sprint(own))
	}
}

func (m *Manager) pools() []Pool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.config.Pools
}

func (m *Manager) fits(r Record) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.fitsLocked(r)
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
	if m.hasRival(own) {
		return m.yield(ctx, own)
	}
	want := m.record(own.Prefixes())
	moved := !sameAddresses(own.Record, want)
	// Not what we published: this host has changed while we did not run, or a clone of it has written the record.
	foreign := own.Identity != "" && (moved || own.Host != want.Host) && (m.wrote == nil || !own.Record.Equal(*m.wrote))
	var others, doubles []Entry
	if moved {
		doubles = slices.DeleteFunc(m.sameAddress(), func(e Entry) bool { return e.Key == own.Key })
	}
	if foreign {
		others = []Entry{own}
	} else if _, err := m.leaseFor(ctx, own, false); err != nil { // it must not expire while others are asked
		return false, err
	}
	if ok, err := m.mayTake(ctx, append(others, doubles...)...); !ok || err != nil {
		return !ok, err
	}
	if err := m.dropLeased(ctx, doubles); err != nil {
		return false, err
	}
	id, err := m.leaseFor(ctx, own, foreign)
	if err != nil {
		return false, err
	}
	if err := m.write(ctx, own, want, id); err != nil {
		return false, err
	}
	return true, m.tidy(ctx)
}

func sameAddresses(a, b Record) bool {
	return slices.EqualFunc(a.Leases, b.Leases, func(a, b Lease) bool { return a.PublicIP == b.PublicIP })
}

// hold takes in that the store has our record. While a half of our pair is lost and waited for, nothing changes for the pods.
func (m *Manager) hold(e Entry) {
	fresh := m.wrote == nil || m.wrote.Key() != e.Key
	m.held, m.wrote = &e, &e.Record
	m.mu.Lock()
	m.table.put(&e)
	whole := m.fitsLocked(e.Record) && len(m.lossesLocked(e.Leases, e.Key)) == 0
	changed := whole && (!slices.Equal(m.self, e.Leases) || !m.status.Held)
	if whole {
		m.self = e.Leases
		m.status.Held, m.status.Lost, m.status.Waiting = true, false, ""
	}
	m.mu.Unlock()
	if fresh {
		m.log.Info("subnet leased", "subnet", strings.TrimPrefix(e.Key, SubnetsFolder), "revision", e.Revision, "reservation", e.LeaseID == 0)
	}
	if changed {
		poke(m.changed)
	}
}

// tidy deletes other records that carry our identity and address: left behind by a write whose answer was lost, or by an
// earlier network configuration. Reservations stay. Those with another address are named: their host may live.
func (m *Manager) tidy(ctx context.Context) error {
	m.withdraw(ctx)
	m.noteTwins()
	for _, e := range m.strays() {
		m.log.Info("deleting an old record of this host", "key", e.Key)
		if err := m.drop(ctx, e); err != nil {
			return err
		}
	}
	return nil
}

// drop deletes a record, by our claim to it if we have made one.
func (m *Manager) drop(ctx context.Context, e Entry) error {
	if err := m.store.Delete(ctx, e, m.consent(e)...); err != nil {
		return err
	}
	delete(m.claims, e.Key)
	m.mu.Lock()
	m.table.remove(e.Key)
	m.mu.Unlock()
	return nil
}

func (m *Manager) noteTwins() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for e := range m.table.living.all() {
		const why = "this host's identity at another address: a cloned disk, or an old record of this host"
		if e.Key != m.held.Key && e.Identity == m.o.Identity && !m.hasOurAddress(e.Record) && !m.twins[e.Key] {
			m.twins[e.Key] = true
			m.log.Warn("record of this host's identity", "key", e.Key, "holder", e.Record.String(), "reason", why)
		}
	}
}

func (m *Manager) strays() []Entry {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []Entry
	for e := range m.table.living.all() {
		if (m.held == nil || e.Key != m.held.Key) && m.strayLocked(*e) {
			out = append(out, *e)
		}
	}
	return out
}

// strayLocked reports whether a record is to be deleted when this host has another one.
func (m *Manager) strayLocked(e Entry) bool {
	ours := m.written(e.Record) || e.Identity == "" && !m.fitsLocked(e.Record)
	return e.LeaseID != 0 && ours && m.hasOurAddress(e.Record)
}

// setWaiting shows, and says once, what we wait for.
func (m *Manager) setWaiting(why string) { m.setWaitingAt(slog.LevelWarn, why) }

func (m *Manager) setWaitingAt(level slog.Level, why string) {
	m.mu.Lock()
	changed := m.status.Waiting != why
	m.status.Held, m.status.Waiting = false, why
	m.mu.Unlock()
	if changed {
		poke(m.changed)
		m.log.Log(context.Background(), level, "own subnet is not in the store", "reason", why)
	}
}
