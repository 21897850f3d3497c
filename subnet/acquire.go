package subnet

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
)

// acquire takes a subnet: the one in use, the one in the subnet file, or a free one. It reports whether there
// is nothing more to do now.
func (m *Manager) acquire(ctx context.Context) (bool, error) {
	if holder := m.holder(); holder != "" {
		if wait, err := m.lost(holder); wait || err != nil {
			return wait, err
		}
	}
	doubles := m.sameAddress()
	if ok, err := m.mayTake(ctx, doubles...); !ok || err != nil {
		return !ok, err
	}
	if i := slices.IndexFunc(doubles, func(e Entry) bool { return len(m.self) == 0 && m.fits(e.Record) }); i >= 0 {
		return true, m.takeOver(ctx, doubles[i])
	}
	if err := m.dropLeased(ctx, doubles); err != nil {
		return false, err
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
		return false, err
	}
	m.hold(e)
	return true, m.tidy(ctx)
}

// takeOver makes the record of a host that had our address, and does not answer, ours.
func (m *Manager) takeOver(ctx context.Context, e Entry) error {
	id, err := m.leaseFor(ctx, e, true)
	if err != nil {
		return err
	}
	m.log.Info("taking over the record of a host that had this address and is gone", "key", e.Key, "host", e.Host)
	if e, err = m.store.Update(ctx, e, m.record(e.Prefixes()), id); err != nil {
		return err
	}
	m.hold(e)
	return nil
}

// sameAddress returns the records of other hosts, known by an identity, that name our address, sorted by key. Ours under
// another host name may be a clone's. A host that claims something with another address has left this one: two hosts
// that swap addresses do not wait for each other.
func (m *Manager) sameAddress() []Entry {
	m.mu.Lock()
	defer m.mu.Unlock()
	left := map[string]bool{}
	for _, c := range m.table.claims {
		left[c.Identity] = c.Identity != m.o.Identity && !m.hasOurAddress(c.Record)
	}
	var out []Entry
	for _, e := range m.table.entries {
		if e.Identity != "" && !m.written(e.Record) && !left[e.Identity] && m.hasOurAddress(e.Record) {
			out = append(out, e)
		}
	}
	slices.SortFunc(out, func(a, b Entry) int { return cmp.Compare(a.Key, b.Key) })
	return out
}

// written reports whether this host, or a clone of it, has written the record.
func (m *Manager) written(r Record) bool { return r.Identity == m.o.Identity && r.Host == m.o.Host }

// dropLeased deletes the records of hosts that do not answer, but no reservations.
func (m *Manager) dropLeased(ctx context.Context, records []Entry) error {
	for _, e := range records {
		if e.LeaseID == 0 {
			continue
		}
		if err := m.drop(ctx, e); err != nil {
			return err
		}
	}
	return nil
}

// holder says who has the subnet that this host uses; empty: nobody, or it uses none.
func (m *Manager) holder() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.self) == 0 {
		return ""
	}
	// A record that is no subnet of this network takes nothing away.
	uses := func(p netip.Prefix) bool {
		return slices.ContainsFunc(m.self, func(own Lease) bool { return own.Subnet == p })
	}
	for _, e := range m.table.entries {
		if slices.ContainsFunc(e.Prefixes(), uses) {
			return e.Record.String()
		}
	}
	for key, b := range m.table.bad {
		if prefixes, _ := parseRecordKey(key); slices.ContainsFunc(prefixes, uses) {
			return fmt.Sprintf("a record that makes no sense (%v)", b.Err)
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
	m.held, m.lease = nil, 0 // whoever took the record may keep its store lease alive
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
	each := func(prefixes []netip.Prefix, may func(Pool, netip.Prefix) bool) bool {
		return slices.EqualFunc(prefixes, pools, func(s netip.Prefix, p Pool) bool { return may(p, s) })
	}
	if each(inUse, Pool.Holds) { // nobody holds it: see holder
		return inUse, true
	}
	if each(m.o.Wanted, func(p Pool, s netip.Prefix) bool { return p.Leases(s) && !taken(s) }) {
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
