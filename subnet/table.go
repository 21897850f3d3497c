package subnet

import (
	"net/netip"
	"slices"
	"time"
)

// table is what the manager knows of the store: pure, no clock of its own, and whoever has it may change it.
type table struct {
	living     *recordSet           // the records of the store
	stale      *recordSet           // records that it does not have any more
	retentions map[string]retention // of the stale records that do not end with those of the last list that lost some
	end        time.Time            // when those end
	claims     map[string]Entry
	bad        map[string]BadRecord
	selection  *selection // kept up to date with living, stale records and bad; nil: nobody has looked yet

	next          time.Time // no stale record is due before; zero: there is none
	lost, deleted int       // stale records of both kinds that were dropped since prune counted them
	kept          int       // stale records that a list has lost
}

// retention says how long a stale record stays: that of a peer which the store does not have any more, to which packets
// still go until then or until the subnet has a new owner. Either a list after a break did not show it: the store may
// have been wiped, and its host may well live. Or it was deleted a moment ago: its host, if it lives, is taking it
// again.
type retention struct {
	until   time.Time
	deleted bool
}

func newTable() *table {
	t := &table{}
	t.clear()
	t.stale, t.retentions = newRecordSet(), map[string]retention{}
	return t
}

// clear forgets everything but the stale records.
func (t *table) clear() {
	t.living, t.claims, t.bad, t.selection = newRecordSet(), map[string]Entry{}, map[string]BadRecord{}, nil
}

// reset replaces everything by a list. What the list has lost is stale until the given time; if that is
// zero, it is dropped.
func (t *table) reset(s Snapshot, until time.Time) {
	lost := t.living
	t.clear()
	t.keepDeleted(until)
	switch {
	case until.IsZero():
		lost = newRecordSet()
		t.stale, t.retentions, t.next, t.kept = newRecordSet(), map[string]retention{}, time.Time{}, 0
	case 2*len(s.Entries) < lost.len(): // of a store that was wiped: most are lost, and those that are not come below
		t.lose(lost, until)
		lost = newRecordSet()
	}
	for _, e := range s.Entries {
		t.put(e)
	}
	for i := range s.Claims {
		t.put(&s.Claims[i])
	}
	for _, b := range s.Bad {
		t.bad[b.Key] = b
	}
	for e := range lost.all() {
		if t.living.at(e.Key) == nil {
			t.retain(e, retention{until: until})
		}
	}
}

// keepDeleted takes records that were deleted a moment ago for lost ones: the watch may have ended between that and the
// news that their hosts have written them again.
func (t *table) keepDeleted(until time.Time) {
	for key, r := range t.retentions {
		if r.deleted {
			t.retentions[key] = retention{until: until}
			t.kept++
		}
	}
}

// lose makes all records stale that were living, at no cost for each. Those that still live must be put again then.
func (t *table) lose(all *recordSet, until time.Time) {
	for g := range t.stale.all() {
		t.retentions[g.Key] = t.retention(g.Key)
	}
	t.end = until
	t.kept += all.len()
	t.dueBy(until)
	few := t.stale
	if few.len() > all.len() {
		few, all = all, few
	}
	for e := range few.all() {
		all.put(e)
	}
	t.stale = all
}

// retention returns how long the stale record at a key stays.
func (t *table) retention(key string) retention {
	if f, own := t.retentions[key]; own {
		return f
	}
	return retention{until: t.end}
}

// dueBy has the stale records looked at at a time, if not before.
func (t *table) dueBy(until time.Time) {
	if t.next.IsZero() || until.Before(t.next) {
		t.next = until
	}
}

// retainAll sets the time of all stale records.
func (t *table) retainAll(until time.Time) {
	for key, f := range t.retentions {
		f.until = until
		t.retentions[key] = f
	}
	t.end = until
	if t.next = until; t.stale.len() == 0 {
		t.next = time.Time{}
	}
}

// extendLost sets the time of the stale records that a list has lost.
func (t *table) extendLost(until time.Time) {
	for key, r := range t.retentions {
		if !r.deleted {
			r.until = until
			t.retentions[key] = r
		}
	}
	t.end = until
}

// put takes in what stands in the store, which nobody changes from then on. Stale of its host, or in its subnets, are
// dropped.
func (t *table) put(e *Entry) {
	if e.Claim {
		t.claims[e.Key] = *e
		return
	}
	t.removeBad(e.Key)
	t.removeLiving(e.Key)
	t.release(e.Key)
	for _, g := range t.stale.related(e) {
		t.displace(g, e)
	}
	t.living.put(e)
	if t.selection != nil {
		t.selection.put(e, false)
	}
}

func (t *table) putBad(b BadRecord) {
	t.bad[b.Key] = b
	if t.selection != nil {
		t.selection.recheck[b.Key] = true
	}
}

// apply carries out one event; a deleted record is stale as is given. An event that is older than what is known changes
// nothing.
func (t *table) apply(ev Event, gone retention) {
	switch {
	case ev.Put != nil:
		if t.revision(ev.Put.Key) <= ev.Revision {
			t.put(ev.Put)
		}
	case ev.Bad != nil:
		if t.revision(ev.Bad.Key) <= ev.Revision {
			t.remove(ev.Bad.Key)
			t.putBad(*ev.Bad)
		}
	case ev.Deleted != "":
		if t.revision(ev.Deleted) > ev.Revision {
			return
		}
		e := t.living.at(ev.Deleted)
		t.remove(ev.Deleted)
		if e != nil {
			t.retain(e, gone)
		}
	}
}

