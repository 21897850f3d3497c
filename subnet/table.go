package subnet

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// table is what the manager knows of the store: pure, no clock of its own, and whoever has it may change it.
type table struct {
	entries map[string]Entry
	claims  map[string]Entry
	bad     map[string]BadRecord
	ghosts  map[string]ghost
}

// ghost is the record of a peer that the store does not have any more, to which packets still go until the time is up or
// the subnet has a new owner. Either a list after a break did not show it: the store may have been wiped, and its host
// may well live. Or it was deleted a moment ago: its host, if it lives, is taking it again.
type ghost struct {
	Entry
	until   time.Time
	deleted bool
}

func newTable() *table {
	return &table{entries: map[string]Entry{}, claims: map[string]Entry{}, bad: map[string]BadRecord{}, ghosts: map[string]ghost{}}
}

// reset replaces everything by a list. What the list has lost becomes a ghost until the given time; if that is
// zero, it is dropped.
func (t *table) reset(s Snapshot, until time.Time) {
	lost := t.entries
	t.entries, t.claims, t.bad = make(map[string]Entry, len(s.Entries)), map[string]Entry{}, map[string]BadRecord{}
	for _, e := range slices.Concat(s.Entries, s.Claims) {
		t.put(e)
	}
	for _, b := range s.Bad {
		t.bad[b.Key] = b
	}
	if until.IsZero() {
		clear(t.ghosts)
		return
	}
	for key, e := range lost {
		if _, there := t.entries[key]; !there {
			t.ghosts[key] = ghost{Entry: e, until: until}
		}
	}
}

// keepGhosts sets the time of all ghosts.
func (t *table) keepGhosts(until time.Time) {
	for key, g := range t.ghosts {
		g.until = until
		t.ghosts[key] = g
	}
}

func (t *table) put(e Entry) {
	if e.Claim {
		t.claims[e.Key] = e
		return
	}
	delete(t.bad, e.Key)
	delete(t.ghosts, e.Key)
	t.entries[e.Key] = e
}

// apply carries out one event; a deleted record stays as a ghost until the given time. An event that is older than what
// is known changes nothing.
func (t *table) apply(ev Event, until time.Time) {
	switch {
	case ev.Put != nil:
		if t.revision(ev.Put.Key) <= ev.Revision {
			t.put(*ev.Put)
		}
	case ev.Bad != nil:
		if t.revision(ev.Bad.Key) <= ev.Revision {
			t.remove(ev.Bad.Key)
			t.bad[ev.Bad.Key] = *ev.Bad
		}
	case ev.Deleted != "":
		if t.revision(ev.Deleted) > ev.Revision {
			return
		}
		e, there := t.entries[ev.Deleted]
		t.remove(ev.Deleted)
		if there {
			t.ghosts[e.Key] = ghost{e, until, true}
		}
	}
}

// revision returns the revision of what is known to stand at a key; 0: nothing.
func (t *table) revision(key string) int64 {
	return max(t.entries[key].Revision, t.claims[key].Revision, t.bad[key].Revision)
}

func (t *table) remove(key string) {
	delete(t.entries, key)
	delete(t.claims, key)
	delete(t.bad, key)
	delete(t.ghosts, key)
}

// learn takes in what stood where we wanted to write.
func (t *table) learn(c *ConflictError) {
	t.remove(c.Key)
	switch {
	case c.Current != nil:
		t.put(*c.Current)
	case c.Bad != nil:
		t.bad[c.Bad.Key] = *c.Bad
	}
}

// due returns when the next ghost is to be dropped; zero: there is none.
func (t *table) due() (next time.Time) {
	for _, g := range t.ghosts {
		if next.IsZero() || g.until.Before(next) {
			next = g.until
		}
	}
	return next
}

// kept returns how many peers stay although a list has lost them.
func (t *table) kept() (n int) {
	for _, g := range t.ghosts {
		if !g.deleted {
			n++
		}
	}
	return n
}

// prune drops the ghosts whose time is up, and those whose subnet, identity or address a living record has. It returns
// how many of both kinds it has dropped.
func (t *table) prune(now time.Time) (lost, deleted int) {
	if len(t.ghosts) == 0 {
		return 0, 0
	}
	subnets, hosts := map[netip.Prefix]bool{}, map[string]bool{}
	for _, e := range t.entries {
		hosts[e.Identity] = true
		for _, l := range e.Leases {
			subnets[l.Subnet] = true
			hosts[l.PublicIP.String()] = true
		}
	}
	for key, g := range t.ghosts {
		gone := !now.Before(g.until) || g.Identity != "" && hosts[g.Identity]
		for _, l := range g.Leases {
			gone = gone || subnets[l.Subnet] || hosts[l.PublicIP.String()]
		}
		switch {
		case !gone:
			continue
		case g.deleted:
			deleted++
		default:
			lost++
		}
		delete(t.ghosts, key)
	}
	return lost, deleted
}

// sorted returns all records, and behind them the ghosts, each in the order of their age and key.
func (t *table) sorted() []Entry {
	// What is sorted is small: entries are ten times as large, and there may be ten thousand.
	order := make([]age, 0, len(t.entries)+len(t.ghosts))
	for key, e := range t.entries {
		order = append(order, age{e.Created, key})
	}
	slices.SortFunc(order, age.compare)
	living := len(order)
	for key, g := range t.ghosts {
		order = append(order, age{g.Created, key})
	}
	slices.SortFunc(order[living:], age.compare)
	out := make([]Entry, len(order))
	for i, a := range order {
		if i < living {
			out[i] = t.entries[a.key]
		} else {
			out[i] = t.ghosts[a.key].Entry
		}
	}
	return out
}

