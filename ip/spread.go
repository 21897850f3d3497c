package ip

const (
	// spreadFrom is the number of routes from which on scopes are spread: below, the kernel's scan costs less than 20 ms
	// in all.
	spreadFrom = 1024
	// spreadTo is the number below which they are not any more: that it is a lower one keeps a cluster that breathes from
	// changing all its routes again and again.
	spreadTo = 512
	scopes   = 199 // that are free for use (enum rt_scope_t, include/uapi/linux/rtnetlink.h)
)

// putRoute adds a route. The IPv4 routes of a large cluster get scopes from 1 to 199, each always the same. That
// changes nothing but the time that the kernel needs: it looks for an equal next hop among all routes of one protocol,
// scope and device (fib_find_info in net/ipv4/fib_semantics.c hashes by these, but not by the gateway), so that ten
// thousand routes of one scope cost fifty million comparisons. Any scope below that of a link means the same to a
// packet.
func (d *Desired) putRoute(r Route) {
	d.routes.put(d.withScope(r))
	if !d.spread && d.routes.objects.Len() >= spreadFrom {
		d.spreadScopes(true)
	}
}

func (d *Desired) deleteRoute(r Route) {
	d.routes.delete(d.withScope(r))
	if d.spread && d.routes.objects.Len() < spreadTo {
		d.spreadScopes(false)
	}
}

func (d *Desired) spreadScopes(on bool) {
	d.spread = on
	for r := range d.routes.set().All() {
		d.routes.put(d.withScope(r))
	}
}

func (d *Desired) withScope(r Route) Route {
	r.Scope = 0
	if !d.spread || !r.Dst.Addr().Is4() || !r.Via.IsValid() {
		return r
	}
	h := uint32(2166136261) // FNV-1a
	for _, b := range r.Dst.Addr().As4() {
		h = (h ^ uint32(b)) * 16777619
	}
	r.Scope = uint8(1 + h%scopes)
	return r
}
