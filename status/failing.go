package status

import (
	"errors"
	"net/netip"

	"flanneld/ip"
	"flanneld/subnet"
)

// failing says which peers the last pass has not brought into the kernel.
type failing struct {
	all    string                  // why none is known to be there
	single map[netip.Prefix]string // by subnet of the peer
}

// newFailing finds the peers that the failed operations of a pass belong to: by the subnet of a route, the first
// address of the subnet, or the public address.
func newFailing(peers subnet.Peers, err error) failing {
	f := failing{single: map[netip.Prefix]string{}}
	if err == nil || errors.Is(err, ip.ErrContention) && ip.PeersOnly(err) {
		return f
	}
	if !ip.PeersOnly(err) {
		f.all = brief(err)
		return f
	}
	of := make(map[netip.Addr][]netip.Prefix, 2*peers.Len())
	for l := range peers.All() {
		of[l.Subnet.Addr()] = append(of[l.Subnet.Addr()], l.Subnet)
		of[l.PublicIP] = append(of[l.PublicIP], l.Subnet)
	}
	for _, op := range ip.FailedOps(err) {
		var key netip.Addr
		switch o := op.Op.Object.(type) {
		case ip.Route:
			key = o.Dst.Addr()
		case ip.Neigh:
			key = o.IP
		case ip.FDB:
			key = o.Dst.WithZone("")
		}
		for _, p := range of[key] {
			f.single[p] = op.Error()
		}
	}
	return f
}

// of says why a peer is not in the kernel; empty: it is.
func (f failing) of(l subnet.Lease) string {
	if f.all != "" {
		return f.all
	}
	return f.single[l.Subnet]
}

// count returns how many peers are not in the kernel, those that are left out among them.
func (f failing) count(peers subnet.Peers, skipped map[netip.Prefix]string) int {
	if f.all != "" {
		return peers.Len()
	}
	n := len(f.single)
	for p := range skipped {
		if f.single[p] == "" {
			n++
		}
	}
	return n
}
