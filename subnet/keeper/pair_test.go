package keeper_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"flanneld/subnet"
	"flanneld/subnet/subnettest"
)

const (
	config4    = `{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}`
	configDual = `{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:5::/48","Backend":{"Type":"vxlan"}}`
	config6    = `{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00:5::/48","Backend":{"Type":"vxlan"}}`
	// narrow6 has room for four hosts in IPv6.
	narrow6 = `{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:5::/61","IPv6SubnetMin":"fd00:5:0:4::","Backend":{"Type":"vxlan"}}`
)

// families are the networks that the rules of the leases hold for alike.
var families = map[string]string{"IPv4": config4, "both": configDual, "IPv6": config6}

// inEachFamily runs a test on a store with each of them.
func inEachFamily(t *testing.T, f func(t *testing.T, s *subnettest.Server)) {
	for name, config := range families {
		t.Run(name, func(t *testing.T) { withConfig(t, config, f) })
	}
}

func withConfig(t *testing.T, config string, f func(t *testing.T, s *subnettest.Server)) {
	network(t, func(t *testing.T, s *subnettest.Server) {
		s.SetConfig([]byte(config))
		f(t, s)
	})
}

// key returns the name of the record that the host uses.
func (h *host) key() string { return subnet.Key(h.manager.View().Own.Prefixes()) }

// reconfigure ends a host, and starts it again with what it has remembered, as after a change of the configuration.
func (h *host) reconfigure() {
	h.t.Helper()
	if err := h.quit(); err != nil {
		h.t.Error(err)
	}
	h.options.State = h.remembered()
	h.options.Wanted = h.manager.View().Own.Prefixes()
	h.start()
	after(time.Second)
}

// wantKeys compares the records in the store.
func wantKeys(t *testing.T, s *subnettest.Server, want ...string) {
	t.Helper()
	var got []string
	for _, e := range s.Entries() {
		got = append(got, strings.TrimPrefix(e.Key, subnet.SubnetsFolder))
	}
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("the store has %v, want %v", got, want)
	}
}

func TestARestartKeepsThePair(t *testing.T) {
	inEachFamily(t, func(t *testing.T, s *subnettest.Server) {
		h := newHost(t, s, 1).start()
		after(time.Second)
		before := h.key()
		h.reconfigure()
		wantKeys(t, s, before)
	})
}

func TestADeletedPairIsWrittenAgain(t *testing.T) {
	inEachFamily(t, func(t *testing.T, s *subnettest.Server) {
		h := newHost(t, s, 1).start()
		after(time.Second)
		before := h.key()
		s.Remove(subnet.SubnetsFolder + before)
		after(time.Second)
		wantKeys(t, s, before)
	})
}

func TestAStateFileOrASubnetFileBringsThePairBack(t *testing.T) {
	inEachFamily(t, func(t *testing.T, s *subnettest.Server) {
		h := newHost(t, s, 1).start()
		after(time.Second)
		before := h.key()
		h.reconfigure()
		s.Wipe()
		after(5 * time.Second)
		wantKeys(t, s, before)
		_ = h.quit()
		s.Wipe()
		h.id, h.options.State = "another", subnet.State{}
		h.start()
		after(5 * time.Second)
		wantKeys(t, s, before)
	})
}

func TestAReservationOfThePairIsTakenByItsHost(t *testing.T) {
	inEachFamily(t, func(t *testing.T, s *subnettest.Server) {
		h := newHost(t, s, 1)
		c, err := subnet.ParseConfig([]byte(familyConfig(t, s)))
		if err != nil {
			t.Fatal(err)
		}
		r := subnet.Record{}
		for _, p := range c.Pools {
			reserved := p.At(77)
			r.Leases = append(r.Leases, subnet.Lease{Subnet: reserved,
				Attrs: subnet.Attrs{PublicIP: h.publicIP(reserved), BackendType: "vxlan"}})
		}
		s.Put(r)
		h.start()
		other := newHost(t, s, 2).start()
		after(time.Second)
		if e := s.Entries(); h.key() != subnet.Key(r.Prefixes()) || other.key() == h.key() || len(e) != 2 {
			t.Errorf("%s and %s, the reservation is %s", h.key(), other.key(), subnet.Key(r.Prefixes()))
		}
		for _, e := range s.Entries() {
			if e.Key == r.Key() && e.LeaseID != 0 {
				t.Error("the reservation has got a lease")
			}
		}
	})
}

func familyConfig(t *testing.T, s *subnettest.Server) string {
	t.Helper()
	snap, err := s.Client("operator").List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return string(snap.Config)
}

