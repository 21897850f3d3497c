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

// Inventory returns all records and the position that they stand at, sorted by key.
func (m *Manager) Inventory() (Position, []Listed) {
	m.mu.Lock()
	defer m.mu.Unlock()
	why := map[string]string{}
	_, skip := m.table.peers(m.config, m.o.Identity, m.self, m.o.Valid)
	for _, s := range skip {
		why[s.key] = s.why
	}
	out := make([]Listed, 0, len(m.table.entries)+len(m.table.ghosts)+len(m.table.bad))
	for _, e := range m.table.sorted() {
		_, ghost := m.table.ghosts[e.Key]
		out = append(out, Listed{Entry: e, Own: isOwn(e, m.o.Identity, m.self), Ghost: ghost, Skipped: why[e.Key]})
	}
	for _, b := range m.table.bad {
		out = append(out, Listed{Entry: Entry{Key: b.Key, Revision: b.Revision}, Skipped: why[b.Key]})
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
