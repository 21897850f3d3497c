package ip

const (
	// spreadFrom is the number of routes from which on scopes are spread: below, the kernel's scan costs less than 20 ms in all.
	spreadFrom = 1024
	scopes     = 199 // that are free for use (enum rt_scope_t, include/uapi/linux/rtnetlink.h)
)

// spreadScopes gives the IPv4 routes of a large cluster scopes from 1 to 199, each always the same. It changes nothing but the
// time that the kernel needs: it looks for an equal next hop among all routes of one protocol, scope and
// device (fib_find_info in net/ipv4/fib_semantics.c hashes by these, but not by the gateway), so that ten thousand routes
// of one scope cost fifty million comparisons. Any scope below that of a link means the same to a packet.
func spreadScopes(routes []Route) {
	if len(routes) < spreadFrom {
		return
	}
	for i, r := range routes {
		if !r.Dst.Addr().Is4() || !r.Via.IsValid() {
			continue
		}
		h := uint32(2166136261) // FNV-1a
		for _, b := range r.Dst.Addr().As4() {
			h = (h ^ uint32(b)) * 16777619
		}
		routes[i].Scope = uint8(1 + h%scopes)
	}
}
