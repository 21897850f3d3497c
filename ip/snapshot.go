package ip

import "flanneld/sorted"

// Snapshot is a set of objects that never changes. Two that one Desired has handed out share what is the same in both, so that Diff costs
// what is not. The zero value is empty.
type Snapshot struct {
	Links  sorted.Snapshot[Link]
	Addrs  sorted.Snapshot[Addr]
	FDB    sorted.Snapshot[FDB]
	Neighs sorted.Snapshot[Neigh]
	Routes sorted.Snapshot[Route]
}

// Snapshot returns the same objects. The slices belong to it from then on.
func (s State) Snapshot() Snapshot {
	return Snapshot{
		sorted.Of(compareLink, s.Links), sorted.Of(compareAddr, s.Addrs), sorted.Of(compareFDB, s.FDB),
		sorted.Of(compareNeigh, s.Neighs), sorted.Of(compareRoute, s.Routes),
	}
}

// Len returns how many objects there are.
func (s Snapshot) Len() int {
	return s.Links.Len() + s.Addrs.Len() + s.FDB.Len() + s.Neighs.Len() + s.Routes.Len()
}

// Desired is a state that is changed object by object, for as long as what it is computed from stays the same. One goroutine may use it.
type Desired struct {
	links  *sorted.Set[Link]
	addrs  *sorted.Set[Addr]
	fdb    *sorted.Set[FDB]
	neighs *sorted.Set[Neigh]
	routes *sorted.Set[Route]
	spread bool // scopes of routes are
}

// NewDesired returns a state of some objects.
func NewDesired(objects ...Object) *Desired {
	d := &Desired{
		links: sorted.New(compareLink), addrs: sorted.New(compareAddr), fdb: sorted.New(compareFDB),
		neighs: sorted.New(compareNeigh), routes: sorted.New(compareRoute),
	}
	d.Put(objects...)
	return d
}

// Snapshot returns the present state.
func (d *Desired) Snapshot() Snapshot {
	return Snapshot{d.links.Freeze(), d.addrs.Freeze(), d.fdb.Freeze(), d.neighs.Freeze(), d.routes.Freeze()}
}

// Put adds objects, each in place of the one that it would replace in the kernel.
func (d *Desired) Put(objects ...Object) {
	for _, o := range objects {
		switch o := o.(type) {
		case Link:
			d.links.Put(o)
		case Addr:
			d.addrs.Put(o)
		case FDB:
			d.fdb.Put(o)
		case Neigh:
			d.neighs.Put(o)
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
			d.links.Delete(o)
		case Addr:
			d.addrs.Delete(o)
		case FDB:
			d.fdb.Delete(o)
		case Neigh:
			d.neighs.Delete(o)
		case Route:
			d.deleteRoute(o)
		}
	}
}
