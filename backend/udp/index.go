package udp

import (
	"iter"
	"math/bits"
	"slices"
)

// index is a hash table from keys to paths that never changes. It is made of pages, so that the next one is made by a
// copy of those that something has changed in. A probe touches little memory: the list of pages, one page and, as that
// is half empty, mostly one slot of it.
type index struct {
	shift uint   // of a hash, to get a page
	pages []page // a power of two, but none where there is no path
}

// page is a hash table with open addressing, at most half full.
type page struct {
	slots []entry // a power of two
	shift uint32  // of a hash, to get a slot in its low bits
	used  uint32
}

type entry struct {
	key key
	to  *path // nil: free
}

const (
	minPages = 2
	// pageFill is how many paths the pages of an index may hold on average.
	pageFill = 64
)

// find returns the path of a key; nil if there is none.
func (x *index) find(k key) *path {
	h := k.hash()
	at := h >> (x.shift & 63)
	if at >= uint64(len(x.pages)) {
		return nil
	}
	p := &x.pages[at]
	last := uint64(len(p.slots) - 1)
	for i := h >> (p.shift & 63) & last; p.slots[i].to != nil; i = (i + 1) & last {
		if p.slots[i].key == k {
			return p.slots[i].to
		}
	}
	return nil
}

// all returns the paths in no order, those of several keys more than once.
func (x *index) all() iter.Seq[*path] {
	return func(yield func(*path) bool) {
		for _, to := range x.entries() {
			if !yield(to) {
				return
			}
		}
	}
}

// entries returns the paths by key, in no order.
func (x *index) entries() iter.Seq2[key, *path] {
	return func(yield func(key, *path) bool) {
		for _, p := range x.pages {
			for _, e := range p.slots {
				if e.to != nil && !yield(e.key, e.to) {
					return
				}
			}
		}
	}
}

// newPage returns a page for so many paths, and those of the slots in it. shift is that of the index.
func newPage(shift uint, capacity int, slots []entry) page {
	size := bits.Len(uint(max(1, 2*capacity-1)))
	p := page{slots: make([]entry, 1<<size), shift: uint32(shift) - uint32(size)}
	for _, e := range slots {
		if e.to != nil {
			p.put(e)
		}
	}
	return p
}

// put adds an entry, in place of that with its key if there is one. The page is large enough.
func (p *page) put(e entry) {
	last := uint64(len(p.slots) - 1)
	i := e.key.hash() >> p.shift & last
	for p.slots[i].to != nil && p.slots[i].key != e.key {
		i = (i + 1) & last
	}
	if p.slots[i].to == nil {
		p.used++
	}
	p.slots[i] = e
}

// draft is an index in the making. One goroutine may use it.
type draft struct {
	index
	used int
	own  []bool // pages that are in no index handed out; nil: the list of pages itself is in one
}

// freeze returns the index as it is now. It copies nothing.
func (d *draft) freeze() index {
	d.own = nil
	return d.index
}

// put sets the path of a key and reports whether that is a change.
func (d *draft) put(k key, to *path) bool {
	have := d.find(k)
	if have == to {
		return false
	}
	added := 0
	if have == nil {
		added = 1
	}
	if d.used += added; d.used > len(d.pages)*pageFill {
		d.resize(max(minPages, 2*len(d.pages)))
	}
	d.insert(entry{k, to}, added)
	return true
}

// insert puts an entry into its page; added is 1 if its key is not there yet, else 0.
func (d *draft) insert(e entry, added int) {
	d.thaw()
	at := e.key.hash() >> d.shift
	p := &d.pages[at]
	if capacity := int(p.used) + added; !d.own[at] || 2*capacity > len(p.slots) {
		*p, d.own[at] = newPage(d.shift, capacity, p.slots), true
	}
	p.put(e)
}

// delete takes a key away and reports whether it was there.
func (d *draft) delete(k key) bool {
	if d.find(k) == nil {
		return false
	}
	d.thaw()
	at := k.hash() >> d.shift
	rest := slices.DeleteFunc(slices.Clone(d.pages[at].slots), func(e entry) bool { return e.to == nil || e.key == k })
	d.pages[at], d.own[at] = newPage(d.shift, len(rest), rest), true
	if d.used--; len(d.pages) > minPages && d.used < len(d.pages)*pageFill/8 {
		d.resize(len(d.pages) / 2)
	}
	return true
}

// thaw makes the list of pages our own.
func (d *draft) thaw() {
	if d.own == nil {
		d.pages, d.own = slices.Clone(d.pages), make([]bool, len(d.pages))
	}
}

// resize spreads the paths over another number of pages, a power of two.
func (d *draft) resize(n int) {
	old := d.pages
	d.shift = uint(64 - bits.Len(uint(n-1)))
	d.pages, d.own = make([]page, n), make([]bool, n)
	for i := range d.pages {
		d.pages[i], d.own[i] = newPage(d.shift, 0, nil), true
	}
	for _, p := range old {
		for _, e := range p.slots {
			if e.to != nil {
				d.insert(e, 1)
			}
		}
	}
}
