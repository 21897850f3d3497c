package lab_test

import (
	"testing"

	"flanneld/lab"
)

// TestAVirtualAddressIsPublishedForAsLongAsTheOwnOneIsAway does what keepalived and a DHCP client do: a /32 is added,
// and the own address goes and comes back, which the kernel lists behind the /32 then.
func TestAVirtualAddressIsPublishedForAsLongAsTheOwnOneIsAway(t *testing.T) {
	t.Parallel()
	s := newSite(t, network{"vxlan", lab.IPv4}, 2)
	h, d := s.hosts[0], s.daemons[0]
	own := underlayOf(h)
	const virtual = "198.18.99.9"
	published := func(address string) {
		s.recordAwaited(s.store, h, `"`+address+`"`)
		s.eventually(h, "ip -d link show flannel.1", "local "+address+" dev eth0")
		s.eventually(s.hosts[1], "bridge fdb show dev flannel.1", "dst "+address)
		s.connected()
	}
	s.connected()
	s.ok(h.Run("ip addr add " + virtual + "/32 dev eth0"))
	// The routes of the own address go with it.
	s.ok(h.Run("ip addr del "+own+"/16 dev eth0", "ip route add 198.18.0.0/16 dev eth0",
		"ip route replace default via 198.18.0.1"))
	published(virtual)
	s.ok(h.Run("ip route del 198.18.0.0/16 dev eth0", "ip addr add "+own+"/16 dev eth0",
		"ip route replace default via 198.18.0.1"))
	published(own)

	// A restart finds the /32 first, too.
	s.ok(d.Stop(s.ctx))
	s.daemons[0] = s.start(h, s.store)
	s.ok(s.daemons[0].Ready(s.ctx))
	published(own)
}