// age is when a record came into being; the key decides between those of one revision.
type age struct {
	created int64
	key     string
}

func (a age) compare(b age) int {
	return cmp.Or(cmp.Compare(a.created, b.created), cmp.Compare(a.key, b.key))
}

// bySubnet returns the leases in the order of their subnets.
func bySubnet(leases []Lease) []Lease {
	type place struct {
		first netip.Addr
		at    int
	}
	order := make([]place, len(leases))
	for i, l := range leases {
		order[i] = place{l.Subnet.Addr(), i}
	}
	slices.SortFunc(order, func(a, b place) int { return a.first.Compare(b.first) })
	out := make([]Lease, len(leases))
	for i, p := range order {
		out[i] = leases[p.at]
	}
	return out
}

// skipped says why a record, or one lease of it, is not a peer.
type skipped struct {
	key string
	why string
}

// peers returns the leases of all others that are valid in this network, sorted by subnet, and why the rest is not. Of two
// records that claim one subnet, the older holds it.
func (t *table) peers(c Config, identity string, self []Lease, valid func(Lease) error) ([]Lease, []skipped) {
	seen := make(map[netip.Prefix]string, len(t.entries))
	peers := make([]Lease, 0, len(t.entries))
	var skip []skipped
	for _, b := range t.bad {
		skip = append(skip, skipped{b.Key, b.Err.Error()})
	}
	for _, e := range t.sorted() {
		if isOwn(e, identity, self) {
			continue
		}
		for _, l := range e.Leases {
			if _, ok := c.Pool(l.Subnet); !ok && len(e.Leases) > 1 {
				continue // its host has both families, this network one: the other half is no mistake
			}
			why := validate(c, l, self)
			if why == nil {
				why = valid(l)
			}
			if first, ok := seen[l.Subnet]; ok && why == nil {
				why = fmt.Errorf("the subnet %s is held by the older record %s", l.Subnet, first)
			}
			if why != nil {
				skip = append(skip, skipped{e.Key, why.Error()})
				continue
			}
			seen[l.Subnet] = e.Key
			peers = append(peers, l)
		}
	}
	peers = bySubnet(peers)
	slices.SortFunc(skip, func(a, b skipped) int { return cmp.Or(cmp.Compare(a.key, b.key), cmp.Compare(a.why, b.why)) })
	return peers, skip
}

// isOwn reports whether the entry is the record of this host that holds the leases of self.
func isOwn(e Entry, identity string, self []Lease) bool {
	if e.Identity != "" && e.Identity != identity {
		return false
	}
	return slices.EqualFunc(e.Leases, self, func(a, b Lease) bool { return a.Subnet == b.Subnet })
}

// validate says why a lease cannot be that of a peer.
func validate(c Config, l Lease, self []Lease) error {
	pool, ok := c.Pool(l.Subnet)
	switch {
	case !ok:
		return fmt.Errorf("the subnet %s is of a family that the network does not have", l.Subnet)
	case !pool.Network.Overlaps(l.Subnet) || !pool.Network.Contains(l.Subnet.Addr()):
		return fmt.Errorf("the subnet %s is outside the network %s", l.Subnet, pool.Network)
	case !pool.Holds(l.Subnet):
		return fmt.Errorf("the subnet %s is no /%d", l.Subnet, pool.SubnetLen)
	case l.BackendType != c.BackendType:
		return fmt.Errorf("its backend is %s, the network's is %s", l.BackendType, c.BackendType)
	case l.Subnet.Contains(l.PublicIP):
		return fmt.Errorf("its public IP %s lies inside its subnet %s", l.PublicIP, l.Subnet)
	}
	for _, own := range self {
		switch {
		case own.Subnet.Overlaps(l.Subnet):
			return fmt.Errorf("the subnet %s overlaps this host's %s", l.Subnet, own.Subnet)
		case own.PublicIP == l.PublicIP:
			return fmt.Errorf("its public IP %s is this host's", l.PublicIP)
		}
	}
	return nil
}

// taken returns a function that tells whether a subnet may not be leased: some record, however bad, or a ghost covers
// it. Records of the right length cost one look-up, the few others are compared one by one. One that covers the whole network cannot
// be meant: the hosts of flannel that have no IPv4 all write 0.0.0.0-0.
// The record at the key except does not count.
func (t *table) taken(c Config, except string) func(netip.Prefix) bool {
	exact := make(map[netip.Prefix]bool, len(t.entries))
	var odd []netip.Prefix
	add := func(prefixes []netip.Prefix) {
		for _, p := range prefixes {
			switch pool, ok := c.Pool(p); {
			case !ok || p.Bits() <= pool.Network.Bits():
			case pool.Holds(p):
				exact[p] = true
			default:
				odd = append(odd, p)
			}
		}
	}
	for _, e := range t.sorted() {
		if e.Key != except {
			add(e.Prefixes())
		}
	}
	for key := range t.bad {
		if prefixes, err := parseRecordKey(key); err == nil {
			add(prefixes)
		}
	}
	return func(p netip.Prefix) bool { return exact[p] || slices.ContainsFunc(odd, p.Overlaps) }
}

// counts returns how many leases and reservations the pool's network holds.
func (t *table) counts(pool Pool) (leases, reservations int) {
	for _, e := range t.entries {
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
