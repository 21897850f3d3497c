package ip

import (
	"slices"

	"flanneld/sorted"
)

// With returns the objects of both; where two have one key, that of the receiver.
func (s Snapshot) With(o Snapshot) Snapshot {
	return Snapshot{
		s.Links.with(o.Links), s.Addrs.with(o.Addrs), s.FDB.with(o.FDB), s.Neighs.with(o.Neighs), s.Routes.with(o.Routes),
	}
}

// WithMTU returns the objects with an MTU for all routes that lead to somebody.
func (s Snapshot) WithMTU(mtu int) Snapshot {
	all := make([]*Route, 0, s.Routes.Len())
	for p := range s.Routes.objects.All() {
		if r := *p; !r.Blackhole {
			r.MTU = uint32(mtu)
			p = pointer(r)
		}
		all = append(all, p)
	}
	s.Routes = Set[Route]{sorted.Of(comparePointers[Route], all)}
	return s
}

func (s Set[T]) with(o Set[T]) Set[T] {
	switch {
	case o.Len() == 0:
		return s
	case s.Len() == 0:
		return o
	}
	all := slices.Collect(s.objects.All())
	for p := range o.objects.All() {
		if _, taken := s.objects.Find(p); !taken {
			all = append(all, p)
		}
	}
	return Set[T]{sorted.Of(comparePointers[T], all)}
}
