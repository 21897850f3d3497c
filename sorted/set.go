package sorted

import "slices"

// Set is a sorted set that can be changed. A change copies the page that it is in, once after each snapshot. One
// goroutine may use it.
type Set[T comparable] struct {
	Snapshot[T] // present content; to be handed out by Freeze only
	generation  uint64
	frozen      bool // the list of pages is that of a snapshot
}

// New returns an empty set. compare says what is one key, and the order of keys.
func New[T comparable](compare func(a, b T) int) *Set[T] {
	return &Set[T]{Snapshot: Snapshot[T]{compare: compare}, generation: 1}
}

// Freeze returns the present content. It copies nothing.
func (s *Set[T]) Freeze() Snapshot[T] {
	s.generation++
	s.frozen = true
	return s.Snapshot
}

// Put adds v, in place of the value with its key if there is one.
func (s *Set[T]) Put(v T) {
	s.thaw()
	if s.n == 0 {
		s.pages, s.n = append(s.pages, s.page(v)), 1
		return
	}
	at, i, found := s.place(s.from(v))
	switch {
	case found && s.pages[at].values[i] == v:
		return
	case found:
		s.own(at, 0).values[i] = v
		return
	case len(s.pages[at].values) < pageSize:
		p := s.own(at, 1)
		p.values = slices.Insert(p.values, i, v)
	case i == pageSize: // behind the last of all: a list that comes sorted fills its pages
		s.pages = append(s.pages, s.page(v))
	default:
		low, high := s.pages[at].values[:pageSize/2], s.pages[at].values[pageSize/2:]
		if i < pageSize/2 {
			low, high = slices.Concat(low[:i], []T{v}, low[i:]), slices.Clone(high)
		} else {
			low, high = slices.Clone(low), slices.Concat(high[:i-pageSize/2], []T{v}, high[i-pageSize/2:])
		}
		s.pages[at] = s.page(low...)
		s.pages = slices.Insert(s.pages, at+1, s.page(high...))
	}
	s.n++
}

// Delete takes the value with the key of v away, and reports whether there was one.
func (s *Set[T]) Delete(v T) bool {
	if s.n == 0 {
		return false
	}
	at, i, found := s.place(s.from(v))
	if !found {
		return false
	}
	s.thaw()
	p := s.own(at, 0)
	p.values = slices.Delete(p.values, i, i+1)
	s.n--
	if len(p.values) <= pageSize/4 {
		s.merge(at)
	}
	return true
}

// merge joins a small page with a neighbour that has room for it, and drops it if it is empty.
func (s *Set[T]) merge(at int) {
	switch {
	case len(s.pages[at].values) == 0:
		s.pages = slices.Delete(s.pages, at, at+1)
		return
	case at+1 == len(s.pages) && at > 0:
		at--
	case at+1 == len(s.pages):
		return
	}
	low, high := s.pages[at].values, s.pages[at+1].values
	if len(low)+len(high) > pageSize/2 {
		return
	}
	s.pages[at] = s.page(slices.Concat(low, high)...)
	s.pages = slices.Delete(s.pages, at+1, at+2)
}

// thaw makes the list of pages our own.
func (s *Set[T]) thaw() {
	if s.frozen {
		s.pages, s.frozen = slices.Clone(s.pages), false
	}
}

// own makes a page our own, with room for some more values. It leaves room for a few beyond these, but not for twice as
// many, as append would: there are many pages.
func (s *Set[T]) own(at, more int) *page[T] {
	p := s.pages[at]
	n, ours := len(p.values)+more, p.generation == s.generation
	if ours && n <= cap(p.values) {
		return p
	}
	capacity := n
	if more > 0 {
		capacity = min(n+n/8, pageSize)
	}
	values := append(make([]T, 0, capacity), p.values...)
	if ours {
		p.values = values
	} else {
		s.pages[at] = s.page(values...)
	}
	return s.pages[at]
}

// page returns a page of our own. The values belong to it from then on.
func (s *Set[T]) page(values ...T) *page[T] {
	return &page[T]{generation: s.generation, values: values}
}
