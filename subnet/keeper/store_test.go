package keeper_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"flanneld/subnet"
	"flanneld/subnet/subnettest"
)

func TestAWipedStoreIsFilledAgainAndNoPeerIsLost(t *testing.T) {
	network(t, func(t *testing.T, s *subnettest.Server) {
		a, b, dead := newHost(t, s, 1).start(), newHost(t, s, 2).start(), newHost(t, s, 3).start()
		after(0)
		subnets := [2]netip.Prefix{a.subnet(), b.subnet()}
		dead.quit()
		b.client.Cut(true)
		before := a.peers()
		s.Wipe()
		after(5 * time.Second)
		if got := a.peers(); !slices.Equal(got, before) {
			t.Errorf("peers %v, want %v", got, before)
		}
		b.client.Cut(false)
		after(5 * time.Second)
		if got := [2]netip.Prefix{a.subnet(), b.subnet()}; got != subnets {
			t.Errorf("subnets %v, want %v", got, subnets)
		}
		for _, p := range subnets {
			if _, ok := recordOf(s, p); !ok {
				t.Errorf("no record of %s", p)
			}
		}
		after(11 * time.Minute)
		if got := a.peers(); len(got) != 1 {
			t.Errorf("peers after the grace period: %v, want only the living one", got)
		}
		a.quit()
		b.quit()
	})
}

// TestTheGraceOfLostPeersBeginsAnewWhileOthersComeBack wipes a store to which the hosts return one after the other,
// over a longer time than the grace. One of them is dead.
func TestTheGraceOfLostPeersBeginsAnewWhileOthersComeBack(t *testing.T) {
	network(t, func(t *testing.T, s *subnettest.Server) {
		a := newHost(t, s, 1).start()
		var others []*host
		for n := range 4 {
			others = append(others, newHost(t, s, 2+n).start())
		}
		after(time.Second)
		before := a.peers()
		for _, h := range others {
			h.client.Cut(true)
		}
		s.Wipe()
		for _, h := range others[1:] {
			after(8 * time.Minute)
			if got := a.peers(); !slices.Equal(got, before) {
				t.Errorf("peers %v, want %v", got, before)
			}
			h.client.Cut(false)
			after(10 * time.Second)
		}
		_ = others[0].quit()
		after(11 * time.Minute)
		if got := a.peers(); len(got) != len(before)-1 {
			t.Errorf("peers after the grace period: %v", got)
		}
		for _, h := range append(others[1:], a) {
			_ = h.quit()
		}
	})
}

// TestARecordDeletedDuringAnElectionCostsNoPacket has the record of a host deleted at every moment of the time in which
// members of a store elect a leader, with the host cut off until just then: its peers must not have dropped it when it
// has its record back.
func TestARecordDeletedDuringAnElectionCostsNoPacket(t *testing.T) {
	for away := 200 * time.Millisecond; away <= 3*time.Second; away += 200 * time.Millisecond {
		network(t, func(t *testing.T, s *subnettest.Server) {
			a, b := newHost(t, s, 1).start(), newHost(t, s, 2).start()
			after(time.Minute)
			b.client.Cut(true)
			after(away)
			s.Remove(subnet.SubnetsFolder + subnet.Key([]netip.Prefix{b.subnet()}))
			b.client.Cut(false)
			for range 100 {
				after(10 * time.Millisecond)
				if len(a.peers()) == 0 {
					t.Fatalf("away for %s: the peer was dropped", away)
				}
			}
			if e, ok := recordOf(s, b.subnet()); !ok || e.Identity != "id2" {
				t.Errorf("away for %s: record %+v", away, e)
			}
			a.quit()
			b.quit()
		})
	}
}

func TestARestoredBackupLosesNobody(t *testing.T) {
	network(t, func(t *testing.T, s *subnettest.Server) {
		a := newHost(t, s, 1).start()
		after(0)
		backup := s.Backup()
		b := newHost(t, s, 2).start()
		after(0)
		want := b.subnet()
		s.Restore(backup)
		after(5 * time.Second)
		if e, ok := recordOf(s, want); !ok || e.Identity != "id2" {
			t.Errorf("record of the host that the backup did not know: %+v", e)
		}
		if got := a.peers(); len(got) != 1 {
			t.Errorf("peers %v", got)
		}
		a.quit()
		b.quit()
	})
}

