package ip

import "net/netip"

// Snapshot is a set of objects that never changes. Two that one Desired has handed out share what is the same in both,
// so that Diff costs what is not. The zero value is empty.
type Snapshot struct {
	Links  Set[Link]
	Addrs  Set[Addr]
	FDB    Set[FDB]
	Neighs Set[Neigh]
	Routes Set[Route]
}

// Snapshot returns the same objects. The slices belong to it from then on.
func (s State) Snapshot() Snapshot { return s.snapshot(Snapshot{}) }

// snapshot is Snapshot, and shares with known what is in both.
func (s State) snapshot(known Snapshot) Snapshot {
	return Snapshot{
		setOf(s.Links, known.Links), setOf(s.Addrs, known.Addrs), setOf(s.FDB, known.FDB),
		setOf(s.Neighs, known.Neighs), setOf(s.Routes, known.Routes),
	}
}

// Len returns how many objects there are.
func (s Snapshot) Len() int {
	return s.Links.Len() + s.Addrs.Len() + s.FDB.Len() + s.Neighs.Len() + s.Routes.Len()
}

// WithoutRoute returns the objects but for the route to a range that has the default metric.
func (s Snapshot) WithoutRoute(dst netip.Prefix) Snapshot {
	s.Routes = Set[Route]{s.Routes.objects.Without(func(r *Route) bool { return r.Dst == dst && r.Metric == 0 })}
	return s
}

// Desired is a state that is changed object by object, for as long as what it is computed from stays the same. One
// goroutine may use it.
type Desired struct {
	links  builder[Link]
	addrs  builder[Addr]
	fdb    builder[FDB]
	neighs builder[Neigh]
	routes builder[Route]
	spread bool // scopes of routes are
}

// NewDesired returns a state of some objects.
func NewDesired(objects ...Object) *Desired {
	d := &Desired{
		links: newBuilder[Link](), addrs: newBuilder[Addr](), fdb: newBuilder[FDB](), neighs: newBuilder[Neigh](),
		routes: newBuilder[Route](),
	}
	d.Put(objects...)
	return d
}

// Snapshot returns the present state.
func (d *Desired) Snapshot() Snapshot {
	return Snapshot{d.links.set(), d.addrs.set(), d.fdb.set(), d.neighs.set(), d.routes.set()}
}

// Put adds objects, each in place of the one that it would replace in the kernel.
func (d *Desired) Put(objects ...Object) {
	for _, o := range objects {
		d.change(o, false)
	}
}

// Delete takes objects away, or what has taken their place.
func (d *Desired) Delete(objects ...Object) {
	for _, o := range objects {
		d.change(o, true)
	}
}

func (d *Desired) change(o Object, gone bool) {
	switch o := o.(type) {
	case Link:
		d.links.change(o, gone)
	case Addr:
		d.addrs.change(o, gone)
	case FDB:
		d.fdb.change(o, gone)
	case Neigh:
		d.neighs.change(o, gone)
	case Route:
		if gone {
			d.deleteRoute(o)
		} else {
			d.putRoute(o)
		}
	}
}
