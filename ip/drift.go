package ip

import (
	"cmp"
	"slices"
)

// drift is one object that others have changed.
type drift struct {
	Object        // as it is put right; what is foreign: as it was found
	found  string // "missing", "foreign", or what stands there instead
}

const (
	isMissing = "missing"
	isForeign = "foreign"
)

// drifts returns what others have made of the state before. What the kernel itself takes away together with a device or
// an address is not named: it is drift of that device or address.
func drifts(before, found Snapshot) []drift {
	var f finder
	f.shaken = map[string]Kind{}
	find := func(d []drift) {
		for _, o := range d {
			if _, known := f.shaken[o.Device()]; !known && o.Kind() <= KindAddr {
				f.shaken[o.Device()] = o.Kind()
			}
		}
		f.all = append(f.all, d...)
	}
	find(changes(f, before.Links, found.Links))
	find(changes(f, before.Addrs, found.Addrs))
	find(changes(f, before.FDB, found.FDB))
	find(changes(f, before.Neighs, found.Neighs))
	find(changes(f, before.Routes, found.Routes))
	return f.all
}

// finder collects drift, kind by kind.
type finder struct {
	all []drift
	// shaken are the devices that have drifted themselves or in their addresses, and which of both.
	shaken map[string]Kind
}

func changes[T value[T]](f finder, before, found Set[T]) (out []drift) {
	for b, now := range before.changesTo(found) {
		switch {
		case b == nil:
			out = append(out, drift{*now, isForeign})
		case now == nil && !f.wentAlong(*b):
			out = append(out, drift{*b, isMissing})
		case now != nil:
			out = append(out, drift{*b, Object(*now).String()})
		}
	}
	return out
}

// wentAlong reports whether the kernel may have taken a missing object away by itself.
func (f finder) wentAlong(o Object) bool {
	kind, shaken := f.shaken[o.Device()]
	return shaken && o.Device() != "" && kind < o.Kind()
}

// keyOf returns the object without what can change in place: what it is told apart by.
func keyOf(o Object) Object {
	switch o := o.(type) {
	case Link:
		return Link{Name: o.Name}
	case FDB:
		return FDB{Link: o.Link, MAC: o.MAC}
	case Neigh:
		return Neigh{Link: o.Link, IP: o.IP}
	case Route:
		return Route{Dst: o.Dst, Metric: o.Metric}
	}
	return o
}

// byKind returns the drift of each kind, the kinds in their order.
func byKind(all []drift) [][]drift {
	slices.SortStableFunc(all, func(a, b drift) int { return cmp.Compare(a.Kind(), b.Kind()) })
	var out [][]drift
	for len(all) > 0 {
		n := slices.IndexFunc(all, func(d drift) bool { return d.Kind() != all[0].Kind() })
		if n < 0 {
			n = len(all)
		}
		out, all = append(out, all[:n]), all[n:]
	}
	return out
}
