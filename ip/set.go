package ip

import (
	"iter"
	"slices"

	"flanneld/sorted"
)

// Set is a sorted set of objects of one kind that never changes. The zero value is empty. Any goroutine may use it.
//
// It holds pointers, so that a change copies 8 bytes for each of the objects beside it, not up to 88.
type Set[T value[T]] struct {
	objects sorted.Snapshot[*T]
}

// value is what all kinds of objects have. compare is that of their keys, by which the kernel tells objects apart: 0
// for two of which one replaces the other.
type value[T any] interface {
	comparable
	Object
	compare(T) int
}

// setOf returns the set of some objects, which are sorted in place and belong to it from then on. Those of one key stay
// side by side in their order. What is in known as well is the same memory.
func setOf[T value[T]](objects []T, known Set[T]) Set[T] {
	slices.SortStableFunc(objects, T.compare)
	all := make([]*T, 0, len(objects))
	next := 0
	take := func(o *T) { all, next = append(all, o), next+1 }
	for k := range known.objects.All() {
		for next < len(objects) && objects[next].compare(*k) < 0 {
			take(&objects[next])
		}
		for next < len(objects) && objects[next] == *k {
			take(k)
		}
	}
	for next < len(objects) {
		take(&objects[next])
	}
	return Set[T]{sorted.Of(comparePointers[T], all)}
}

func comparePointers[T value[T]](a, b *T) int {
	if a == b {
		return 0
	}
	return (*a).compare(*b)
}

// Len returns the number of objects.
func (s Set[T]) Len() int { return s.objects.Len() }

// All returns all objects in their order.
func (s Set[T]) All() iter.Seq[T] {
	return func(yield func(T) bool) {
		for o := range s.objects.All() {
			if !yield(*o) {
				return
			}
		}
	}
}

// Find returns the object with the key of o.
func (s Set[T]) Find(o T) (found T, ok bool) {
	for p := range s.objects.Like(func(p *T) int { return o.compare(*p) }) {
		return *p, true
	}
	return found, false
}

// without leaves out what stands on some devices.
func (s Set[T]) without(links []string) Set[T] {
	if len(links) == 0 {
		return s
	}
	return Set[T]{s.objects.Without(func(o *T) bool {
		device := (*o).Device()
		return device != "" && slices.Contains(links, device)
	})}
}

// changesTo returns what differs from another set, object by object: those of one key together, else nil on the other
// side. Nobody may change what is pointed at. It does not look into pages that the sets share.
func (s Set[T]) changesTo(to Set[T]) iter.Seq2[*T, *T] {
	return func(yield func(before, after *T) bool) {
		for before, after := range sorted.Changes(s.objects, to.objects) {
			b, a := pointed(before), pointed(after)
			if b != nil && a != nil && *b == *a {
				continue // made twice
			}
			if !yield(b, a) {
				return
			}
		}
	}
}

func pointed[T any](p **T) *T {
	if p == nil {
		return nil
	}
	return *p
}

// builder is a Set that can be changed. One goroutine may use it.
type builder[T value[T]] struct{ objects *sorted.Set[*T] }

func newBuilder[T value[T]]() builder[T] { return builder[T]{sorted.New(comparePointers[T])} }

// set returns the present content.
func (b builder[T]) set() Set[T] { return Set[T]{b.objects.Freeze()} }

// change puts o, or takes the object with its key away.
func (b builder[T]) change(o T, gone bool) {
	if gone {
		b.delete(o)
	} else {
		b.put(o)
	}
}

func (b builder[T]) put(o T) { b.objects.Put(pointer(o)) }

func (b builder[T]) delete(o T) { b.objects.Delete(&o) }
