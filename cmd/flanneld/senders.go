package main

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"flanneld/ip"
	"flanneld/ip/masq"
	"flanneld/subnet"
)

// Senders knows the addresses that packets of peers may come from. It follows the peers for as long as the host's own addresses stay the same. The
// zero value knows none.
type Senders struct {
	host    ip.Underlay
	peers   subnet.Peers
	addrs   *masq.AddrSet
	unknown map[netip.Prefix]string // why it cannot be known where packets of a peer come from; few
}

// Follow returns the addresses for these peers, and why they are not all; empty if they are.
func (s *Senders) Follow(host ip.Underlay, peers subnet.Peers) (admitted masq.Addrs, open string) {
	if s.addrs == nil || !slices.Equal(s.host.Addrs, host.Addrs) || !slices.Equal(s.host.PublicAddrs, host.PublicAddrs) || !slices.Equal(s.host.Next, host.Next) {
		*s = Senders{host: host, addrs: masq.NewAddrSet(), unknown: map[netip.Prefix]string{}}
	}
	for old, now := range subnet.PeerChanges(s.peers, peers) {
		if old != nil {
			each(old, s.addrs.Remove)
			delete(s.unknown, old.Subnet)
		}
		if now == nil {
			continue
		}
		each(now, s.addrs.Add)
		if why := translated(host, *now); why != "" {
			s.unknown[now.Subnet] = why
		}
	}
	s.peers = peers
	if len(s.unknown) > 0 {
		open = s.unknown[slices.MinFunc(slices.Collect(maps.Keys(s.unknown)), netip.Prefix.Compare)]
	}
	return s.addrs.Snapshot(), open
}

// each calls f with the addresses that packets of a peer may come from.
func each(l *subnet.Lease, f func(netip.Addr)) {
	f(l.PublicIP)
	if l.Underlay.IsValid() {
		f(l.Underlay)
	}
}

// translated says why it cannot be known where packets of a peer come from; empty if it can. A peer that tells nothing but
// its public address is believed unless addresses are likely to be translated on the way to it.
func translated(host ip.Underlay, l subnet.Lease) string {
	own := host.Addr(l.Subnet)
	switch {
	case l.Underlay.IsValid() || !own.IsValid():
		return ""
	case host.Receiving(l.Subnet) != host.PublicAddr(l.Subnet):
		return fmt.Sprintf("this host's public address %s is not its own, and peer %s does not publish the address that its packets come from",
			host.PublicAddr(l.Subnet), l.PublicIP)
	case own.IsPrivate() && !l.PublicIP.IsPrivate() && l.PublicIP.IsGlobalUnicast():
		return fmt.Sprintf("peer %s has a public address, this host a private one, and the peer does not publish the address that its packets come from", l.PublicIP)
	}
	return ""
}