// revision returns the revision of what is known to stand at a key; 0: nothing.
func (t *table) revision(key string) int64 {
	r := max(t.claims[key].Revision, t.bad[key].Revision)
	if e := t.living.at(key); e != nil {
		r = max(r, e.Revision)
	}
	return r
}

// at returns what is known under a key.
func (t *table) at(key string) (r reasoned) {
	if b, ok := t.bad[key]; ok {
		r.bad = &b
	}
	r.living, r.stale = t.living.at(key), t.stale.at(key)
	return r
}

func (t *table) remove(key string) {
	delete(t.claims, key)
	t.removeBad(key)
	t.removeLiving(key)
	t.release(key)
}

func (t *table) removeBad(key string) {
	if _, there := t.bad[key]; there {
		delete(t.bad, key)
		if t.selection != nil {
			t.selection.mark(key)
		}
	}
}

func (t *table) removeLiving(key string) {
	if e := t.living.take(key); e != nil && t.selection != nil {
		t.selection.take(e, false)
	}
}

// retain makes a record stale, but what a living one displaces of it.
func (t *table) retain(e *Entry, f retention) {
	t.release(e.Key)
	t.stale.put(e)
	t.retentions[e.Key] = f
	if !f.deleted {
		t.kept++
	}
	t.dueBy(f.until)
	if t.selection != nil {
		t.selection.put(e, true)
	}
	if related := t.living.related(e); len(related) > 0 {
		t.displace(e, related[0])
	}
}

// displace ends a stale record for a living record with its identity or an address of it. One that has a subnet of it
// ends that only: the other of a pair stays.
func (t *table) displace(g, by *Entry) {
	left := *g
	left.Leases = slices.DeleteFunc(slices.Clone(g.Leases),
		func(l Lease) bool { return slices.Contains(by.Prefixes(), l.Subnet) })
	sameHost := g.Identity != "" && g.Identity == by.Identity || slices.ContainsFunc(g.Leases, func(l Lease) bool {
		return slices.ContainsFunc(by.Leases, func(o Lease) bool { return l.PublicIP == o.PublicIP })
	})
	if sameHost || len(left.Leases) == 0 {
		t.drop(g.Key)
		return
	}
	f := t.retention(g.Key)
	t.release(g.Key)
	t.retain(&left, f)
}

// release drops the stale record at a key, if there is one.
func (t *table) release(key string) {
	e := t.stale.take(key)
	if e == nil {
		return
	}
	if !t.retention(key).deleted {
		t.kept--
	}
	delete(t.retentions, key)
	if t.selection != nil {
		t.selection.take(e, true)
	}
}

// drop drops the stale record at a key, to be counted by prune.
func (t *table) drop(key string) {
	if t.retention(key).deleted {
		t.deleted++
	} else {
		t.lost++
	}
	t.release(key)
}

// learn takes in what stood where we wanted to write.
func (t *table) learn(c *ConflictError) {
	t.remove(c.Key)
	switch {
	case c.Current != nil:
		t.put(c.Current)
	case c.Bad != nil:
		t.putBad(*c.Bad)
	}
}

// due returns when to prune; zero: there is no stale record.
func (t *table) due() time.Time { return t.next }

// prune drops the stale records whose time is up. It returns how many of both kinds were dropped for any reason since
// it was last called.
func (t *table) prune(now time.Time) (lost, deleted int) {
	if !t.next.IsZero() && !now.Before(t.next) {
		t.next = time.Time{}
		for key, f := range t.retentions {
			if now.Before(f.until) {
				t.dueBy(f.until)
			} else {
				t.drop(key)
			}
		}
		if t.stale.len() > len(t.retentions) {
			t.dropRest(now)
		}
	}
	lost, deleted = t.lost, t.deleted
	t.lost, t.deleted = 0, 0
	return lost, deleted
}

// dropRest drops those that have no retention of their own, if their time is up.
func (t *table) dropRest(now time.Time) {
	if now.Before(t.end) {
		t.dueBy(t.end)
		return
	}
	for _, g := range slices.Collect(t.stale.all()) {
		if _, own := t.retentions[g.Key]; !own {
			t.drop(g.Key)
		}
	}
}

// sorted returns all records, and behind them the stale ones, each in the order of their age and key.
func (t *table) sorted() []*Entry { return slices.Concat(t.living.byAge(), t.stale.byAge()) }

// taken returns the subnets that may not be leased: those of all records, however bad, also stale ones, but not of the
// record at the key except. One that covers the whole network cannot be meant: the hosts of flannel that have no IPv4
// all write 0.0.0.0-0.
func (t *table) taken(c Config, except string) (out []netip.Prefix) {
	add := func(prefixes []netip.Prefix) {
		for _, p := range prefixes {
			if pool, ok := c.Pool(p); ok && p.Bits() > pool.Network.Bits() {
				out = append(out, p)
			}
		}
	}
	for _, r := range []*recordSet{t.living, t.stale} {
		for e := range r.all() {
			if e.Key != except {
				add(e.Prefixes())
			}
		}
	}
	for key := range t.bad {
		if prefixes, err := parseRecordKey(key); err == nil {
			add(prefixes)
		}
	}
	return out
}

// counts returns how many leases and reservations the pool's network holds.
func (t *table) counts(pool Pool) (leases, reservations int) {
	for e := range t.living.all() {
		for _, l := range e.Leases {
			switch {
			case !pool.Network.Contains(l.Subnet.Addr()):
			case e.LeaseID == 0:
				reservations++
			default:
				leases++
			}
		}
	}
	return leases, reservations
}
