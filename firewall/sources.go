package firewall

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"flanneld/ip"
	"flanneld/subnet"
)

// Sources knows the source addresses that packets of peers may have. It follows the peers for as long as the host's own
// addresses stay the same. The zero value knows none.
type Sources struct {
	host    ip.Underlay
	peers   subnet.Peers
	addrs   *AddrSet
	unknown map[netip.Prefix]string // why it cannot be known where packets of a peer come from; few
	former  []formerSource          // of peers whose address has changed; few
}

// formerSource is an address that packets of a peer came from until it changed.
type formerSource struct {
	addr  netip.Addr
	until time.Time
}

// formerFor is how long packets of a peer are taken from its former address at least: its record changes before its
// kernel does, and packets are on their way. The first pass after that, within a minute, ends it.
const formerFor = 10 * time.Second

// Follow returns the addresses for these peers, and why they are not all; empty if they are.
func (s *Sources) Follow(host ip.Underlay, peers subnet.Peers) (admitted Addrs, open string) {
	if s.addrs == nil || !slices.Equal(s.host.Addrs, host.Addrs) || !slices.Equal(s.host.PublicAddrs, host.PublicAddrs) ||
		!slices.Equal(s.host.Next, host.Next) {
		*s = Sources{host: host, addrs: NewAddrSet(), unknown: map[netip.Prefix]string{}, former: s.former}
		for _, f := range s.former {
			s.addrs.Add(f.addr)
		}
	}
	s.expire()
	for old, now := range subnet.PeerChanges(s.peers, peers) {
		if old != nil {
			delete(s.unknown, old.Subnet)
		}
		if now != nil {
			each(now, s.addrs.Add)
			if why := translated(host, *now); why != "" {
				s.unknown[now.Subnet] = why
			}
		}
		if old != nil {
			each(old, func(a netip.Addr) { s.drop(a, now) })
		}
	}
	s.peers = peers
	if len(s.unknown) > 0 {
		open = s.unknown[slices.MinFunc(slices.Collect(maps.Keys(s.unknown)), netip.Prefix.Compare)]
	}
	return s.addrs.Snapshot(), open
}

// drop removes an address of a peer: after a while if the peer has another one now, at once if it has left.
func (s *Sources) drop(a netip.Addr, now *subnet.Lease) {
	if now == nil || a == now.PublicIP || a == now.Underlay {
		s.addrs.Remove(a)
		return
	}
	s.former = append(s.former, formerSource{a, time.Now().Add(formerFor)})
}

// expire removes former addresses whose time is up.
func (s *Sources) expire() {
	now := time.Now()
	s.former = slices.DeleteFunc(s.former, func(f formerSource) bool {
		over := now.After(f.until)
		if over {
			s.addrs.Remove(f.addr)
		}
		return over
	})
}

// each calls f with the addresses that packets of a peer may come from.
func each(l *subnet.Lease, f func(netip.Addr)) {
	f(l.PublicIP)
	if l.Underlay.IsValid() {
		f(l.Underlay)
	}
}

// translated says why it cannot be known where packets of a peer come from; empty if it can. A peer that tells nothing
// but its public address is believed unless addresses are likely to be translated on the way to it.
func translated(host ip.Underlay, l subnet.Lease) string {
	own := host.Addr(l.Subnet)
	switch {
	case l.Underlay.IsValid() || !own.IsValid():
		return ""
	case host.Receiving(l.Subnet) != host.PublicAddr(l.Subnet):
		return fmt.Sprintf("this host's public address %s is not its own, and peer %s does not publish the address that "+
			"its packets come from",
			host.PublicAddr(l.Subnet), l.PublicIP)
	case own.IsPrivate() && !l.PublicIP.IsPrivate() && l.PublicIP.IsGlobalUnicast():
		return fmt.Sprintf("peer %s has a public address, this host a private one, and the peer does not publish the "+
			"address that its packets come from", l.PublicIP)
	}
	return ""
}
