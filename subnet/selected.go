package subnet

import "flanneld/sorted"

// Selected is a set of peers that follows another one: those that a function selects, each as the function says. One
// goroutine may use it.
type Selected struct {
	choose func(Lease) (as Lease, ok bool)
	before Peers
	set    *sorted.Set[ref]
	made   map[*Entry]*made
}

// made is a record that differs from the one in the store.
type made struct {
	entry *Entry
	users int // leases of it in the set
}

// NewSelected returns an empty set. The answer of choose for a lease stays the same, and has its subnet.
func NewSelected(choose func(Lease) (as Lease, ok bool)) *Selected {
	return &Selected{choose: choose, set: sorted.New(bySubnet), made: map[*Entry]*made{}}
}

// Follow returns the selection of these peers. Its cost is that of what has changed since the last call.
func (s *Selected) Follow(peers Peers) Peers {
	for old, now := range sorted.Changes(s.before.set, peers.set) {
		if old != nil {
			s.take(*old)
		}
		if now != nil {
			s.put(*now)
		}
	}
	s.before = peers
	return Peers{s.set.Freeze()}
}

func (s *Selected) take(r ref) {
	if s.set.Delete(r) && s.made[r.from] != nil {
		if s.made[r.from].users--; s.made[r.from].users == 0 {
			delete(s.made, r.from)
		}
	}
}

func (s *Selected) put(r ref) {
	as, ok := s.choose(*r.lease())
	switch {
	case !ok:
		return
	case as == *r.lease():
		s.set.Put(r)
		return
	}
	m := s.made[r.from]
	if m == nil {
		e := *r.from
		e.Leases = make([]Lease, len(r.from.Leases))
		for i, l := range r.from.Leases {
			if as, ok := s.choose(l); ok {
				l = as
			}
			e.Leases[i] = l
		}
		m = &made{entry: &e}
		s.made[r.from] = m
	}
	m.users++
	s.set.Put(ref{m.entry, r.at, r.stale})
}
