package ip

import (
	"iter"
	"slices"
	"unique"

	"flanneld/sorted"
)

// Set is a sorted set of objects of one kind that never changes. The zero value is empty. Any goroutine may use it.
//
// It holds handles: pointers to values that exist once in a process, however many sets they are in. A change then copies 8 bytes for each of
// the objects beside it, not up to 88, and two equal ones are told by their addresses, as in a dump that is as it shall be.
type Set[T value[T]] struct {
	handles sorted.Snapshot[unique.Handle[T]]
}

// value is what all kinds of objects have. compare is that of their keys, by which the kernel tells objects apart: 0 for two of which one
// replaces the other.
type value[T any] interface {
	comparable
	Object
	compare(T) int
}

// setOf returns the set of some objects, which are sorted in place. Those of one key stay side by side in their order. What is in known as
// well has its handle from there: unique.Make would look for each of them among all that there are.
func setOf[T value[T]](objects []T, known Set[T]) Set[T] {
	slices.SortStableFunc(objects, T.compare)
	handles := make([]unique.Handle[T], 0, len(objects))
	for h := range known.handles.All() {
		k := h.Value()
		for len(objects) > 0 && objects[0].compare(k) < 0 {
			handles, objects = append(handles, unique.Make(objects[0])), objects[1:]
		}
		for len(objects) > 0 && objects[0] == k {
			handles, objects = append(handles, h), objects[1:]
		}
	}
	for _, o := range objects {
		handles = append(handles, unique.Make(o))
	}
	return Set[T]{sorted.Of(compareHandles[T], handles)}
}

func compareHandles[T value[T]](a, b unique.Handle[T]) int {
	if a == b {
		return 0
	}
	return a.Value().compare(b.Value())
}

// Len returns the number of objects.
func (s Set[T]) Len() int { return s.handles.Len() }

// All returns all objects in their order.
func (s Set[T]) All() iter.Seq[T] {
	return func(yield func(T) bool) {
		for h := range s.handles.All() {
			if !yield(h.Value()) {
				return
			}
		}
	}
}

// Find returns the object with the key of o.
func (s Set[T]) Find(o T) (found T, ok bool) {
	h, ok := s.handles.FindFunc(func(h unique.Handle[T]) int { return o.compare(h.Value()) })
	if ok {
		found = h.Value()
	}
	return found, ok
}

// without leaves out what stands on some devices.
func (s Set[T]) without(links []string) Set[T] {
	if len(links) == 0 {
		return s
	}
	return Set[T]{s.handles.Without(func(h unique.Handle[T]) bool {
		device := h.Value().Device()
		return device != "" && slices.Contains(links, device)
	})}
}

// changesTo returns what differs from another set, object by object: those of one key together, else nil on the other side. What the pointers
// point at is valid until the next step. It does not look into pages that the sets share.
func (s Set[T]) changesTo(to Set[T]) iter.Seq2[*T, *T] {
	return func(yield func(before, after *T) bool) {
		var b, a T // in place of a copy on the heap for each change
		at := func(h *unique.Handle[T], o *T) *T {
			if h == nil {
				return nil
			}
			*o = h.Value()
			return o
		}
		for before, after := range sorted.Changes(s.handles, to.handles) {
			if !yield(at(before, &b), at(after, &a)) {
				return
			}
		}
	}
}

// builder is a Set that can be changed. One goroutine may use it.
type builder[T value[T]] struct {
	handles *sorted.Set[unique.Handle[T]]
}

func newBuilder[T value[T]]() builder[T] { return builder[T]{sorted.New(compareHandles[T])} }

// set returns the present content.
func (b builder[T]) set() Set[T] { return Set[T]{b.handles.Freeze()} }

func (b builder[T]) put(o T) { b.handles.Put(unique.Make(o)) }

// delete takes the object with the key of o away. What is o itself costs no new handle.
func (b builder[T]) delete(o T) { b.handles.Delete(unique.Make(o)) }
