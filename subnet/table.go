package subnet

import (
	"net/netip"
	"slices"
	"time"
)

// table is what the manager knows of the store: pure, no clock of its own, and whoever has it may change it.
type table struct {
	living  *roster         // the records of the store
	ghosts  *roster         // records that it does not have any more
	fates   map[string]fate // of the ghosts that do not end with those of the last list that lost some
	end     time.Time       // when those end
	claims  map[string]Entry
	bad     map[string]BadRecord
	picture *picture // kept up to date with living, ghosts and bad; nil: nobody has looked yet

	next          time.Time // no ghost is due before; zero: there is none
	lost, deleted int       // ghosts of both kinds that were dropped since prune told it
	kept          int       // ghosts that a list has lost
}

// fate is of a ghost: the record of a peer that the store does not have any more, to which packets still go until the time is up or
// the subnet has a new owner. Either a list after a break did not show it: the store may have been wiped, and its host
// may well live. Or it was deleted a moment ago: its host, if it lives, is taking it again.
type fate struct {
	until   time.Time
	deleted bool
}

func newTable() *table {
	t := &table{}
	t.clear()
	t.ghosts, t.fates = newRoster(), map[string]fate{}
	return t
}

// clear forgets everything but the ghosts.
func (t *table) clear() {
	t.living, t.claims, t.bad, t.picture = newRoster(), map[string]Entry{}, map[string]BadRecord{}, nil
}

// reset replaces everything by a list. What the list has lost becomes a ghost until the given time; if that is
// zero, it is dropped.
func (t *table) reset(s Snapshot, until time.Time) {
	lost := t.living
	t.clear()
	switch {
	case until.IsZero():
		lost = newRoster()
		t.ghosts, t.fates, t.next, t.kept = newRoster(), map[string]fate{}, time.Time{}, 0
	case 2*len(s.Entries) < lost.len(): // of a store that was wiped: most are lost, and those that are not come below
		t.lose(lost, until)
		lost = newRoster()
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
			t.haunt(e, fate{until: until})
		}
	}
}

// lose makes all records ghosts that were living, at no cost for each. Those that still live must be put again then.
func (t *table) lose(all *roster, until time.Time) {
	for g := range t.ghosts.all() {
		t.fates[g.Key] = t.fate(g.Key)
	}
	t.end = until
	t.kept += all.len()
	t.dueBy(until)
	few := t.ghosts
	if few.len() > all.len() {
		few, all = all, few
	}
	for e := range few.all() {
		all.put(e)
	}
	t.ghosts = all
}

// fate returns that of a ghost.
func (t *table) fate(key string) fate {
	if f, own := t.fates[key]; own {
		return f
	}
	return fate{until: t.end}
}

// dueBy has the ghosts looked at at a time, if not before.
func (t *table) dueBy(until time.Time) {
	if t.next.IsZero() || until.Before(t.next) {
		t.next = until
	}
}

// keepGhosts sets the time of all ghosts.
func (t *table) keepGhosts(until time.Time) {
	for key, f := range t.fates {
		f.until = until
		t.fates[key] = f
	}
	t.end = until
	if t.next = until; t.ghosts.len() == 0 {
		t.next = time.Time{}
	}
}

// put takes in what stands in the store, which nobody changes from then on. Ghosts of its host, or in its subnets, are dropped.
func (t *table) put(e *Entry) {
	if e.Claim {
		t.claims[e.Key] = *e
		return
	}
	t.removeBad(e.Key)
	t.removeLiving(e.Key)
	t.lay(e.Key)
	for _, g := range t.ghosts.kin(e) {
		t.displace(g, e)
	}
	t.living.put(e)
	if t.picture != nil {
		t.picture.put(e, false)
	}
}

func (t *table) putBad(b BadRecord) {
	t.bad[b.Key] = b
	if t.picture != nil {
		t.picture.stale[b.Key] = true
	}
}

// apply carries out one event; a deleted record stays as a ghost until the given time. An event that is older than what
// is known changes nothing.
func (t *table) apply(ev Event, until time.Time) {
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
			t.haunt(e, fate{until, true})
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
	r.living, r.ghost = t.living.at(key), t.ghosts.at(key)
	return r
}

