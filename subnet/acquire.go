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
	if lost, holder := m.holder(""); holder != "" {
		if wait, err := m.lost(lost, holder); wait || err != nil {
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
	if old, ok := m.outgrown(); ok {
		return m.regrow(ctx, old)
	}
	prefixes, ok := m.choose(Entry{})
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
	for e := range m.table.living.all() {
		if e.Identity != "" && !m.written(e.Record) && !left[e.Identity] && m.hasOurAddress(e.Record) {
			out = append(out, *e)
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

// holder says who has a subnet that this host uses, by a record at another key than that; empty: nobody, or it uses none.
func (m *Manager) holder(but string) (taken netip.Prefix, by string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	// A record that is no subnet of this network takes nothing away.
	uses := func(p netip.Prefix) bool {
		return slices.ContainsFunc(m.self, func(own Lease) bool { return own.Subnet == p })
	}
	for e := range m.table.living.all() {
		if i := slices.IndexFunc(e.Leases, func(l Lease) bool { return uses(l.Subnet) }); i >= 0 && e.Key != but && !m.outgrownLocked(*e) {
			return e.Leases[i].Subnet, e.Record.String()
		}
	}
	for key, b := range m.table.bad {
		prefixes, _ := parseRecordKey(key)
		if i := slices.IndexFunc(prefixes, uses); i >= 0 {
			return prefixes[i], fmt.Sprintf("a record that makes no sense (%v)", b.Err)
		}
	}
	return netip.Prefix{}, ""
}

// lost acts on the loss of one of our subnets to the holder. It reports whether to wait.
func (m *Manager) lost(subnet netip.Prefix, holder string) (bool, error) {
	why := fmt.Sprintf("subnet %s was taken by %s", subnet, holder)
	m.mu.Lock()
	again := m.status.Waiting == why
	m.status.Held, m.status.Lost, m.status.Waiting = false, true, why
	m.mu.Unlock()
	m.held, m.lease = nil, 0 // whoever took the record may keep its store lease alive
	if !again {
		m.log.Error("subnet lost to another host", "subnet", subnet.String(), "holder", holder, "policy", string(m.o.OnLost),
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
	m.kept, m.self = Record{Leases: m.self}.Prefixes(), nil
	m.mu.Unlock()
	return false, nil
}

func (m *Manager) full(p Pool) {
	m.mu.Lock()
	leases, reservations := m.table.counts(p)
	m.mu.Unlock()
	m.setWaiting(fmt.Sprintf("no free subnet: %s holds %d, with %d leases and %d reservations; delete unused records or widen the range",
		p, p.Size(), leases, reservations))
}
