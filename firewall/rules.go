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

// Ingress closes the ports of tunnels to everybody but the peers. The zero value leaves them open.
type Ingress struct {
	Tunnels []Tunnel
	Peers   Addrs // underlay addresses that packets may come from
}

// Tunnel is what arrives at a UDP port. A VXLAN network identifier other than 0 judges only packets that carry it, so
// that others may use the port as well.
type Tunnel struct {
	Port uint16
	VNI  uint32
}

// TunnelsOf returns tunnels as another package has them.
func TunnelsOf[T ~struct {
	Port uint16
	VNI  uint32
}](all ...T) (out []Tunnel) {
	for _, t := range all {
		out = append(out, Tunnel(t))
	}
	return out
}

// normal returns the rules in the one form that equal rules share: sorted, without what other members include.
func (r Rules) normal() Rules {
	r.Networks, r.Subnets = outermost(r.Networks), outermost(r.Subnets)
	r.FullyRandom = r.FullyRandom && r.Masquerade
	if len(r.Ingress.Tunnels) == 0 {
		r.Ingress = Ingress{}
	}
	r.Ingress.Tunnels = slices.SortedFunc(slices.Values(r.Ingress.Tunnels), Tunnel.compare)
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
	return slices.Equal(i.Tunnels, o.Tunnels) && i.Peers.equal(o.Peers)
}

func (t Tunnel) compare(o Tunnel) int {
	return cmp.Or(cmp.Compare(t.Port, o.Port), cmp.Compare(t.VNI, o.VNI))
}

// foreign is the part of the rules that the tables of others must allow.
func (r Rules) foreign() foreign.Rules {
	return foreign.Rules{Networks: r.Networks, Subnets: r.Subnets, Masquerade: r.Masquerade, FullyRandom: r.FullyRandom,
		Forward: r.Forward}
}