func TestTwoRecordsWithOneHalfInCommonAreResolvedForTheOlder(t *testing.T) {
	withConfig(t, configDual, func(t *testing.T, s *subnettest.Server) {
		a, b := newHost(t, s, 1).start(), newHost(t, s, 2)
		after(time.Second)
		// The younger one was written by a host that looked for its key only, and which is now replaced by one of ours.
		half := a.manager.View().Own.Prefixes()[1]
		r := subnet.Record{Leases: []subnet.Lease{
			{Subnet: netip.MustParsePrefix("10.5.99.0/24"),
				Attrs: subnet.Attrs{PublicIP: b.publicIP(netip.MustParsePrefix("10.5.99.0/24")), BackendType: "vxlan"}},
			{Subnet: half, Attrs: subnet.Attrs{PublicIP: b.publicIP(half), BackendType: "vxlan"}},
		}}
		s.Put(r)
		before := a.key()
		b.start()
		after(5 * time.Second)
		if a.key() != before {
			t.Errorf("the older one moved from %s to %s", before, a.key())
		}
		p := b.manager.View().Own.Prefixes()
		if len(p) != 2 || p[0] != r.Leases[0].Subnet || p[1] == half {
			t.Errorf("the younger one has %v", p)
		}
		wantKeys(t, s, before, b.key())
		if len(a.peers()) != 2 || len(b.peers()) != 2 {
			t.Errorf("peers %v and %v", a.peers(), b.peers())
		}
	})
}

func TestAPoolThatIsFullInOneFamilyIsWaitedOut(t *testing.T) {
	withConfig(t, narrow6, func(t *testing.T, s *subnettest.Server) {
		for n := range 4 {
			takeHalf(s, fmt.Sprintf("fd00:5:0:%x::/64", 4+n), fmt.Sprintf("10.5.%d.0/24", 200+n))
		}
		h := newHost(t, s, 1).start()
		after(time.Second)
		if w := h.manager.Status().Waiting; !strings.Contains(w, "no free subnet: fd00:5:0:4::") ||
			!strings.Contains(w, "4 reservations") {
			t.Errorf("waits for %q", w)
		}
		if len(h.manager.View().Self) > 0 || len(s.Entries()) != 4 {
			t.Errorf("the host took one subnet without the other: %v", s.Entries())
		}
		s.Remove("subnets/10.5.202.0-24&fd00:5:0:6::-64")
		after(2 * time.Second)
		if p := h.manager.View().Own.Prefixes(); len(p) != 2 || p[1] != netip.MustParsePrefix("fd00:5:0:6::/64") {
			t.Errorf("now %v", p)
		}
	})
}

func TestANetworkGetsAndLosesIPv6HostByHost(t *testing.T) {
	withConfig(t, config4, func(t *testing.T, s *subnettest.Server) {
		a, b := newHost(t, s, 1).start(), newHost(t, s, 2).start()
		after(time.Second)
		subnets := []netip.Prefix{a.subnet(), b.subnet()}
		for _, config := range []string{configDual, config4} {
			s.SetConfig([]byte(config))
			after(time.Second)
			wantKeys(t, s, a.key(), b.key()) // running hosts go on as they are
			pools := 1 + strings.Count(config, "EnableIPv6")
			a.reconfigure()
			if p := a.manager.View().Own.Prefixes(); len(p) != pools || p[0] != subnets[0] {
				t.Errorf("the first host has %v, want %d with %s", p, pools, subnets[0])
			}
			// One has both families, one has IPv4 alone: they are peers in IPv4, and neither complains of the other.
			for _, h := range []*host{a, b} {
				if v := h.manager.View(); v.Peers.Len() != 1 || v.Status.Skipped > 0 || !v.Status.Held {
					t.Errorf("%s sees %v, %+v", h.name, slices.Collect(v.Peers.All()), v.Status)
				}
			}
			b.reconfigure()
			if v := a.manager.View(); v.Peers.Len() != pools || b.subnet() != subnets[1] {
				t.Errorf("after both: %v, %s", slices.Collect(v.Peers.All()), b.key())
			}
			wantKeys(t, s, a.key(), b.key())
		}
	})
}

func TestARecordOfFlannelGrowsIntoAPair(t *testing.T) {
	withConfig(t, configDual, func(t *testing.T, s *subnettest.Server) {
		h := newHost(t, s, 1)
		s.Put(record("", "", "10.5.34.0/24", h.address.String()))
		h.start()
		after(time.Second)
		e := s.Entries()
		if len(e) != 1 || len(e[0].Leases) != 2 || e[0].Leases[0].Subnet != netip.MustParsePrefix("10.5.34.0/24") ||
			e[0].LeaseID != 0 {
			t.Errorf("the store has %v, want the reservation with an IPv6 subnet beside it", e)
		}
	})
}

func TestWhileTheOtherFamilyIsFullTheOldRecordStaysAlive(t *testing.T) {
	withConfig(t, config4, func(t *testing.T, s *subnettest.Server) {
		h := newHost(t, s, 1).start()
		after(time.Second)
		before := h.key()
		for n := range 4 {
			takeHalf(s, fmt.Sprintf("fd00:5:0:%x::/64", 4+n), fmt.Sprintf("10.5.%d.0/24", 200+n))
		}
		s.SetConfig([]byte(narrow6))
		h.reconfigure()
		after(10 * time.Hour)
		if _, ok := recordOf(s, netip.MustParsePrefix(strings.ReplaceAll(before, "-", "/"))); !ok {
			t.Errorf("the record %s has expired: %v", before, s.Entries())
		}
		s.Remove("subnets/10.5.202.0-24&fd00:5:0:6::-64")
		after(2 * time.Second)
		if got := h.key(); got != before+"&fd00:5:0:6::-64" {
			t.Errorf("now %s, before %s", got, before)
		}
	})
}
