package subnet

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// A host has one subnet of each family, in one record. When one of the pair must be another, or the network gets or loses a
// family, the record changes its key in one transaction, and what can stay stays: pods live on it.

// choose returns the subnets to ask for, one for each pool but those whose subnet in use is lost and waited for, or false after
// having said that there are none. The record old is to be replaced.
func (m *Manager) choose(old Entry) ([]netip.Prefix, bool) {
	losses := m.losses(old.Key)
	m.mu.Lock()
	occupied, pools := m.table.taken(m.config, old.Key), m.config.Pools
	inUse, kept := Record{Leases: m.self}.Prefixes(), append(old.Prefixes(), m.kept...)
	m.mu.Unlock()
	taken := func(p netip.Prefix) bool { return slices.ContainsFunc(occupied, p.Overlaps) || m.reserved(p) }
	avoided := occupied
	if m.o.Avoid != nil {
		avoided = slices.Concat(occupied, m.o.Avoid())
	}
	var chosen []netip.Prefix
	for _, p := range pools {
		first := func(from []netip.Prefix, may func(netip.Prefix) bool) (netip.Prefix, bool) {
			i := slices.IndexFunc(from, may)
			if i < 0 {
				return netip.Prefix{}, false
			}
			return from[i], true
		}
		prefix, ok := first(inUse, func(s netip.Prefix) bool { return p.Holds(s) && !m.reserved(s) })
		if slices.ContainsFunc(losses, func(l loss) bool { return l.subnet == prefix }) {
			continue
		}
		if !ok {
			prefix, ok = first(kept, func(s netip.Prefix) bool { return p.Holds(s) && !taken(s) })
		}
		if !ok {
			prefix, ok = first(m.o.Wanted, func(s netip.Prefix) bool { return p.Leases(s) && !taken(s) })
		}
		if !ok {
			prefix, ok = p.Choose(m.seed, avoided)
		}
		if !ok {
			m.full(p)
			return nil, false
		}
		chosen = append(chosen, prefix)
	}
	return chosen, true
}

// outgrown returns a record of this host that is of use in this network with one of its subnets only: it is from before the
// network got, or lost, the other family.
func (m *Manager) outgrown() (Entry, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	best, found := Entry{}, false
	for e := range m.table.living.all() {
		if m.outgrownLocked(*e) && (!found || e.Created < best.Created) {
			best, found = *e, true
		}
	}
	return best, found
}

func (m *Manager) outgrownLocked(e Entry) bool {
	ours := e.Identity == m.o.Identity || e.Identity == "" && m.hasOurAddress(e.Record)
	return ours && !m.fitsLocked(e.Record) && len(e.Leases) != len(m.config.Pools) && slices.ContainsFunc(e.Leases, func(l Lease) bool {
		p, ok := m.config.Pool(l.Subnet)
		return ok && p.Holds(l.Subnet)
	})
}

// regrow replaces a record of ours by one with the subnets that this network wants, and keeps those that it can.
func (m *Manager) regrow(ctx context.Context, old Entry) (bool, error) {
	foreign := m.elsewhere(old)
	if ok, err := m.mayRegrow(ctx, old, foreign); !ok || err != nil {
		return !ok, err
	}
	id, err := m.leaseFor(ctx, old, foreign)
	if err != nil {
		return false, err
	}
	next := m.successor(old)
	if err := m.write(ctx, old, m.record(next.prefixes), id, next.pieces...); err != nil {
		return false, err
	}
	if next.why != "" {
		m.setWaiting(next.why)
	}
	if next.stuck {
		m.withdraw(ctx)
		return true, nil
	}
	return true, m.tidy(ctx)
}

// mayRegrow asks whoever else may live on a record of ours, or on a twin of it that has what this host uses, and deletes the twins that
// nobody lives on. It reports whether the record may be replaced; false: not known yet, or somebody has answered.
func (m *Manager) mayRegrow(ctx context.Context, old Entry, foreign bool) (bool, error) {
	twins := m.twinsOfUse(old)
	ask := twins
	if foreign {
		ask = append(ask, old)
	}
	if ok, err := m.mayTake(ctx, ask...); !ok || err != nil {
		return false, err
	}
	return true, m.dropLeased(ctx, twins)
}

// successor is what a record of ours is to become.
type successor struct {
	prefixes []netip.Prefix
	pieces   []Entry // other records that it takes the place of, too
	stuck    bool    // it waits, and other records of ours may have what it is to get
	why      string  // what it waits for, unless choose has said so
}