func TestACompactionWhileCutOffIsFollowed(t *testing.T) {
	network(t, func(t *testing.T, s *subnettest.Server) {
		a := newHost(t, s, 1).start()
		after(0)
		a.client.Cut(true)
		b := newHost(t, s, 2).start()
		after(time.Second)
		s.Compact()
		a.client.Cut(false)
		after(5 * time.Second)
		if got := a.peers(); len(got) != 1 {
			t.Errorf("peers %v", got)
		}
		a.quit()
		b.quit()
	})
}

func TestWithoutTheStoreTheLastStateServesAndIsSaid(t *testing.T) {
	network(t, func(t *testing.T, s *subnettest.Server) {
		a, b := newHost(t, s, 1).start(), newHost(t, s, 2).start()
		after(0)
		want, peers, state := a.subnet(), a.peers(), a.remembered()
		a.quit()
		again := newHost(t, s, 1)
		again.options.State = state
		again.client.Cut(true)
		again.start()
		after(2 * time.Second)
		if again.subnet() != want || !slices.Equal(again.peers(), peers) {
			t.Errorf("subnet %s, peers %v, want %s, %v", again.subnet(), again.peers(), want, peers)
		}
		if again.manager.Status().StoreSince.IsZero() {
			t.Error("the store counts as reachable")
		}
		calls := again.client.Counts()["Watch"]
		after(time.Minute)
		if n := again.client.Counts()["Watch"] - calls; n > 40 || n < 10 {
			t.Errorf("%d tries in a minute", n)
		}
		if n := strings.Count(again.log.String(), "store unreachable"); n != 1 {
			t.Errorf("said %d times", n)
		}
		again.client.Cut(false)
		after(5 * time.Second)
		if !again.manager.Status().Held || !again.manager.Status().StoreSince.IsZero() {
			t.Errorf("status %+v", again.manager.Status())
		}
		again.quit()
		b.quit()
	})
}

func TestPeersThatWentWhileStoppedAreDroppedAtOnce(t *testing.T) {
	network(t, func(t *testing.T, s *subnettest.Server) {
		a, b := newHost(t, s, 1).start(), newHost(t, s, 2).start()
		after(0)
		state := a.remembered()
		a.quit()
		b.quit()
		s.Remove(subnet.SubnetsFolder + subnet.Key([]netip.Prefix{b.subnet()}))
		a = newHost(t, s, 1)
		a.options.State = state
		a.start()
		after(time.Second)
		if got := a.peers(); len(got) != 0 {
			t.Errorf("peers %v", got)
		}
		a.quit()
	})
}

func TestRecordsThatMakeNoSenseAreSkippedWithOneWarningEach(t *testing.T) {
	network(t, func(t *testing.T, s *subnettest.Server) {
		h := newHost(t, s, 1).start()
		after(0)
		s.PutBad("subnets/10.5.200.0-24", "not JSON")
		s.Put(record("x1", "x", "10.6.0.0/24", "192.0.2.11"))
		s.Put(record("x2", "x", "10.5.0.0/17", "192.0.2.12"))
		s.Put(record("x3", "x", "fd00::/64", "2001:db8::1"))
		s.Put(record("x4", "x", "10.5.201.0/24", "192.0.0.1"))
		s.Put(record("x5", "x", "10.5.202.0/24", "10.5.202.7"))
		other := record("x6", "x", "10.5.203.0/24", "192.0.2.16")
		other.Leases[0].BackendType = "host-gw"
		s.Put(other)
		good := record("x7", "x", "10.5.204.0/24", "192.0.2.17")
		s.Put(good)
		after(time.Second)
		if got := h.peers(); !slices.Equal(got, []string{"10.5.204.0/24 192.0.2.17"}) {
			t.Errorf("peers %v", got)
		}
		v := h.manager.View()
		if v.Status.Skipped != 7 {
			t.Errorf("%d skipped, want 7", v.Status.Skipped)
		}
		if n := strings.Count(h.log.String(), "record skipped"); n != 7 {
			t.Errorf("%d warnings, want 7:\n%s", n, h.log)
		}
		if !h.manager.Status().Held {
			t.Error("own lease lost")
		}
		h.quit()
	})
}

