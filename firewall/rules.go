package firewall

import (
	"cmp"
	"net/netip"
	"slices"

	"flanneld/firewall/foreign"
)

// Rules is all that the packet filter is to do, for both families. The zero value asks for nothing: what an earlier run
// has left is removed.
type Rules struct {
	Networks []netip.Prefix // ranges of the cluster
	Subnets  []netip.Prefix // of this host

	Masquerade  bool
	FullyRandom bool // choose the source port at random, so that two hosts' connections rarely collide
	Forward     bool // accept forwarding from and to the networks where the host's policy would drop it

	Ingress Ingress
}

// Ingress closes a tunnel's port to everybody but the peers. The zero value leaves it open.
type Ingress struct {
	Port  uint16 // UDP; 0: open to all
	VXLAN bool   // judge only packets that carry the VNI, so that others may use the port as well
	VNI   uint32
	Peers Addrs // underlay addresses that packets may come from
}

// IngressOf returns the ingress of a tunnel without peers. Without a port there is nothing to close, without a network
// identifier it is not VXLAN.
func IngressOf(port uint16, vni uint32) Ingress {
	return Ingress{Port: port, VXLAN: vni != 0, VNI: vni}
}

// normal returns the rules in the one form that equal rules share: sorted, without what other members include.
func (r Rules) normal() Rules {
	r.Networks, r.Subnets = outermost(r.Networks), outermost(r.Subnets)
	r.FullyRandom = r.FullyRandom && r.Masquerade
	if r.Ingress.Port == 0 {
		r.Ingress = Ingress{}
	}
	return r
}

// outermost returns the prefixes that lie in no other one, sorted by family and address.
func outermost(prefixes []netip.Prefix) []netip.Prefix {
	sorted := make([]netip.Prefix, len(prefixes))
	for i, p := range prefixes {
		sorted[i] = p.Masked()
	}
	slices.SortFunc(sorted, func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	var out []netip.Prefix
	for _, p := range sorted {
		if len(out) == 0 || !out[len(out)-1].Overlaps(p) {
			out = append(out, p)
		}
	}
	return out
}

// equal reports whether normal rules are the same.
func (r Rules) equal(o Rules) bool {
	return r.Masquerade == o.Masquerade && r.FullyRandom == o.FullyRandom && r.Forward == o.Forward &&
		slices.Equal(r.Networks, o.Networks) && slices.Equal(r.Subnets, o.Subnets) && r.Ingress.equal(o.Ingress)
}

func (i Ingress) equal(o Ingress) bool {
	return i.Port == o.Port && i.VXLAN == o.VXLAN && i.VNI == o.VNI && i.Peers.equal(o.Peers)
}

// foreign is the part of the rules that the tables of others must allow.
func (r Rules) foreign() foreign.Rules {
	return foreign.Rules{Networks: r.Networks, Subnets: r.Subnets, Masquerade: r.Masquerade, FullyRandom: r.FullyRandom,
		Forward: r.Forward}
}
