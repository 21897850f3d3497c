package subnet

import (
	"iter"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// PeerTable holds the records of a store: which of them are peers, why the others are not, and which are stale, that
// is, retained although the store does not show them any more. It has no clock and no lock of its own.
type PeerTable struct {
	table *table
	viewer
	reported map[string]string // reasons as of that call, by key
	changes  map[string]string // reasons that have changed since the last call of Reasons
}

// NewPeerTable returns an empty table. Valid says why a lease of the right network and backend type cannot be that of
// a peer; nil: it can.
func NewPeerTable(identity string, valid func(Lease) error) *PeerTable {
	t := &PeerTable{table: newTable(), viewer: viewer{identity, valid}}
	t.reported, t.changes = map[string]string{}, map[string]string{}
	return t
}

// Retain adds the records of the last run as stale until the store shows them, or the given time.
func (t *PeerTable) Retain(entries []*Entry, until time.Time) {
	for _, e := range entries {
		t.table.retain(e, retention{until: until})
	}
}

// Replace takes in a whole list. Records that it lacks are stale until the given time; the zero time: they are dropped,
// and so are those that are stale already.
func (t *PeerTable) Replace(s Snapshot, until time.Time) { t.table.reset(s, until) }

// RetainAll sets until when the records that are stale now stay.
func (t *PeerTable) RetainAll(until time.Time) { t.table.retainAll(until) }

// Lost returns how many records are stale because a list has lost them.
func (t *PeerTable) Lost() int { return t.table.kept }

// ExtendLost sets until when those stay.
func (t *PeerTable) ExtendLost(until time.Time) { t.table.extendLost(until) }

// Release drops the stale records of this host, with the subnets self: its own subnets are not kept from it.
func (t *PeerTable) Release(self []Lease) {
	for _, e := range t.table.stale.related(&Entry{Record: Record{Identity: t.identity, Leases: self}}) {
		if isOwn(e, t.identity, self) {
			t.table.release(e.Key)
		}
	}
}

// Put takes in what stands in the store, which nobody changes from then on.
func (t *PeerTable) Put(e *Entry) { t.table.put(e) }

// Remove forgets what stands at a key.
func (t *PeerTable) Remove(key string) { t.table.remove(key) }

// Learn takes in what stood where we wanted to write.
func (t *PeerTable) Learn(c *ConflictError) { t.table.learn(c) }

// All returns the records that the store has. None may come or go meanwhile.
func (t *PeerTable) All() iter.Seq[*Entry] { return t.table.living.all() }

// At returns the record that the store has at a key; nil: none.
func (t *PeerTable) At(key string) *Entry { return t.table.living.at(key) }

// With returns the records that the store has with a subnet.
func (t *PeerTable) With(p netip.Prefix) []*Entry { return t.table.living.with(p) }

// Claims returns the claims by their keys. Nobody may change them.
func (t *PeerTable) Claims() map[string]Entry { return t.table.claims }

// Bad returns the invalid records by their keys. Nobody may change them.
func (t *PeerTable) Bad() map[string]BadRecord { return t.table.bad }

// Taken returns the subnets that may not be leased: those of all records, also invalid and stale ones, but not of the
// record at the key except.
func (t *PeerTable) Taken(c Config, except string) []netip.Prefix { return t.table.taken(c, except) }

// Counts returns how many leases and reservations the pool's network holds.
func (t *PeerTable) Counts(p Pool) (leases, reservations int) { return t.table.counts(p) }

// Apply takes in one event. A deleted record is stale until the given time.
func (t *PeerTable) Apply(ev Event, until time.Time) { t.table.apply(ev, retention{until, true}) }

// ApplyLate takes in an event from while the store was not heard. A deleted record is stale until the given time, as
// one that a list lacks.
func (t *PeerTable) ApplyLate(ev Event, until time.Time) { t.table.apply(ev, retention{until, false}) }

// Prune drops the stale records whose time is up. It returns how many were dropped since the last call, for any reason,
// of those that a list has lost and of those that were deleted.
func (t *PeerTable) Prune(now time.Time) (lost, deleted int) { return t.table.prune(now) }

// Due returns when to call Prune; zero: no record is stale.
func (t *PeerTable) Due() time.Time { return t.table.due() }

// Peers returns those in force for a host with the subnets self, how many other records are skipped, and how many are
// stale.
func (t *PeerTable) Peers(c Config, self []Lease) (peers Peers, skipped, stale int) {
	p := t.judged(c, self)
	return Peers{p.peers.Freeze()}, len(p.skipped), t.table.kept
}

// Reasons returns why records are no peers, by key, as far as that has changed since the last call; empty: nothing is
// wrong with it any more.
func (t *PeerTable) Reasons(c Config, self []Lease) map[string]string {
	t.judged(c, self)
	changes := t.changes
	t.changes = map[string]string{}
	return changes
}

// judged returns what a host with the subnets self makes of the records.
func (t *PeerTable) judged(c Config, self []Lease) *selection {
	if !t.table.selection.fits(c, self) {
		t.table.selection = newSelection(t.table, c, self, t.viewer, t.reported)
	}
	p := t.table.selection
	for _, key := range p.reasons() {
		t.changes[key] = p.skipped[key]
	}
	t.reported = p.skipped
	return p
}

// Memory returns all that the table knows, to be remembered over a restart. A stale record, of others than the host
// with the subnets self, has no revision there.
func (t *PeerTable) Memory(self []Lease) (m Memory) {
	m.Records = t.table.living.byAge()
	for _, e := range t.table.stale.byAge() {
		if !isOwn(e, t.identity, self) {
			m.Records = append(m.Records, &Entry{Record: e.Record})
		}
	}
	for _, key := range slices.Sorted(maps.Keys(t.table.claims)) {
		m.Claims = append(m.Claims, t.table.claims[key])
	}
	for _, key := range slices.Sorted(maps.Keys(t.table.bad)) {
		m.Bad = append(m.Bad, t.table.bad[key])
	}
	return m
}

// Inventory returns all records, the invalid ones among them, sorted by key. Why some are skipped is as of the
// last call of Peers.
func (t *PeerTable) Inventory(self []Lease) []Listed {
	var out []Listed
	for _, e := range t.table.sorted() {
		out = append(out, Listed{
			Entry: *e, Own: isOwn(e, t.identity, self), Stale: t.table.stale.at(e.Key) == e, Skipped: t.reported[e.Key],
		})
	}
	for _, key := range slices.Sorted(maps.Keys(t.table.bad)) {
		b := t.table.bad[key]
		out = append(out, Listed{Entry: Entry{Key: b.Key, Revision: b.Revision}, Skipped: b.Err.Error()})
	}
	slices.SortStableFunc(out, func(a, b Listed) int { return strings.Compare(a.Key, b.Key) })
	return out
}
