package keeper

import (
	"bytes"
	"fmt"
	"slices"

	"flanneld/subnet"
)

// trail is what the store has told since a write that no other history has: with the same revision, record and store
// lease, whose number is random. When a watch ends, the next one begins with that write. If the store tells the same
// again, it is the store that it was, and the keeper goes on without a list. A wiped store, a restored backup, also one
// that has overtaken this keeper meanwhile, and a compaction show in the first change that is another one or is
// missing.
type trail struct {
	events []subnet.Event // the first is the write; none: nothing can be proven
	told   int            // how many of them the present watch has told
	proves bool           // a watch has told the write
	learns bool           // what a list has seen already is told by the present watch for the first time
}

// maxTrail bounds what is kept while nothing but deletions follows a write.
const maxTrail = 256

// trailOf returns the trail after a list: its newest record with a store lease. The first watch adds what has happened
// after that and before the list.
func trailOf(s subnet.Snapshot) trail {
	var newest *subnet.Entry
	for _, e := range s.Entries {
		if e.LeaseID != 0 && (newest == nil || e.Revision > newest.Revision) {
			newest = e
		}
	}
	if newest == nil {
		return trail{}
	}
	return trail{events: []subnet.Event{{Revision: newest.Revision, Put: newest}}, learns: true}
}

// from returns the revision at which a watch begins; 0: with what is new.
func (t *trail) from() int64 {
	if len(t.events) == 0 {
		return 0
	}
	return t.events[0].Revision
}

// rewind is called before a watch begins without a list. It reports whether that can prove anything.
func (t *trail) rewind() bool {
	t.told, t.learns = 0, false
	return t.proves
}

// memory returns what a later run needs to go on; nil: it must list.
func (t *trail) memory() []subnet.Event {
	if !t.proves {
		return nil
	}
	return slices.Clone(t.events)
}

// proven reports whether the present watch has told everything again.
func (t *trail) proven() bool { return t.told == len(t.events) }

// take takes in what the watch tells. It compares the changes up to a revision with those it knows, and returns the
// later ones. Its error is ErrHistory.
func (t *trail) take(events []subnet.Event, known int64) (news []subnet.Event, err error) {
	for _, ev := range events {
		switch again := ev.Revision <= known; {
		case !ev.IsChange():
		case again && !t.proven() && same(t.events[t.told], ev):
			t.told++
			t.proves = true
		case again && t.told == 0 && ev.Revision == t.from(): // of the same transaction as the write
		case again && t.proven() && t.learns:
			t.add(ev)
		case again || !t.proven():
			return nil, fmt.Errorf("revision %d holds another change than before: %w", ev.Revision, subnet.ErrHistory)
		default:
			news = append(news, ev)
			t.add(ev)
		}
	}
	if n := len(events); t.told == 0 && n > 0 && events[n-1].IsChange() && !t.proven() {
		return nil, fmt.Errorf("revision %[2]d holds no change of %[1]s any more: %[3]w", t.events[0].Put.Key, t.from(),
			subnet.ErrHistory)
	}
	return news, nil
}

func (t *trail) add(ev subnet.Event) {
	switch e := ev.Put; {
	case e != nil && e.LeaseID != 0 && !e.Claim:
		t.events, t.proves = []subnet.Event{ev}, true
	case len(t.events) == maxTrail:
		t.events, t.proves = nil, false
	case len(t.events) > 0:
		t.events = append(t.events, ev)
	}
	t.told = len(t.events)
}

// same reports whether two events are of one change.
func same(a, b subnet.Event) bool {
	switch {
	case a.Revision != b.Revision:
		return false
	case a.Put != nil && b.Put != nil:
		x, y := a.Put, b.Put
		return x.Key == y.Key && x.Created == y.Created && x.LeaseID == y.LeaseID && x.Value == y.Value && x.Equal(y.Record)
	case a.Bad != nil && b.Bad != nil:
		return a.Bad.Key == b.Bad.Key && a.Bad.LeaseID == b.Bad.LeaseID
	case a.Deleted != "" || b.Deleted != "":
		return a.Deleted == b.Deleted
	}
	return a.ConfigSet && b.ConfigSet && bytes.Equal(a.Config, b.Config)
}
