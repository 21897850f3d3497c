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
func NewDesired(objects ...Object) *Desired { return Host{}.Desired(objects...) }

// Desired returns a state of some objects.
func (h Host) Desired(objects ...Object) *Desired {
	d := &Desired{}
	if s := h.Shared; s != nil {
		d.links, d.addrs, d.fdb, d.neighs, d.routes = newBuilder(&s.links), newBuilder(&s.addrs), newBuilder(&s.fdb),
			newBuilder(&s.neighs), newBuilder(&s.routes)
	} else {
		d.links, d.addrs, d.fdb, d.neighs, d.routes = newBuilder[Link](nil), newBuilder[Addr](nil), newBuilder[FDB](nil),
			newBuilder[Neigh](nil), newBuilder[Route](nil)
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
		switch o := o.(type) {
		case Link:
			d.links.put(o)
		case Addr:
			d.addrs.put(o)
		case FDB:
			d.fdb.put(o)
		case Neigh:
			d.neighs.put(o)
		case Route:
			d.putRoute(o)
		}
	}
}

// Delete takes objects away, or what has taken their place.
func (d *Desired) Delete(objects ...Object) {
	for _, o := range objects {
		switch o := o.(type) {
		case Link:
			d.links.delete(o)
		case Addr:
			d.addrs.delete(o)
		case FDB:
			d.fdb.delete(o)
		case Neigh:
			d.neighs.delete(o)
		case Route:
			d.deleteRoute(o)
		}
	}
}
