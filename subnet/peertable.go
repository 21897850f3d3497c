package subnet

import "time"

// PeerTable holds the records of other hosts for a store that assigns subnets by itself: which of them are peers, why
// the others are not, and which are stale, that is, retained although the store does not show them any more. It has
// no clock and no lock of its own.
type PeerTable struct {
	table *table
	o     Options // Identity and Valid
	said  map[string]string
}

// NewPeerTable returns an empty table. Valid says why a lease of the right network and backend type cannot be that of
// a peer; nil: it can.
func NewPeerTable(identity string, valid func(Lease) error) *PeerTable {
	return &PeerTable{table: newTable(), o: Options{Identity: identity, Valid: valid}, said: map[string]string{}}
}

// Retain adds the records of the last run as stale until the store shows them, or the given time.
func (t *PeerTable) Retain(entries []*Entry, until time.Time) {
	for _, e := range entries {
		t.table.haunt(e, fate{until: until})
	}
}

// Replace takes in a whole list. Records that it lacks are stale until the given time; the zero time: they are dropped,
// and so are those that are stale already.
func (t *PeerTable) Replace(entries []*Entry, bad []BadRecord, until time.Time) {
	t.table.reset(Snapshot{Entries: entries, Bad: bad}, until)
}

// Apply takes in one event. A deleted record is stale until the given time.
func (t *PeerTable) Apply(ev Event, until time.Time) { t.table.apply(ev, until) }

// Prune drops the stale records whose time is up, and returns when to call it again; zero: there are none.
func (t *PeerTable) Prune(now time.Time) (dropped int, next time.Time) {
	lost, deleted := t.table.prune(now)
	return lost + deleted, t.table.due()
}

// Peers returns those in force for a host with the subnets self, why other records are no peers, by key, and how many
// are stale. Reasons holds only keys whose reason has changed since the last call.
func (t *PeerTable) Peers(c Config, self []Lease) (peers Peers, reasons map[string]string, skipped, stale int) {
	if !t.table.picture.fits(c, self) {
		t.table.picture = newPicture(t.table, c, self, t.o, t.said)
	}
	p := t.table.picture
	reasons = map[string]string{}
	for _, key := range p.reasons() {
		reasons[key] = p.skipped[key]
	}
	t.said = p.skipped
	return Peers{p.peers.Freeze()}, reasons, len(p.skipped), t.table.kept
}

// Records returns all records, the stale ones last.
func (t *PeerTable) Records() []Record {
	var out []Record
	for _, e := range t.table.sorted() {
		out = append(out, e.Record)
	}
	return out
}

// Inventory returns all records, those that make no sense among them, in no order. Why some are skipped is as of the
// last call of Peers.
func (t *PeerTable) Inventory() []Listed {
	var out []Listed
	for _, e := range t.table.sorted() {
		out = append(out, Listed{Entry: *e, Ghost: t.table.ghosts.at(e.Key) == e, Skipped: t.said[e.Key]})
	}
	for _, b := range t.table.bad {
		out = append(out, Listed{Entry: Entry{Key: b.Key, Revision: b.Revision}, Skipped: b.Err.Error()})
	}
	return out
}
