package sorted

import (
	"iter"
	"slices"
	"sort"
)

// pageSize is how many values a page holds at most. A change copies one page.
const pageSize = 64

// Snapshot is a sorted set that never changes. The zero value is empty. Any goroutine may use it.
type Snapshot[T comparable] struct {
	compare func(a, b T) int
	pages   []*page[T] // none is empty
	n       int
}

// page is a run of values. It may be changed in place by the set whose generation it is of, before that hands out a
// snapshot.
type page[T any] struct {
	generation uint64
	values     []T
}

// Of returns the values, which are sorted in place and belong to the snapshot from then on. Values of one key stay side
// by side in their order.
func Of[T comparable](compare func(a, b T) int, values []T) Snapshot[T] {
	slices.SortStableFunc(values, compare)
	s := Snapshot[T]{compare: compare, n: len(values)}
	for chunk := range slices.Chunk(values, pageSize) {
		s.pages = append(s.pages, &page[T]{values: chunk})
	}
	return s
}

// Len returns the number of values.
func (s Snapshot[T]) Len() int { return s.n }

// All returns all values in their order.
func (s Snapshot[T]) All() iter.Seq[T] {
	return func(yield func(T) bool) {
		for _, p := range s.pages {
			for _, v := range p.values {
				if !yield(v) {
					return
				}
			}
		}
	}
}

// From returns the values from the first one on that is not below v.
func (s Snapshot[T]) From(v T) iter.Seq[T] {
	return func(yield func(T) bool) {
		if s.n == 0 {
			return
		}
		at, i, _ := s.place(s.from(v))
		for _, p := range s.pages[at:] {
			for _, v := range p.values[i:] {
				if !yield(v) {
					return
				}
			}
			i = 0
		}
	}
}

// Like returns the values with the key that is looked for, or with a part of it, in their order: to compares it with
// that of a value.
func (s Snapshot[T]) Like(to func(v T) int) iter.Seq[T] {
	return func(yield func(T) bool) {
		if s.n == 0 {
			return
		}
		at, i, _ := s.place(to)
		for _, p := range s.pages[at:] {
			for _, v := range p.values[i:] {
				if to(v) != 0 || !yield(v) {
					return
				}
			}
			i = 0
		}
	}
}

// Find returns the value with the key of v.
func (s Snapshot[T]) Find(v T) (found T, ok bool) {
	if s.n == 0 {
		return found, false
	}
	at, i, ok := s.place(s.from(v))
	if ok {
		found = s.pages[at].values[i]
	}
	return found, ok
}

// Without returns the values of which gone does not hold. It shares the pages in which gone holds of none.
func (s Snapshot[T]) Without(gone func(T) bool) Snapshot[T] {
	out := Snapshot[T]{compare: s.compare}
	for _, p := range s.pages {
		if slices.ContainsFunc(p.values, gone) {
			p = &page[T]{values: slices.DeleteFunc(slices.Clone(p.values), gone)}
		}
		if len(p.values) > 0 {
			out.pages, out.n = append(out.pages, p), out.n+len(p.values)
		}
	}
	return out
}

// place returns the page that a key belongs into, its place in that page, and whether there is a value with it. There
// is at least one page.
func (s Snapshot[T]) place(to func(T) int) (at, i int, found bool) {
	// The first page whose last value is not below the key; beyond all of them, the last.
	at, _ = sort.Find(len(s.pages), func(i int) int { return to(s.pages[i].values[len(s.pages[i].values)-1]) })
	at = min(at, len(s.pages)-1)
	values := s.pages[at].values
	i, found = sort.Find(len(values), func(i int) int { return to(values[i]) })
	return at, i, found
}

// from compares the key of v with that of a value.
func (s Snapshot[T]) from(v T) func(T) int {
	return func(o T) int { return s.compare(v, o) }
}

// Changes returns what differs between two sets of one order, value by value: those of one key together, else nil on
// the other side. It does not look into pages that the sets share.
func Changes[T comparable](before, after Snapshot[T]) iter.Seq2[*T, *T] {
	return func(yield func(before, after *T) bool) {
		b, a := cursor[T]{pages: before.pages}, cursor[T]{pages: after.pages}
		for !b.done() || !a.done() {
			if b.shares(&a) {
				b.skip()
				a.skip()
				continue
			}
			var from, to *T
			switch {
			case b.done():
				to = a.next()
			case a.done():
				from = b.next()
			default:
				c := before.compare(*b.value(), *a.value())
				if c <= 0 {
					from = b.next()
				}
				if c >= 0 {
					to = a.next()
				}
			}
			if from != nil && to != nil && *from == *to {
				continue
			}
			if !yield(from, to) {
				return
			}
		}
	}
}

// cursor walks over pages.
type cursor[T any] struct {
	pages []*page[T] // from the present one on
	at    int        // in the first of them
}

func (c *cursor[T]) done() bool { return len(c.pages) == 0 }
func (c *cursor[T]) value() *T  { return &c.pages[0].values[c.at] }

func (c *cursor[T]) next() *T {
	v := c.value()
	if c.at++; c.at == len(c.pages[0].values) {
		c.skip()
	}
	return v
}

// skip goes to the next page.
func (c *cursor[T]) skip() { c.pages, c.at = c.pages[1:], 0 }

// shares reports whether both stand before one and the same page.
func (c *cursor[T]) shares(o *cursor[T]) bool {
	return !c.done() && !o.done() && c.at == 0 && o.at == 0 && c.pages[0] == o.pages[0]
}
