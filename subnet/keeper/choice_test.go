package keeper_test

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"flanneld/subnet"
	"flanneld/subnet/subnettest"
)

func TestASubnetThatOverlapsANetworkOfTheHostIsNotTaken(t *testing.T) {
	network(t, func(t *testing.T, s *subnettest.Server) {
		h := newHost(t, s, 1).start()
		after(0)
		first := h.subnet()
		h.quit()
		s.Remove(subnet.SubnetsFolder + subnet.Key([]netip.Prefix{first}))
		// The subnet that it would take, and all others but the last /20: networks that it is connected to.
		own := []netip.Prefix{netip.PrefixFrom(first.Addr().Next(), 28)}
		for _, text := range []string{"10.5.0.0/17", "10.5.128.0/18", "10.5.192.0/19", "10.5.224.0/20", "192.0.2.0/24"} {
			own = append(own, netip.MustParsePrefix(text))
		}
		h = newHost(t, s, 1)
		h.options.Avoid = func() []netip.Prefix { return own }
		h.start()
		after(0)
		if got := h.subnet(); !netip.MustParsePrefix("10.5.240.0/20").Contains(got.Addr()) ||
			slices.ContainsFunc(own, got.Overlaps) {
			t.Errorf("got %s, want one that overlaps none of %v", got, own)
		}
		h.quit()
	})
}

// TestTheSubnetInUseIsKeptOnceAContainerBridgeHasIt restarts a host on whose subnet docker or a CNI plugin has put a
// bridge.
func TestTheSubnetInUseIsKeptOnceAContainerBridgeHasIt(t *testing.T) {
	network(t, func(t *testing.T, s *subnettest.Server) {
		h := newHost(t, s, 1).start()
		after(0)
		first := h.subnet()
		h.quit()
		for range 2 { // with its record, and with its subnet file only
			h = newHost(t, s, 1)
			h.options.Wanted = []netip.Prefix{first}
			h.options.Avoid = func() []netip.Prefix { return []netip.Prefix{first} }
			h.start()
			after(0)
			if got := h.subnet(); got != first {
				t.Errorf("got %s, want %s", got, first)
			}
			h.quit()
			s.Remove(subnet.SubnetsFolder + subnet.Key([]netip.Prefix{first}))
		}
	})
}

// TestAReservedSubnetIsGivenUp restarts a host in whose subnet its underlay is now: with its record, with its subnet
// file, with the state of its last run.
func TestAReservedSubnetIsGivenUp(t *testing.T) {
	for _, from := range []string{"record", "subnet file", "state"} {
		t.Run(from, func(t *testing.T) {
			network(t, func(t *testing.T, s *subnettest.Server) {
				h := newHost(t, s, 1).start()
				after(0)
				first, state := h.subnet(), h.remembered()
				h.quit()
				h = newHost(t, s, 1)
				h.options.Reserved = func() []netip.Prefix { return []netip.Prefix{netip.PrefixFrom(first.Addr(), 26)} }
				switch from {
				case "subnet file":
					h.options.Wanted = []netip.Prefix{first}
					s.Remove(subnet.SubnetsFolder + subnet.Key([]netip.Prefix{first}))
				case "state":
					h.options.State = state
				}
				h.start()
				after(time.Minute)
				if got := h.subnet(); !got.IsValid() || got.Overlaps(first) {
					t.Errorf("got %s, not to overlap %s", got, first)
				}
				if entries := s.Entries(); len(entries) != 1 {
					t.Errorf("the old record stays: %v", entries)
				}
				h.quit()
			})
		})
	}
}

// TestJunkInALargePoolDoesNotKeepAHostFromASubnetNorFromEnding puts records of another length over most of a pool.
func TestJunkInALargePoolDoesNotKeepAHostFromASubnetNorFromEnding(t *testing.T) {
	const config = `{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00::/16","IPv6SubnetLen":64,"Backend":{"Type":"vxlan"}}`
	withConfig(t, config, func(t *testing.T, s *subnettest.Server) {
		for _, key := range []string{"fd00::-17", "fd00:8000::-18", "fd00:c000::-19", "fd00:e000::-19"} {
			s.PutBad(subnet.SubnetsFolder+key, "junk")
		}
		h := newHost(t, s, 1).start()
		after(time.Second)
		if got := h.subnet(); got.IsValid() {
			t.Errorf("got %s from a full pool", got)
		}
		s.Remove("subnets/fd00:c000::-19")
		after(2 * time.Second)
		if got := h.subnet(); !netip.MustParsePrefix("fd00:c000::/19").Contains(got.Addr()) {
			t.Errorf("got %s", got)
		}
		if err := h.quit(); err != nil {
			t.Error(err)
		}
	})
}
