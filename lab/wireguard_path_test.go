package lab_test

import (
	"fmt"
	"testing"

	"flanneld/lab"
)

// TestWireGuardFitsIntoASmallerPath narrows the path between two hosts below what their interfaces say, as a VPN or a
// cloud does. The packets of the tunnel are fragmented, one by one where the kernel cannot cut a large one into them.
func TestWireGuardFitsIntoASmallerPath(t *testing.T) {
	t.Parallel()
	s := newSite(t, network{"wireguard", lab.Dual}, 2)
	for i, h := range s.hosts {
		other := s.hosts[1-i]
		s.ok(h.Run(fmt.Sprintf("ip route add %s/32 dev eth0 mtu 1400", other.Addr),
			fmt.Sprintf("ip -6 route add %s/128 dev eth0 mtu 1400", other.Addr6)))
	}
	full := lab.PingOptions{Size: s.mtu(), DontFragment: true}
	s.reaches(s.pods[0].Namespace, s.pods[1], full)
	for i, a := range s.pods[1].Addrs {
		s.transfer(s.pods[0].Namespace, s.pods[1].Namespace, a, 5<<20)
		s.transfer(s.pods[1].Namespace, s.pods[0].Namespace, s.pods[0].Addrs[i], 5<<20)
	}
}

// TestWireGuardFollowsTheRouteToAPeer moves the way to a peer to another interface, and takes the first one away. The
// daemon's socket sends from where the last packet was sent to, on that interface, until the kernel says that routes
// have changed.
func TestWireGuardFollowsTheRouteToAPeer(t *testing.T) {
	t.Parallel()
	s := newSite(t, network{"wireguard", lab.IPv4}, 2)
	h, peer := s.hosts[0], s.hosts[1]
	plug(s.cluster, h, "eth1", "second0")
	s.ok(h.Run("ip addr add 198.18.88.8/16 dev eth1 noprefixroute", "ip link set eth1 up"))
	s.connected()
	pings := s.pinged(s.pods[0], s.pods[1])
	answered(t, s.cluster, pings[0], 3)
	s.ok(h.Run("ip route add "+peer.Addr.String()+"/32 dev eth1 src 198.18.88.8", "ip link set eth0 down"))
	answered(t, s.cluster, pings[0], 20)
	pings[0].Cut()
}
