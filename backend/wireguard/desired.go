package wireguard

import (
	"fmt"
	"net/netip"
	"slices"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"flanneld/backend"
	"flanneld/backend/wireguard/options"
	"flanneld/ip"
	"flanneld/subnet"
)

// host is what is known of this host when peers are chosen.
type host struct {
	private  wgtypes.Key
	networks []netip.Prefix
	underlay ip.Underlay
}

// plan is what the devices shall be set to.
type plan struct {
	devices map[string]settings
	skipped map[netip.Prefix]string // peers that are left out, and why
}

// owner is the host that a public key on a device belongs to, as the leases say.
type owner struct {
	first     netip.Prefix // its lowest subnet that was seen
	port      uint16       // 0: ours
	addresses []netip.Addr // public ones, at most one for each family
}

// desired computes the settings of all devices from the whole set of peers. A public key is one peer on a device: of
// two hosts with the same key the one with the lowest subnet has it.
func (o config) desired(h host, peers subnet.Peers) plan {
	p := plan{map[string]settings{}, map[netip.Prefix]string{}}
	owners := map[string]map[wgtypes.Key]*owner{}
	for _, name := range o.devices(h.networks) {
		p.devices[name] = settings{private: h.private, port: int(o.port(name)), peers: map[wgtypes.Key]peer{}}
		owners[name] = map[wgtypes.Key]*owner{}
	}
	public := h.private.PublicKey()
	for l, r := range peers.Records() {
		d, err := parseData(l.BackendData)
		name := o.device(l.Subnet)
		s, ok := p.devices[name]
		if err != nil || !ok { // Valid has said so
			continue
		}
		at := owners[name][d.PublicKey]
		switch {
		case d.PublicKey == public:
			p.skipped[l.Subnet] = "its public key is that of this host: one of both is a copy of the other, give it a key " +
				"of its own"
			continue
		case at == nil:
			at = &owner{first: l.Subnet, port: d.Port}
			owners[name][d.PublicKey] = at
		case !slices.Contains(r.Prefixes(), at.first):
			p.skipped[l.Subnet] = fmt.Sprintf("the host of %s has the same public key: give one of both a key of its own",
				at.first)
			continue
		}
		at.addresses = append(at.addresses, l.PublicIP)
		s.peers[d.PublicKey] = o.add(s.peers[d.PublicKey], l.Subnet, at.endpoint(o, name, h.underlay))
	}
	return p
}

// add returns a peer with one more subnet.
func (o config) add(p peer, subnet netip.Prefix, endpoint netip.AddrPort) peer {
	p.psk, p.keepalive, p.endpoint = o.PSK.Key(), o.Keepalive, endpoint
	p.allowed = append(p.allowed, subnet)
	slices.SortFunc(p.allowed, netip.Prefix.Compare)
	return p
}

// endpoint returns where packets to the host are sent.
func (w owner) endpoint(o config, device string, u ip.Underlay) netip.AddrPort {
	port := w.port
	if port == 0 {
		port = o.port(device)
	}
	a := w.addresses[0]
	for _, other := range w.addresses[1:] {
		a = o.choose(a, other, u)
	}
	return netip.AddrPortFrom(u.OnLink(a), port)
}

// choose returns the better one of an IPv4 and an IPv6 address of a host. In mode auto that is the IPv4 one if it is
// public and we have IPv4, else the IPv6 one if it is public and ours is, too.
func (o config) choose(a, b netip.Addr, u ip.Underlay) netip.Addr {
	v4, v6 := a, b
	if v4.Is6() {
		v4, v6 = v6, v4
	}
	own4, own6 := ofFamily(u.Addrs, true), ofFamily(u.Addrs, false)
	switch {
	case o.Mode == options.IPv6:
		return v6
	case o.Mode == options.IPv4 || isPublic(v4) && own4.IsValid():
		return v4
	case isPublic(v6) && isPublic(own6):
		return v6
	}
	return v4
}

func ofFamily(addrs []netip.Addr, is4 bool) netip.Addr {
	for _, a := range addrs {
		if a.Is4() == is4 {
			return a
		}
	}
	return netip.Addr{}
}

func isPublic(a netip.Addr) bool { return a.IsGlobalUnicast() && !a.IsPrivate() }

// objects returns what stands in the kernel: the devices, and for each of our subnets its first address and the route
// of its whole network.
func (o config) objects(kind string, h host, self []subnet.Lease) []ip.Object {
	var out []ip.Object
	for _, name := range o.devices(h.networks) {
		out = append(out, ip.Link{Name: name, Type: kind, MTU: o.mtu(h.underlay), Up: true})
	}
	for _, l := range self {
		name := o.device(l.Subnet)
		out = append(out, backend.FirstAddr(name, l.Subnet))
		for _, n := range h.networks {
			if n.Contains(l.Subnet.Addr()) {
				out = append(out, ip.Route{Dst: n, Link: name, Protocol: ip.Protocol})
			}
		}
	}
	return out
}