func TestAMissingOrWrongConfigurationIsWaitedForAndNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := subnettest.NewServer()
		h := newHost(t, s, 1).start()
		after(time.Minute)
		h.wantLog("/net/config is missing")
		s.SetConfig([]byte(`{"Network":"10.5.0.0/33"}`))
		after(time.Second)
		h.wantLog("10.5.0.0/33")
		wantCalls(t, h, 4)
		s.SetConfig([]byte(netConfig))
		after(time.Second)
		if !h.subnet().IsValid() {
			t.Error("no subnet")
		}
		h.quit()
	})
}

func TestAChangedConfigurationBindsLaterLeasesOrWaitsForARestart(t *testing.T) {
	network(t, func(t *testing.T, s *subnettest.Server) {
		h := newHost(t, s, 1).start()
		after(0)
		first := h.subnet()
		s.SetConfig([]byte(`{"Network":"10.5.0.0/16","SubnetMin":"10.5.250.0","Backend":{ "Type": "vxlan" }}`))
		after(time.Second)
		if h.subnet() != first || h.manager.Status().Pending != "" {
			t.Errorf("subnet %s, pending %q", h.subnet(), h.manager.Status().Pending)
		}
		steal(s, h)
		after(5 * time.Second)
		if got := h.subnet(); got.Addr().Less(netip.MustParseAddr("10.5.250.0")) {
			t.Errorf("new subnet %s is below the new minimum", got)
		}
		held := h.subnet()
		for text, want := range map[string]string{
			`{"Network":"10.9.0.0/16","Backend":{"Type":"vxlan"}}`:          "network",
			`{"Network":"10.5.0.0/16","Backend":{"Type":"host-gw"}}`:        "backend",
			`{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan","VNI":"x"}`: "invalid",
		} {
			s.SetConfig([]byte(text))
			after(time.Second)
			if got := h.manager.Status().Pending; !strings.Contains(got, want) || h.subnet() != held {
				t.Errorf("%s: pending %q, subnet %s", text, got, h.subnet())
			}
		}
		s.SetConfig(nil)
		after(time.Second)
		if got := h.manager.Status().Pending; !strings.Contains(got, "deleted") || h.subnet() != held {
			t.Errorf("deleted: pending %q, subnet %s", got, h.subnet())
		}
		h.quit()
	})
}

func TestAnAnswerThatIsLostDoesNotLeaveTwoRecords(t *testing.T) {
	for _, method := range []string{"Grant", "Create", "Update", "KeepAlive", "List", "Watch", "Delete"} {
		t.Run(method, func(t *testing.T) {
			network(t, func(t *testing.T, s *subnettest.Server) {
				h := newHost(t, s, 1)
				lost := 0
				h.client.OnCall(func(m string) subnettest.Fault {
					if m == method && lost < 3 {
						lost++
						return subnettest.Fault{After: subnettest.ErrFault}
					}
					return subnettest.Fault{}
				})
				h.start()
				after(10 * time.Second)
				h.address = netip.MustParseAddr("198.51.100.1")
				h.manager.Refresh()
				after(10 * time.Second)
				if e := s.Entries(); len(e) != 1 || !h.manager.Status().Held || e[0].Leases[0].PublicIP != h.address {
					t.Errorf("records %v, status %+v", e, h.manager.Status())
				}
				h.quit()
			})
		})
	}
}

func TestAHundredHostsThatStartAtOnceGetDifferentSubnets(t *testing.T) {
	network(t, func(t *testing.T, s *subnettest.Server) {
		const n = 100
		var hosts []*host
		for i := range n {
			hosts = append(hosts, newHost(t, s, i+1).start())
		}
		after(time.Minute)
		seen, calls := map[netip.Prefix]bool{}, 0
		for _, h := range hosts {
			seen[h.subnet()] = true
			for _, c := range h.client.Counts() {
				calls += c
			}
			h.quit()
		}
		if len(seen) != n || seen[netip.Prefix{}] {
			t.Errorf("%d different subnets", len(seen))
		}
		if calls > 8*n {
			t.Errorf("%d calls for %d hosts, want at most 8 each", calls, n)
		}
	})
}

func TestARecordThatCoversTheWholeNetworkKeepsNobodyOut(t *testing.T) {
	network(t, func(t *testing.T, s *subnettest.Server) {
		s.PutBad("subnets/0.0.0.0-0&fd00:5:0:25::-64", "no address of a host")
		s.PutBad("subnets/10.5.0.0-16", "rubbish")
		h := newHost(t, s, 1).start()
		after(time.Second)
		if !h.subnet().IsValid() {
			t.Errorf("no subnet: %s", h.manager.Status().Waiting)
		}
	})
}
