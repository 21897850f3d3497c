package subnet

import (
	"cmp"
	"slices"
)

// Listed is a record as the manager knows it. Of one that makes no sense only the key and the revision are set.
type Listed struct {
	Entry
	Own     bool   // this host's
	Ghost   bool   // the store has lost it, packets still go there
	Skipped string // why it is no peer, or not with all its subnets
}

// Inventory returns all records and the position that they stand at, sorted by key. Why some are skipped is as of the last View.
func (m *Manager) Inventory() (Position, []Listed) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []Listed
	for _, e := range m.table.sorted() {
		ghost := m.table.ghosts.at(e.Key) == e
		out = append(out, Listed{Entry: *e, Own: isOwn(e, m.o.Identity, m.self), Ghost: ghost, Skipped: m.said[e.Key]})
	}
	for _, b := range m.table.bad {
		out = append(out, Listed{Entry: Entry{Key: b.Key, Revision: b.Revision}, Skipped: b.Err.Error()})
	}
	slices.SortFunc(out, func(a, b Listed) int { return cmp.Compare(a.Key, b.Key) })
	return m.position, out
}

// Position returns the point of the store's history that the manager has seen.
func (m *Manager) Position() Position {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.position
}
