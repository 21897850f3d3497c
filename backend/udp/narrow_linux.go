package udp

import (
	"maps"
	"net/netip"

	"flanneld/backend/udp/offload"
	"flanneld/ip"
)

// narrow knows the peers to whom a route leads with an MTU of its own ("mtu" of ip-route(8)). The lookup of the
// programs does not respect that (ip_mtu_from_fib_result in net/ipv4/route.c), but sockets do: such peers are left to
// user space.
type narrow struct {
	local netip.Addr
	known map[netip.Addr]bool // by public address
}

// without returns the peers as the programs may know them. Only addresses that it has not met are looked up.
func (n *narrow) without(peers offload.Peers, local netip.Addr) offload.Peers {
	if n.known == nil || n.local != local {
		n.local, n.known = local, map[netip.Addr]bool{}
	}
	now, found := make(map[netip.Addr]bool, len(peers.Routes)), false
	for _, r := range peers.Routes {
		is, known := n.known[r.Host]
		if !known {
			is = ip.RouteMTU(r.Host, local) != 0
		}
		now[r.Host] = is
		found = found || is
	}
	n.known = now
	if !found {
		return peers
	}
	peers.Routes = maps.Clone(peers.Routes)
	for p, r := range peers.Routes {
		r.Kernel = r.Kernel && !now[r.Host]
		peers.Routes[p] = r
	}
	return peers
}

// forget has all addresses be looked up again.
func (n *narrow) forget() { n.known = nil }
