package skip

import (
	"net/netip"

	"flanneld/ip"
	"flanneld/subnet"
)

// Routes changes a state, which has one route for each peer, from one set of peers to another. Peers that skipped names have none.
func Routes(state *ip.Desired, from, to subnet.Peers, skipped func(netip.Prefix) bool, route func(*subnet.Lease) ip.Route) {
	for old, now := range subnet.PeerChanges(from, to) {
		if old != nil {
			state.Delete(route(old))
		}
		if now != nil && !skipped(now.Subnet) {
			state.Put(route(now))
		}
	}
}
