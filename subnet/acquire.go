package subnet

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// acquire takes a subnet: the one in use, the one in the subnet file, or a free one. It reports whether there
// is nothing more to do now.
func (m *Manager) acquire(ctx context.Context) (bool, error) {
	old, outgrown := m.outgrown()
	if losses := m.losses(""); len(losses) > 0 {
		all, err := m.lost(losses)
		switch {
		case err != nil:
			return true, err
		case outgrown && m.o.OnLost == LostHold:
			return m.regrow(ctx, old)
		case all:
			return true, nil
		}
	}
	if outgrown && !m.elsewhere(old) {
		if _, err := m.leaseFor(ctx, old, false); err != nil { // it must not expire while others are asked
			return false, err
		}
	}
	doubles := m.sameAddress()
	if ok, err := m.mayTake(ctx, doubles...); !ok || err != nil {
		return !ok, err
	}
	if i := slices.IndexFunc(doubles, func(e Entry) bool { return len(m.self) == 0 && m.fits(e.Record) }); i >= 0 {
		return true, m.takeOver(ctx, doubles[i])
	}
	if err := m.dropLeased(ctx, append(doubles, m.former()...)); err != nil {
		return false, err
	}
	if outgrown {
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
	text := "taking over the record of a host that had this address and is gone"
	if m.sameMachine(e.Record) {
		text = "taking over the record of this host's last run"
	}
	m.log.Info(text, "key", e.Key, "host", e.Host)
	if e, err = m.overwrite(ctx, e, m.record(e.Prefixes()), id); err != nil {
		return err
	}
	m.hold(e)
	return m.tidy(ctx)
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
	return out[:min(len(out), maxAsked)]
}

// maxAsked is how many other owners of an address are asked before it is used. Each costs two requests, and more than a few
// records with one address are junk.
const maxAsked = 8

// former returns old records of this host that ours would collide with: a store that was restored has them again.
func (m *Manager) former() []Entry {
	return slices.DeleteFunc(m.strays(), func(e Entry) bool {
		return !m.fits(e.Record) || !slices.ContainsFunc(m.self, func(own Lease) bool { return slices.Contains(e.Prefixes(), own.Subnet) })
	})
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

// loss is a subnet that this host uses and a record of another one has.
type loss struct {
	subnet netip.Prefix
	holder string
	lease  LeaseID // of that record; 0: none, or not known
}

// losses returns what others have of the subnets that this host uses. The record at the key own, if any, is this host's.
func (m *Manager) losses(own string) []loss {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.lossesLocked(m.self, own)
}

// lossesLocked returns what others have of some subnets, in their order.
func (m *Manager) lossesLocked(leases []Lease, own string) []loss {
	var out []loss
	for _, l := range leases {
		if l, ok := m.lossLocked(l.Subnet, own); ok {
			out = append(out, l)
		}
	}
	return out
}

// lossLocked looks who has one subnet: whoever wrote the oldest record. One that is no subnet of this network takes nothing away.
func (m *Manager) lossLocked(p netip.Prefix, own string) (loss, bool) {
	var oldest *Entry
	for e := range m.table.living.all() {
		if (oldest == nil || e.Created < oldest.Created) && slices.ContainsFunc(e.Leases, func(l Lease) bool { return l.Subnet == p }) {
			oldest = e
		}
	}
	switch {
	case oldest == nil:
	case oldest.Key == own, m.outgrownLocked(*oldest), m.strayLocked(*oldest):
		return loss{}, false
	default:
		return loss{p, oldest.Record.String(), oldest.LeaseID}, true
	}
	for key, b := range m.table.bad {
		if prefixes, _ := parseRecordKey(key); slices.Contains(prefixes, p) {
			return loss{p, fmt.Sprintf("a record that makes no sense (%v)", b.Err), 0}, true
		}
	}
	return loss{}, false
}

// lost acts on the loss of subnets. It reports whether there is nothing left that this host uses and may announce. Under the policy hold
// what is left of a pair is not given up: pods live on it. See choose, regrow and hold.
func (m *Manager) lost(losses []loss) (bool, error) {
	var subnets, holders, what []string
	for _, l := range losses {
		subnets, what = append(subnets, l.subnet.String()), append(what, fmt.Sprintf("subnet %s was taken by %s", l.subnet, l.holder))
		if !slices.Contains(holders, l.holder) {
			holders = append(holders, l.holder)
		}
		if l.lease == 0 || l.lease == m.lease {
			m.lease = 0 // whoever wrote over our record may keep its store lease alive
		}
	}
	why := strings.Join(what, "; ")
	m.mu.Lock()
	again := m.status.Waiting == why
	m.status.Held, m.status.Lost, m.status.Waiting = false, true, why
	all := len(losses) == len(m.self)
	m.mu.Unlock()
	m.held = nil
	if !again {
		m.log.Error("subnet lost to another host", "subnet", strings.Join(subnets, ", "), "holder", strings.Join(holders, ", "), "policy", string(m.o.OnLost),
			"hint", "find out who wrote that record; delete it, or restart the pods of this host on the new subnet")
		poke(m.changed)
	}
	switch m.o.OnLost {
	case LostExit:
		return true, fmt.Errorf("%w: %s", ErrLost, why)
	case LostHold:
		return all, nil
	}
	m.mu.Lock()
	m.layOwnLocked()
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
