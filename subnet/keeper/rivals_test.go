package keeper_test

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"flanneld/subnet"
	"flanneld/subnet/keeper"
	"flanneld/subnet/subnettest"
)

// steal has another host's record stand where h has its own.
func steal(s *subnettest.Server, h *host) {
	p := h.subnet()
	s.Put(record("thief", "thief", p.String(), "192.0.2.99"))
}

func TestASubnetTakenByAnotherHostIsGivenUp(t *testing.T) {
	network(t, func(t *testing.T, s *subnettest.Server) {
		h := newHost(t, s, 1).start()
		after(0)
		first := h.subnet()
		steal(s, h)
		after(5 * time.Second)
		if got := h.subnet(); !got.IsValid() || got == first {
			t.Errorf("subnet %s, want another than %s", got, first)
		}
		if e, _ := recordOf(s, first); e.Identity != "thief" {
			t.Errorf("record of the other host: %+v", e)
		}
		h.wantLog(`level=ERROR msg="subnet lost to another host"`)
		h.wantLog("holder=\"thief (192.0.2.99)\"")
		if got := h.peers(); !slices.Equal(got, []string{first.String() + " 192.0.2.99"}) {
			t.Errorf("peers %v", got)
		}
		h.quit()
	})
}

func TestASubnetTakenByAnotherHostIsWaitedForUnderHold(t *testing.T) {
	network(t, func(t *testing.T, s *subnettest.Server) {
		h := newHost(t, s, 1)
		h.options.OnLost = subnet.LostHold
		h.start()
		after(0)
		first := h.subnet()
		steal(s, h)
		after(time.Minute)
		if got := h.manager.Status(); got.Held || !strings.Contains(got.Waiting, "thief") {
			t.Errorf("status %+v", got)
		}
		if n := strings.Count(h.log.String(), "level=ERROR"); n != 1 {
			t.Errorf("%d errors logged, want 1", n)
		}
		s.Remove(subnet.SubnetsFolder + subnet.Key([]netip.Prefix{first}))
		after(time.Second)
		if e, _ := recordOf(s, first); e.Identity != "id1" || !h.manager.Status().Held {
			t.Errorf("record %+v, status %+v", e, h.manager.Status())
		}
		h.quit()
	})
}

func TestASubnetTakenByAnotherHostEndsTheDaemonUnderExit(t *testing.T) {
	network(t, func(t *testing.T, s *subnettest.Server) {
		h := newHost(t, s, 1)
		h.options.OnLost = subnet.LostExit
		h.start()
		after(0)
		steal(s, h)
		after(5 * time.Second)
		if err := h.quit(); !errors.Is(err, keeper.ErrLost) || !strings.Contains(err.Error(), "thief") {
			t.Errorf("got %v", err)
		}
	})
}

func TestAHostThatMovedToAnotherAddressKeepsItsSubnet(t *testing.T) {
	network(t, func(t *testing.T, s *subnettest.Server) {
		h := newHost(t, s, 1).start()
		after(0)
		first := h.subnet()
		h.address = netip.MustParseAddr("198.51.100.1")
		h.manager.Refresh()
		after(time.Second)
		if e, _ := recordOf(s, first); e.Leases[0].PublicIP != h.address {
			t.Errorf("live: record %+v", e)
		}
		h.quit()
		h = newHost(t, s, 1)
		h.address = netip.MustParseAddr("198.51.100.2")
		h.start()
		after(5 * time.Second)
		if e, _ := recordOf(s, first); e.Leases[0].PublicIP != h.address || h.subnet() != first {
			t.Errorf("restarted: record %+v", e)
		}
		h.quit()
	})
}

