package iptest

import (
	"iter"
	"net/netip"
	"slices"
	"syscall"

	"flanneld/ip"
)

// watcher is one call of Watch.
type watcher struct {
	wake  chan struct{} // capacity 1
	queue []ip.Event
}

func (w *watcher) poke() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// key returns what an object is told apart by.
func key(o ip.Object) ip.Object {
	switch o := o.(type) {
	case ip.Link:
		return ip.Link{Name: o.Name}
	case ip.FDB:
		return ip.FDB{Link: o.Link, MAC: o.MAC}
	case ip.Neigh:
		return ip.Neigh{Link: o.Link, IP: o.IP}
	case ip.Route:
		return ip.Route{Dst: o.Dst, Metric: o.Metric}
	}
	return o
}

// in reports whether an object is in a scope.
func in(s ip.Scope, o ip.Object) bool {
	if r, ok := o.(ip.Route); ok {
		return s.Owns(r)
	}
	return slices.Contains(s.Links, o.Device())
}

// stateOf sorts objects into a state.
func stateOf(objects iter.Seq[ip.Object]) ip.State {
	var s ip.State
	for o := range objects {
		switch o := o.(type) {
		case ip.Link:
			s.Links = append(s.Links, o)
		case ip.Addr:
			s.Addrs = append(s.Addrs, o)
		case ip.FDB:
			s.FDB = append(s.FDB, o)
		case ip.Neigh:
			s.Neighs = append(s.Neighs, o)
		case ip.Route:
			s.Routes = append(s.Routes, o)
		}
	}
	s.Sort()
	return s
}

// linkLocked returns a link, nil if there is none of that name.
func (k *Kernel) linkLocked(name string) *ip.Link {
	l, ok := k.objects[ip.Link{Name: name}].(ip.Link)
	if !ok {
		return nil
	}
	return &l
}

// applyLocked carries out one operation. by is empty for the host's daemon.
func (k *Kernel) applyLocked(op ip.Op, by string) error {
	old, stands := k.objects[key(op.Object)]
	if op.Delete {
		if !stands || op.Object.Kind() == ip.KindRoute && old != op.Object {
			return nil
		}
		delete(k.objects, key(op.Object))
		k.notify(ip.Event{Deleted: true, Object: old, By: by})
		k.aftermath(old, nil)
		return nil
	}
	if err := k.refuses(op.Object, old); err != nil {
		return err
	}
	if op.Create && stands && old != op.Object {
		return &ip.Conflict{Want: op.Object.(ip.Route), Found: old.(ip.Route)}
	}
	if stands && old == op.Object {
		return nil
	}
	k.objects[key(op.Object)] = op.Object
	if l, ok := op.Object.(ip.Link); ok && !stands {
		k.last++
		k.indexes[l.Name] = k.last
	}
	k.notify(ip.Event{Object: op.Object, By: by})
	if stands {
		k.aftermath(old, op.Object)
	}
	return nil
}

// refuses says why the kernel does not put an object in the place of what stands there.
func (k *Kernel) refuses(o, old ip.Object) error {
	switch o := o.(type) {
	case ip.Link:
		if o.Type == "vxlan" && k.linkLocked(o.VXLAN.Underlay) == nil {
			return syscall.ENODEV
		}
		if was, ok := old.(ip.Link); ok &&
			(was.Type != o.Type || was.Tunnel != o.Tunnel || was.VXLAN.VNI != o.VXLAN.VNI || was.VXLAN.Port != o.VXLAN.Port) {
			return syscall.EOPNOTSUPP
		}
		return nil
	case ip.Route:
		return k.refusesRoute(o)
	}
	if k.linkLocked(o.Device()) == nil {
		return syscall.ENODEV
	}
	return nil
}

func (k *Kernel) refusesRoute(r ip.Route) error {
	if r.Blackhole {
		return nil
	}
	l := k.linkLocked(r.Link)
	switch {
	case l == nil:
		return syscall.ENODEV
	case !l.Up:
		return syscall.ENETDOWN
	case r.Via.IsValid() && !r.Onlink && !k.onLink(r.Link, r.Via):
		return syscall.ENETUNREACH
	}
	return nil
}

func (k *Kernel) onLink(link string, a netip.Addr) bool {
	for _, o := range k.objects {
		if addr, ok := o.(ip.Addr); ok && addr.Link == link && addr.Prefix.Contains(a) {
			return true
		}
	}
	return false
}

// aftermath takes away what cannot stand any more. The kernel says nothing about it, and so does this one.
func (k *Kernel) aftermath(old, now ip.Object) {
	switch was := old.(type) {
	case ip.Link:
		is, _ := now.(ip.Link)
		k.drop(func(o ip.Object) bool {
			if l, ok := o.(ip.Link); ok {
				return now == nil && l.Type == "vxlan" && l.VXLAN.Underlay == was.Name
			}
			if o.Device() != was.Name {
				return false
			}
			return now == nil || !is.Up && o.Kind() >= ip.KindNeigh || is.MAC != was.MAC && o.Kind() == ip.KindNeigh
		})
	case ip.Addr:
		is4 := was.Prefix.Addr().Is4()
		for _, o := range k.objects {
			if a, ok := o.(ip.Addr); ok && a.Link == was.Link && a.Prefix.Addr().Is4() == is4 {
				return
			}
		}
		k.drop(func(o ip.Object) bool {
			r, ok := o.(ip.Route)
			return ok && r.Link == was.Link && r.Dst.Addr().Is4() == is4
		})
	}
}

// drop deletes objects; of links it tells, for the real kernel does.
func (k *Kernel) drop(f func(ip.Object) bool) {
	for key, o := range k.objects {
		if !f(o) {
			continue
		}
		delete(k.objects, key)
		if o.Kind() == ip.KindLink {
			k.notify(ip.Event{Deleted: true, Object: o})
			k.aftermath(o, nil)
		}
	}
}

func (k *Kernel) notify(ev ip.Event) {
	copies := 1
	if k.faults.Copies != nil {
		copies = k.faults.Copies(ev)
	}
	for w := range k.watchers {
		for range copies {
			w.queue = append(w.queue, ev)
		}
		w.poke()
	}
}
