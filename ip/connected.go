package ip

import (
	"net/netip"
	"slices"
)

// Connected is a range that this host reaches otherwise than through the network of pods: one that an interface has an
// address in, or the address of the store.
type Connected struct {
	Prefix netip.Prefix
	Link   string // empty: it is not known by which one
}

// ConnectedIn returns what interfaces reach of some networks, sorted by the order of the interfaces. An interface whose
// own network is wider than that of the pods has the address alone: pods' networks are cut out of those of hosts on
// purpose.
func ConnectedIn(networks []netip.Prefix, all []Interface) []Connected {
	var out []Connected
	for _, i := range all {
		for _, a := range slices.Concat(i.Addrs, i.Deprecated) {
			out = append(out, connectedTo(networks, i.Name, a)...)
		}
	}
	return out
}

// connectedTo returns what an address of an interface takes of the networks.
func connectedTo(networks []netip.Prefix, link string, a netip.Prefix) (out []Connected) {
	for _, n := range networks {
		switch {
		case !n.Contains(a.Addr()):
		case a.Bits() < n.Bits():
			out = append(out, Connected{netip.PrefixFrom(a.Addr(), a.Addr().BitLen()), link})
		default:
			out = append(out, Connected{a, link})
		}
	}
	return out
}
