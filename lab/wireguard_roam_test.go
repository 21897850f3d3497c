package lab_test

import (
	"errors"
	"fmt"
	"testing"

	"flanneld/api"
	"flanneld/lab"
)

// TestWireGuardLeavesTheEndpointOfAPeerThatRoams translates the port of a host, as a router at a branch office does.
// The record names another port than the packets come from, and answers must go to where they come from.
func TestWireGuardLeavesTheEndpointOfAPeerThatRoams(t *testing.T) {
	t.Parallel()
	s := newSite(t, network{"wireguard", lab.IPv4}, 2)
	s.connected()
	h, other := s.hosts[1], s.hosts[0].Addr
	pings := s.pinged(s.pods[1], s.pods[0])
	// Without a memory of connections, for which those that stand already would stay as they are.
	s.ok(h.Run("nft add table ip router",
		"nft add chain ip router out { type filter hook postrouting priority -150 ; }",
		"nft add chain ip router in { type filter hook prerouting priority -300 ; }",
		fmt.Sprintf("nft add rule ip router in ip saddr %s udp dport 51999 udp dport set 51820", other),
		fmt.Sprintf("nft add rule ip router out ip daddr %s udp sport 51820 udp sport set 51999", other)))
	var seen api.Session
	look := func() error { // the daemon looks every 5 s
		for _, p := range ctlJSON[[]api.Peer](s.cluster, s.hosts[0], "peers") {
			if p.Session != nil && p.Session.Received != seen.Received {
				seen = *p.Session
				return nil
			}
		}
		return errors.New("no later look at the device")
	}
	s.await(func() error {
		if err := look(); err != nil || seen.Endpoint.Port() != 51999 {
			return fmt.Errorf("packets go to %s: %w", seen.Endpoint, err)
		}
		return nil
	})
	for range 2 {
		s.await(look)
		if got := seen.Endpoint.Port(); got != 51999 {
			t.Errorf("packets go to port %d, and come from 51999", got)
		}
	}
	if n := s.datapath(s.daemons[0])["repaired: device settings"]; n > 0 {
		t.Errorf("%d settings were repaired", n)
	}
	s.nothingLost("a host whose port is translated", pings)
	// The host has come home.
	s.ok(h.Run("nft delete table ip router"))
	s.connected()
	s.await(func() error {
		if err := look(); err != nil || seen.Endpoint.Port() != 51820 {
			return fmt.Errorf("packets go to %s: %w", seen.Endpoint, err)
		}
		return nil
	})
}
