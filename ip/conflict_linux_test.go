package ip_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"flanneld/ip"
	"flanneld/ip/iptest"
)

// TestTheKernelRefusesToReplaceARouteOfOthers has a peer's route meet one with its destination and metric, of whatever
// kind.
func TestTheKernelRefusesToReplaceARouteOfOthers(t *testing.T) {
	for _, tt := range []struct{ name, add, found string }{
		{"IPv4 static", "ip route add 10.5.7.0/24 via 192.0.2.9 proto static", "10.5.7.0/24 via 192.0.2.9 dev eth0 proto 4"},
		{"IPv4 of a VPN", "ip route add 10.5.7.0/24 dev tun9", "10.5.7.0/24 dev tun9 proto 3"},
		{"IPv4 connected", "ip addr add 10.5.7.1/24 dev tun9", "10.5.7.0/24 dev tun9 odd proto 2"},
		{"IPv4 to nowhere", "ip route add blackhole 10.5.7.0/24", "blackhole 10.5.7.0/24 proto 3"},
		{"IPv4 of a kind that is not known", "ip route add prohibit 10.5.7.0/24", "10.5.7.0/24 odd proto 0"},
		{"IPv4 by two hosts", "ip route add 10.5.7.0/24 nexthop via 192.0.2.9 nexthop via 192.0.2.8",
			"10.5.7.0/24 odd proto 3"},
		{"IPv6 static", "ip -6 route add fd00:5:0:7::/64 via fd00:18::9 proto static",
			"fd00:5:0:7::/64 via fd00:18::9 dev eth0 proto 4"},
		{"IPv6 to nowhere", "ip -6 route add blackhole fd00:5:0:7::/64", "blackhole fd00:5:0:7::/64 proto 3"},
		{"IPv6 on a link", "ip -6 route add fd00:5:0:7::/64 dev tun9", "fd00:5:0:7::/64 dev tun9 proto 3"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			iptest.Namespace(t)
			iptest.Underlay(t, "eth0", "192.0.2.1/24")
			iptest.Run(t, "ip addr add fd00:18::1/64 dev eth0 nodad\nip link add tun9 type bridge\nip link set tun9 up\n"+
				"ip -6 route add fd00:5:0:8::/64 dev eth0")
			iptest.Run(t, tt.add)
			before := iptest.Run(t, "ip route show\nip -6 route show")
			dst := netip.MustParsePrefix("10.5.7.0/24")
			via := netip.MustParseAddr("192.0.2.7")
			if strings.HasPrefix(tt.name, "IPv6") {
				dst, via = netip.MustParsePrefix("fd00:5:0:7::/64"), netip.MustParseAddr("fd00:18::7")
			}
			ours := ip.Route{Dst: dst, Via: via, Link: "eth0", Protocol: ip.Protocol}
			k := kernel(t)
			err := k.Apply(ip.Diff(ip.Snapshot{}, ip.State{Routes: []ip.Route{ours}}.Snapshot()))
			var c *ip.Conflict
			if !errors.As(err, &c) || c.Want != ours || c.Found.String() != tt.found {
				t.Errorf("got %v, want a conflict with %s", err, tt.found)
			}
			if after := iptest.Run(t, "ip route show\nip -6 route show"); after != before {
				t.Errorf("routes\n%s\nbefore\n%s", after, before)
			}
		})
	}
}