func TestACloneGetsAnIdentityOfItsOwnAndTheOriginalKeepsItsSubnet(t *testing.T) {
	network(t, func(t *testing.T, s *subnettest.Server) {
		h := newHost(t, s, 1).start()
		after(0)
		first := h.subnet()
		clone := newHost(t, s, 2)
		clone.id, clone.options.State = "id1", h.remembered()
		clone.start()
		after(5 * time.Second)
		if err := clone.quit(); !errors.Is(err, keeper.ErrCloned) {
			t.Errorf("clone: %v", err)
		}
		clone.wantLog("probably a cloned disk")
		h.wantLog("claim of another host to this host's subnet refused")
		if e, _ := recordOf(s, first); e.Host != "host1" || h.subnet() != first {
			t.Errorf("record of the original: %+v", e)
		}
		h.quit()
	})
}

func TestACloneThatCannotBeRefusedEndsWithAnotherSubnetThanTheOriginal(t *testing.T) {
	network(t, func(t *testing.T, s *subnettest.Server) {
		h := newHost(t, s, 1).start()
		after(0)
		first := h.subnet()
		h.client.Cut(true)
		clone := newHost(t, s, 2)
		clone.id = "id1"
		clone.start()
		after(10 * time.Second)
		h.client.Cut(false)
		after(10 * time.Second)
		if err := h.quit(); !errors.Is(err, keeper.ErrCloned) {
			t.Errorf("original: %v", err)
		}
		if clone.subnet() != first {
			t.Errorf("clone on %s, want %s", clone.subnet(), first)
		}
		clone.quit()
	})
}

func TestTheAddressOfALivingHostIsRefusedWithItsName(t *testing.T) {
	network(t, func(t *testing.T, s *subnettest.Server) {
		h := newHost(t, s, 1).start()
		after(0)
		second := newHost(t, s, 2)
		second.address = h.address
		second.start()
		after(2 * time.Minute)
		if got := second.manager.Status().Waiting; second.subnet().IsValid() || !strings.Contains(got, "running host host1") {
			t.Errorf("subnet %s, waiting for %q", second.subnet(), got)
		}
		second.address = netip.MustParseAddr("192.0.2.77")
		second.manager.Refresh()
		after(time.Second)
		if !second.subnet().IsValid() || second.subnet() == h.subnet() {
			t.Errorf("with another address: subnet %s", second.subnet())
		}
		h.quit()
		second.quit()
	})
}

func TestTheRecordOfADeadHostIsTakenOverWithItsAddress(t *testing.T) {
	network(t, func(t *testing.T, s *subnettest.Server) {
		h := newHost(t, s, 1).start()
		after(0)
		first := h.subnet()
		h.quit()
		heir := newHost(t, s, 2)
		heir.address = h.address
		heir.start()
		after(5 * time.Second)
		if e, _ := recordOf(s, first); e.Identity != "id2" || heir.subnet() != first {
			t.Errorf("record %+v", e)
		}
		heir.quit()
	})
}

func TestARecordOfFlannelIsRecognisedByItsAddress(t *testing.T) {
	network(t, func(t *testing.T, s *subnettest.Server) {
		s.Put(record("", "", "10.5.77.0/24", "192.0.0.1"))
		h := newHost(t, s, 1).start()
		after(0)
		e, _ := recordOf(s, netip.MustParsePrefix("10.5.77.0/24"))
		if h.subnet() != e.Leases[0].Subnet || e.Identity != "id1" || e.LeaseID != 0 {
			t.Errorf("record %+v, subnet %s: want the reservation, without a lease", e, h.subnet())
		}
		after(3 * time.Hour)
		if h.client.Counts()["KeepAlive"] != 0 {
			t.Errorf("calls %v", h.client.Counts())
		}
		h.quit()
	})
}

