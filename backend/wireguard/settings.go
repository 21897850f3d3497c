package wireguard

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// settings are all that can be set of one device, as values: what it has, or what it shall have.
type settings struct {
	private wgtypes.Key
	port    int
	mark    int // of the device's own packets
	peers   map[wgtypes.Key]peer
}

// peer is what a device knows of another host.
type peer struct {
	psk       wgtypes.Key
	endpoint  netip.AddrPort // the zero value: not known
	keepalive time.Duration
	allowed   []netip.Prefix // sorted
}

func (p peer) equal(o peer) bool {
	return p.psk == o.psk && p.endpoint == o.endpoint && p.keepalive == o.keepalive && slices.Equal(p.allowed, o.allowed)
}

// String leaves the keys out.
func (p peer) String() string {
	s := fmt.Sprintf("endpoint %s allowed %v", p.endpoint, p.allowed)
	if p.keepalive > 0 {
		s += " keepalive " + p.keepalive.String()
	}
	return s
}

// read returns the settings that a device has.
func read(d *wgtypes.Device) settings {
	s := settings{private: d.PrivateKey, port: d.ListenPort, mark: d.FirewallMark,
		peers: make(map[wgtypes.Key]peer, len(d.Peers))}
	for _, p := range d.Peers {
		have := peer{psk: p.PresharedKey, endpoint: addrPort(p.Endpoint), keepalive: p.PersistentKeepaliveInterval}
		for _, n := range p.AllowedIPs {
			have.allowed = append(have.allowed, prefixOf(n))
		}
		slices.SortFunc(have.allowed, netip.Prefix.Compare)
		s.peers[p.PublicKey] = have
	}
	return s
}

// change returns the configuration that turns have into want; ok is false if there is nothing to do. It names only what
// differs, so that sessions with all others go on. A prefix that moves from one peer to another is taken from the
// first by giving it to the second, as WireGuard has it.
func change(have, want settings) (c wgtypes.Config, ok bool) {
	if have.private != want.private {
		c.PrivateKey, ok = &want.private, true
	}
	if have.port != want.port {
		c.ListenPort, ok = &want.port, true
	}
	if have.mark != want.mark {
		c.FirewallMark, ok = &want.mark, true
	}
	for _, key := range sortedKeys(have.peers) {
		if _, wanted := want.peers[key]; !wanted {
			c.Peers = append(c.Peers, wgtypes.PeerConfig{PublicKey: key, Remove: true})
		}
	}
	for _, key := range sortedKeys(want.peers) {
		h, stands := have.peers[key]
		if w := want.peers[key]; !stands || !h.equal(w) {
			c.Peers = append(c.Peers, changePeer(key, h, w))
		}
	}
	return c, ok || len(c.Peers) > 0
}

func changePeer(key wgtypes.Key, have, want peer) wgtypes.PeerConfig {
	c := wgtypes.PeerConfig{PublicKey: key}
	if have.psk != want.psk {
		c.PresharedKey = &want.psk
	}
	if have.endpoint != want.endpoint && want.endpoint.IsValid() {
		c.Endpoint = net.UDPAddrFromAddrPort(want.endpoint)
	}
	if have.keepalive != want.keepalive {
		c.PersistentKeepaliveInterval = &want.keepalive
	}
	if slices.Equal(have.allowed, want.allowed) {
		return c
	}
	// What is only added leaves no moment without the rest.
	c.ReplaceAllowedIPs = slices.ContainsFunc(have.allowed,
		func(p netip.Prefix) bool { return !slices.Contains(want.allowed, p) })
	for _, p := range want.allowed {
		if c.ReplaceAllowedIPs || !slices.Contains(have.allowed, p) {
			c.AllowedIPs = append(c.AllowedIPs, ipNet(p))
		}
	}
	return c
}

// differences says in words, without a secret, what others have changed of want.
func differences(have, want settings) []string {
	var out []string
	if have.private != want.private {
		out = append(out, "private key")
	}
	if have.port != want.port {
		out = append(out, fmt.Sprintf("port %d", have.port))
	}
	if have.mark != want.mark {
		out = append(out, fmt.Sprintf("mark %d", have.mark))
	}
	for _, key := range sortedKeys(have.peers) {
		h := have.peers[key]
		switch w, wanted := want.peers[key]; {
		case !wanted:
			out = append(out, fmt.Sprintf("foreign peer %s", key))
		case h.psk != w.psk:
			out = append(out, fmt.Sprintf("peer %s: preshared key", key))
		case !h.equal(w):
			out = append(out, fmt.Sprintf("peer %s: %s", key, h))
		}
	}
	for _, key := range sortedKeys(want.peers) {
		if _, stands := have.peers[key]; !stands {
			out = append(out, fmt.Sprintf("peer %s missing", key))
		}
	}
	return out
}

func sortedKeys(peers map[wgtypes.Key]peer) []wgtypes.Key {
	return slices.SortedFunc(maps.Keys(peers), func(a, b wgtypes.Key) int { return slices.Compare(a[:], b[:]) })
}

func addrPort(a *net.UDPAddr) netip.AddrPort {
	if a == nil {
		return netip.AddrPort{}
	}
	p := a.AddrPort()
	return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
}

func prefixOf(n net.IPNet) netip.Prefix {
	a, _ := netip.AddrFromSlice(n.IP)
	bits, _ := n.Mask.Size()
	if a = a.Unmap(); bits > a.BitLen() {
		bits -= 128 - a.BitLen()
	}
	return netip.PrefixFrom(a, bits)
}

// ipNet is the inverse of prefixOf.
func ipNet(p netip.Prefix) net.IPNet {
	return net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// keepalive returns the interval of keepalives, which all peers share; 0: there are none.
func (s settings) keepalive() time.Duration {
	for _, p := range s.peers {
		return p.keepalive
	}
	return 0
}
