package ip

import (
	"net/netip"
	"slices"
)

// contradicts reports whether an event says that the kernel differs from the expected state. Only
// what is in the scope or has the key of something expected can do so.
func contradicts(expect Snapshot, scope Scope, ev Event) bool {
	switch o := ev.Object.(type) {
	case Link:
		want, ok := expect.Links.Find(o)
		if !ok {
			return !ev.Deleted && slices.Contains(scope.Links, o.Name)
		}
		return ev.Deleted || o != want
	case Addr:
		return slices.Contains(scope.Links, o.Link) && !o.ofKernel() && differs(expect.Addrs, o, ev.Deleted)
	case FDB:
		return slices.Contains(scope.Links, o.Link) && unlike(expect.FDB, o, ev.Deleted)
	case Neigh:
		return slices.Contains(scope.Links, o.Link) && unlike(expect.Neighs, o, ev.Deleted)
	case Route:
		want, ok := expect.Routes.Find(o)
		switch {
		case ok && ev.Deleted:
			return o == want
		case ok:
			return o != want
		}
		return !ev.Deleted && scope.Owns(o)
	}
	return true
}

// differs reports whether an event contradicts a set: something in it has gone or changed, or something that is not in
// it has come.
func differs[T value[T]](set Set[T], o T, deleted bool) bool {
	want, ok := set.Find(o)
	if deleted {
		return ok && o == want
	}
	return !ok || o != want
}

// unlike is differs for what is told without its value when it goes: a neighbour that was flushed has no hardware
// address any more.
func unlike[T value[T]](set Set[T], o T, deleted bool) bool {
	want, ok := set.Find(o)
	if deleted {
		return ok
	}
	return !ok || o != want
}

// Owns reports whether a route is in the scope.
func (s Scope) Owns(r Route) bool {
	switch {
	case !s.inNetworks(r.Dst):
		return false
	case r.Metric != 0:
		return r.Metric == BlackholeMetric && r.Protocol == Protocol
	case r.Protocol == Protocol:
		return true
	case r.Protocol == protoKernel || r.Protocol == protoRA:
		return false
	case r.Link != "" && slices.Contains(s.Links, r.Link):
		return true
	}
	return s.BootGateways && r.Protocol == protoBoot && r.Via.IsValid()
}

// covers reports whether an object is in the scope.
func (s Scope) covers(o Object) bool {
	if r, ok := o.(Route); ok {
		return s.Owns(r)
	}
	return slices.Contains(s.Links, o.Device())
}

func (s Scope) inNetworks(p netip.Prefix) bool {
	return slices.ContainsFunc(s.Networks,
		func(n netip.Prefix) bool { return n.Bits() <= p.Bits() && n.Contains(p.Addr()) })
}

// Routing protocol numbers of others (include/uapi/linux/rtnetlink.h).
const (
	protoKernel = 2
	protoBoot   = 3
	protoRA     = 9
)