func TestAReservationIsNotGivenToOthersNorTakenBack(t *testing.T) {
	network(t, func(t *testing.T, s *subnettest.Server) {
		s.SetConfig([]byte(`{"Network":"10.5.0.0/28","Backend":{"Type":"vxlan"}}`))
		s.Put(record("", "", "10.5.0.4/30", "192.0.2.50"))
		h := newHost(t, s, 1).start()
		after(0)
		first := h.subnet()
		s.Remove(subnet.SubnetsFolder + subnet.Key([]netip.Prefix{first}))
		s.Put(record("", "", first.String(), "192.0.2.51"))
		after(10 * time.Second)
		if e, _ := recordOf(s, first); e.Leases[0].PublicIP != netip.MustParseAddr("192.0.2.51") {
			t.Errorf("reservation %+v", e)
		}
		if got := h.subnet(); got == first || got.String() == "10.5.0.4/30" || !got.IsValid() {
			t.Errorf("subnet %s", got)
		}
		h.quit()
	})
}

func TestAFullPoolIsWaitedOutWithTheNumbers(t *testing.T) {
	network(t, func(t *testing.T, s *subnettest.Server) {
		s.SetConfig([]byte(`{"Network":"10.5.0.0/28","Backend":{"Type":"vxlan"}}`))
		s.Put(record("", "", "10.5.0.4/30", "192.0.2.50"))
		a, b := newHost(t, s, 1).start(), newHost(t, s, 2).start()
		after(0)
		late := newHost(t, s, 3).start()
		after(time.Minute)
		if got := late.manager.Status().Waiting; !strings.Contains(got, "holds 3, with 2 leases and 1 reservations") {
			t.Errorf("waiting for %q", got)
		}
		if n := strings.Count(late.log.String(), "no free subnet"); n != 1 {
			t.Errorf("said %d times", n)
		}
		b.quit()
		freed := b.subnet()
		s.Remove(subnet.SubnetsFolder + subnet.Key([]netip.Prefix{freed}))
		after(time.Second)
		if late.subnet() != freed {
			t.Errorf("subnet %s, want the freed %s", late.subnet(), freed)
		}
		a.quit()
		late.quit()
	})
}

// TestAHostThatWaitsForAnAddressKeepsItsRecordAlive moves a host to the address of a living one, and has it list anew:
// its record must stay for as long as that lasts, for its pods live on the subnet.
func TestAHostThatWaitsForAnAddressKeepsItsRecordAlive(t *testing.T) {
	network(t, func(t *testing.T, s *subnettest.Server) {
		a, h := newHost(t, s, 1).start(), newHost(t, s, 2).start()
		after(time.Second)
		first, home := h.subnet(), h.address
		h.address = a.address
		h.manager.Refresh()
		after(5 * time.Second)
		s.Disconnect()
		after(3 * time.Hour) // three times the time to live
		if _, ok := recordOf(s, first); !ok || h.subnet() != first {
			t.Errorf("the record is gone, subnet %s, before %s", h.subnet(), first)
		}
		h.address = home
		h.manager.Refresh()
		after(5 * time.Second)
		if !h.manager.Status().Held || h.subnet() != first {
			t.Errorf("subnet %s, before %s, %+v", h.subnet(), first, h.manager.Status())
		}
	})
}

// TestAClaimOfACloneDoesNotTellThatItsOriginalHasLeftItsAddress has a host with the address of a living one look again
// while a clone of that, at another address, claims its record.
func TestAClaimOfACloneDoesNotTellThatItsOriginalHasLeftItsAddress(t *testing.T) {
	network(t, func(t *testing.T, s *subnettest.Server) {
		owner := newHost(t, s, 1).start()
		after(time.Second)
		second := newHost(t, s, 2)
		second.address = owner.address
		second.start()
		after(5 * time.Second)
		claim := record(owner.id, "clone", owner.subnet().String(), "192.0.2.99")
		claim.Claim = true
		owner.client.Lag(10 * time.Second) // so that the claim stands for a while
		s.Put(claim)
		after(3 * time.Second)
		if got := second.subnet(); got.IsValid() {
			t.Errorf("the host with the address of a living one has %s", got)
		}
		owner.quit()
		second.quit()
	})
}