// successor chooses what the record old is to become. While that must wait, what is left of our pair stands in the old one: for the rest
// everybody goes by the older record.
func (m *Manager) successor(old Entry) successor {
	prefixes, ok := m.choose(old)
	if !ok {
		return successor{prefixes: old.Prefixes(), stuck: true}
	}
	if m.record(prefixes).Key() != old.Key {
		if why := m.disputed(prefixes, old); why != "" {
			return successor{prefixes: old.Prefixes(), stuck: true, why: why}
		}
	}
	left := !slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return !slices.Contains(old.Prefixes(), p) })
	if left && len(prefixes) < len(m.pools()) {
		return successor{prefixes: old.Prefixes()}
	}
	return successor{prefixes: prefixes, pieces: m.pieces(old, prefixes)}
}

// write brings the record old, and others that it takes the place of, to say what we want under a store lease, and holds it.
func (m *Manager) write(ctx context.Context, old Entry, want Record, id LeaseID, others ...Entry) error {
	e := old
	if !old.Equal(want) || id != old.LeaseID {
		var err error
		if e, err = m.overwrite(ctx, old, want, id, others...); err != nil {
			return err
		}
	}
	if e.Key != old.Key {
		m.log.Info("own record replaced", "old", strings.TrimPrefix(old.Key, SubnetsFolder), "new", strings.TrimPrefix(e.Key, SubnetsFolder))
	}
	m.hold(e)
	return nil
}

// pieces returns the records of this host, but for one, that have one of the subnets of the one which is to replace them all, sorted by key.
func (m *Manager) pieces(but Entry, prefixes []netip.Prefix) []Entry {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []Entry
	for e := range m.table.living.all() {
		shared := slices.ContainsFunc(e.Leases, func(l Lease) bool { return slices.Contains(prefixes, l.Subnet) })
		if e.Key != but.Key && e.Identity == m.o.Identity && e.LeaseID != 0 && shared && !m.elsewhere(*e) {
			out = append(out, *e)
		}
	}
	slices.SortFunc(out, func(a, b Entry) int { return cmp.Compare(a.Key, b.Key) })
	return out
}

// elsewhere reports whether a record that counts as ours was written at another address or under another host name, and not by this process:
// its writer may live. One address of a pair that is still ours is enough; confirm also asks when one of two has changed.
func (m *Manager) elsewhere(e Entry) bool {
	return e.Identity != "" && (!m.hasOurAddress(e.Record) || e.Host != m.o.Host) && (m.wrote == nil || !e.Record.Equal(*m.wrote))
}

// twinsOfUse returns the records of our identity from elsewhere, but for one, that have a subnet which this host uses, sorted by key.
func (m *Manager) twinsOfUse(but Entry) []Entry {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []Entry
	for e := range m.table.living.all() {
		used := slices.ContainsFunc(m.self, func(own Lease) bool { return slices.Contains(e.Prefixes(), own.Subnet) })
		if e.Key != but.Key && e.Identity == m.o.Identity && used && m.elsewhere(*e) {
			out = append(out, *e)
		}
	}
	slices.SortFunc(out, func(a, b Entry) int { return cmp.Compare(a.Key, b.Key) })
	return out
}

// disputed says why a record of ours must keep its key for now: a younger record has one of the subnets, too, or one that makes no sense. As
// long as ours stands everybody goes by it; under another key it would be the younger one. Empty: it need not.
func (m *Manager) disputed(prefixes []netip.Prefix, old Entry) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []string
	dispute := func(key, of string, named []netip.Prefix) {
		for _, p := range named {
			if key != old.Key && slices.Contains(prefixes, p) && slices.Contains(old.Prefixes(), p) {
				all = append(all, fmt.Sprintf("the subnet %s of this host is also in the record %s%s: delete that", p, strings.TrimPrefix(key, SubnetsFolder), of))
			}
		}
	}
	for e := range m.table.living.all() {
		if !m.strayLocked(*e) {
			dispute(e.Key, " of "+e.Record.String(), e.Prefixes())
		}
	}
	for key := range m.table.bad {
		named, _ := parseRecordKey(key)
		dispute(key, ", which makes no sense", named)
	}
	slices.Sort(all)
	return strings.Join(all, "; ")
}

// hasRival reports whether an older record has one of the subnets of ours. All hosts go by the older record. Such a pair
// is written by hosts that look for keys only: the keys of two pairs with one subnet in common differ.
func (m *Manager) hasRival(own Entry) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	prefixes := own.Prefixes()
	for e := range m.table.living.all() {
		if e.Key != own.Key && e.Created < own.Created && !m.strayLocked(*e) && slices.ContainsFunc(e.Leases, func(l Lease) bool { return slices.Contains(prefixes, l.Subnet) }) {
			return true
		}
	}
	return false
}

// yield gives up the subnet that a rival has, and keeps the other one; under the policy hold it keeps the record alive as it is.
// Those in use may be others, and also lost.
func (m *Manager) yield(ctx context.Context, own Entry) (bool, error) {
	if losses := m.losses(own.Key); len(losses) > 0 {
		if _, err := m.lost(losses); err != nil {
			return true, err
		}
	}
	return m.regrow(ctx, own)
}