func (t *table) remove(key string) {
	delete(t.claims, key)
	t.removeBad(key)
	t.removeLiving(key)
	t.lay(key)
}

func (t *table) removeBad(key string) {
	if _, there := t.bad[key]; there {
		delete(t.bad, key)
		if t.picture != nil {
			t.picture.doubt(key)
		}
	}
}

func (t *table) removeLiving(key string) {
	if e := t.living.take(key); e != nil && t.picture != nil {
		t.picture.take(e, false)
	}
}

// haunt makes a record a ghost, but what a living one displaces of it.
func (t *table) haunt(e *Entry, f fate) {
	t.lay(e.Key)
	t.ghosts.put(e)
	t.fates[e.Key] = f
	if !f.deleted {
		t.kept++
	}
	t.dueBy(f.until)
	if t.picture != nil {
		t.picture.put(e, true)
	}
	if kin := t.living.kin(e); len(kin) > 0 {
		t.displace(e, kin[0])
	}
}

// displace ends a ghost for a living record with its identity or an address of it. One that has a subnet of it ends that only: the other
// of a pair stays.
func (t *table) displace(g, by *Entry) {
	left := *g
	left.Leases = slices.DeleteFunc(slices.Clone(g.Leases), func(l Lease) bool { return slices.Contains(by.Prefixes(), l.Subnet) })
	sameHost := g.Identity != "" && g.Identity == by.Identity || slices.ContainsFunc(g.Leases, func(l Lease) bool {
		return slices.ContainsFunc(by.Leases, func(o Lease) bool { return l.PublicIP == o.PublicIP })
	})
	if sameHost || len(left.Leases) == 0 {
		t.drop(g.Key)
		return
	}
	f := t.fate(g.Key)
	t.lay(g.Key)
	t.haunt(&left, f)
}

// lay ends a ghost, if there is one at the key.
func (t *table) lay(key string) {
	e := t.ghosts.take(key)
	if e == nil {
		return
	}
	if !t.fate(key).deleted {
		t.kept--
	}
	delete(t.fates, key)
	if t.picture != nil {
		t.picture.take(e, true)
	}
}

// drop ends a ghost, to be told by prune.
func (t *table) drop(key string) {
	if t.fate(key).deleted {
		t.deleted++
	} else {
		t.lost++
	}
	t.lay(key)
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

// due returns when to prune; zero: there is no ghost.
func (t *table) due() time.Time { return t.next }

// prune drops the ghosts whose time is up. It returns how many of both kinds were dropped for any reason since it was last called.
func (t *table) prune(now time.Time) (lost, deleted int) {
	if !t.next.IsZero() && !now.Before(t.next) {
		t.next = time.Time{}
		for key, f := range t.fates {
			if now.Before(f.until) {
				t.dueBy(f.until)
			} else {
				t.drop(key)
			}
		}
		if t.ghosts.len() > len(t.fates) {
			t.dropRest(now)
		}
	}
	lost, deleted = t.lost, t.deleted
	t.lost, t.deleted = 0, 0
	return lost, deleted
}

// dropRest drops those that have no fate of their own, if their time is up.
func (t *table) dropRest(now time.Time) {
	if now.Before(t.end) {
		t.dueBy(t.end)
		return
	}
	for _, g := range slices.Collect(t.ghosts.all()) {
		if _, own := t.fates[g.Key]; !own {
			t.drop(g.Key)
		}
	}
}

// sorted returns all records, and behind them the ghosts, each in the order of their age and key.
func (t *table) sorted() []*Entry { return slices.Concat(t.living.byAge(), t.ghosts.byAge()) }

// taken returns the subnets that may not be leased: those of all records, however bad, and of the ghosts, but not of the record at the
// key except. One that covers the whole network cannot be meant: the hosts of flannel that have no IPv4 all write 0.0.0.0-0.
func (t *table) taken(c Config, except string) (out []netip.Prefix) {
	add := func(prefixes []netip.Prefix) {
		for _, p := range prefixes {
			if pool, ok := c.Pool(p); ok && p.Bits() > pool.Network.Bits() {
				out = append(out, p)
			}
		}
	}
	for _, r := range []*roster{t.living, t.ghosts} {
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
