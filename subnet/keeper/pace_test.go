package keeper_test

import (
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"flanneld/subnet"
	"flanneld/subnet/keeper"
	"flanneld/subnet/subnettest"
)

// calls returns how many calls the host has made.
func (h *host) calls() (n int) {
	for _, c := range h.client.Counts() {
		n += c
	}
	return n
}

func TestAKeyThatSomebodyKeepsDeletingIsTakenAgainAtABoundedRate(t *testing.T) {
	network(t, func(t *testing.T, s *subnettest.Server) {
		h := newHost(t, s, 1).start()
		after(0)
		before, first := h.calls(), h.subnet()
		for range 10_000 { // for ten seconds
			s.Remove(subnet.SubnetsFolder + subnet.Key([]netip.Prefix{first}))
			after(time.Millisecond)
		}
		if n := h.calls() - before; n > 60 || n < 10 {
			t.Errorf("%d calls in ten seconds", n)
		}
		after(time.Second)
		if e, ok := recordOf(s, first); !ok || e.Identity != "id1" || h.subnet() != first {
			t.Errorf("record %+v, subnet %s", e, h.subnet())
		}
		h.quit()
	})
}

func TestAStoreThatRefusesEverythingIsAskedAtABoundedRateAndNamedOnce(t *testing.T) {
	for _, method := range []string{"List", "Watch", "Grant", "Create", "KeepAlive"} {
		t.Run(method, func(t *testing.T) {
			network(t, func(t *testing.T, s *subnettest.Server) {
				h := newHost(t, s, 1)
				h.start()
				after(0)
				h.quit()
				if method != "KeepAlive" {
					s.Remove(subnet.SubnetsFolder + subnet.Key([]netip.Prefix{h.subnet()}))
				}
				h = newHost(t, s, 1)
				h.client.OnCall(func(m string) subnettest.Fault {
					if m == method {
						return subnettest.Fault{Before: errors.New("no")}
					}
					return subnettest.Fault{}
				})
				h.start()
				after(time.Minute)
				if n := h.calls(); n > 150 || n < 20 {
					t.Errorf("%d calls in a minute: %v", n, h.client.Counts())
				}
				h.client.OnCall(nil)
				after(5 * time.Second)
				if !h.manager.Status().Held {
					t.Errorf("status %+v", h.manager.Status())
				}
				h.quit()
			})
		})
	}
}

// TestAWriteThatTookLongIsNotRepeatedAtOnce: an overloaded store may still apply it. If all hosts repeated theirs at
// once, it would have twice as much to do.
func TestAWriteThatTookLongIsNotRepeatedAtOnce(t *testing.T) {
	network(t, func(t *testing.T, s *subnettest.Server) {
		h := newHost(t, s, 1)
		h.client.OnCall(func(method string) subnettest.Fault {
			if method == "Create" {
				return subnettest.Fault{Delay: 7 * time.Second, Before: errors.New("timed out")}
			}
			return subnettest.Fault{}
		})
		h.start()
		after(time.Minute)
		if n := h.client.Counts()["Create"]; n < 4 || n > 6 {
			t.Errorf("%d tries in a minute, want one in 12 s", n)
		}
		h.client.OnCall(nil)
		after(15 * time.Second)
		if n := h.client.Counts()["Create"]; !h.manager.Status().Held || n > 7 {
			t.Errorf("%d tries, status %+v", n, h.manager.Status())
		}
		h.quit()
	})
}

func TestTwoHostsThatSwapAddressesKeepTheirSubnets(t *testing.T) {
	network(t, func(t *testing.T, s *subnettest.Server) {
		a, b := newHost(t, s, 1).start(), newHost(t, s, 2).start()
		after(0)
		want := [2]netip.Prefix{a.subnet(), b.subnet()}
		a.address, b.address = b.address, a.address
		a.manager.Refresh()
		b.manager.Refresh()
		after(5 * time.Second)
		for i, h := range []*host{a, b} {
			if e, _ := recordOf(s, want[i]); h.subnet() != want[i] || e.Identity != h.id || e.Leases[0].PublicIP != h.address {
				t.Errorf("host %d on %s, record %+v", i, h.subnet(), e)
			}
			h.quit()
		}
	})
}

func TestAnOwnerThatComesBackBeforeItsRecordIsTakenKeepsIt(t *testing.T) {
	network(t, func(t *testing.T, s *subnettest.Server) {
		h := newHost(t, s, 1).start()
		after(0)
		first := h.subnet()
		h.client.Cut(true)
		clone := newHost(t, s, 2)
		clone.id = h.id
		clone.start()
		after(time.Second)
		h.client.Cut(false) // the claim was made meanwhile: the list has it
		after(5 * time.Second)
		if err := clone.quit(); !errors.Is(err, keeper.ErrCloned) {
			t.Errorf("clone: %v", err)
		}
		if e, _ := recordOf(s, first); e.Host != "host1" || h.subnet() != first {
			t.Errorf("record %+v, subnet %s", e, h.subnet())
		}
		h.quit()
	})
}

// TestATakeoverThatArrivesLateTakesNothingFromAnOwnerThatIsBack sends the write by which a record would change hands
// while its owner is away, and has it arrive when that is long back.
func TestATakeoverThatArrivesLateTakesNothingFromAnOwnerThatIsBack(t *testing.T) {
	const lateBy = 10 * time.Second
	for _, moved := range []bool{false, true} { // the heir has the address; the clone has another
		network(t, func(t *testing.T, s *subnettest.Server) {
			h := newHost(t, s, 1).start()
			after(0)
			first := h.subnet()
			h.client.Cut(true)
			other := newHost(t, s, 2)
			if other.id = h.id; !moved {
				other.id, other.address = "id2", h.address
			}
			sent := false
			other.client.OnCall(func(method string) (f subnettest.Fault) {
				if method == "Update" || method == "Delete" {
					sent, f.Delay = true, lateBy
				}
				return f
			})
			other.start()
			after(4 * time.Second)
			if !sent {
				t.Fatal("the record was not taken over yet")
			}
			h.client.Cut(false)
			after(2 * lateBy)
			if e, _ := recordOf(s, first); e.Host != "host1" || h.subnet() != first || h.manager.Status().Lost {
				t.Errorf("record %+v, subnet %s", e, h.subnet())
			}
			h.quit()
			_ = other.quit() // the clone has ended
		})
	}
}

func TestARecordThatIsTakenOverDoesNotLiveOnItsFormerOwnersLease(t *testing.T) {
	network(t, func(t *testing.T, s *subnettest.Server) {
		h := newHost(t, s, 1).start()
		after(0)
		old, _ := recordOf(s, h.subnet())
		h.quit()
		heir := newHost(t, s, 2)
		heir.address = h.address
		heir.start()
		after(5 * time.Second)
		if e, _ := recordOf(s, heir.subnet()); e.Key != old.Key || e.LeaseID == old.LeaseID || e.LeaseID == 0 {
			t.Errorf("record %+v, before %+v", e, old)
		}
		heir.quit()
	})
}

func TestAReservationForAnIdentityIsTakenWithoutALease(t *testing.T) {
	network(t, func(t *testing.T, s *subnettest.Server) {
		s.Put(record("id1", "", "10.5.77.0/24", "203.0.113.9"))
		h := newHost(t, s, 1).start()
		after(5 * time.Second)
		e, _ := recordOf(s, netip.MustParsePrefix("10.5.77.0/24"))
		if h.subnet() != e.Leases[0].Subnet || e.LeaseID != 0 || e.Leases[0].PublicIP != h.address {
			t.Errorf("subnet %s, record %+v", h.subnet(), e)
		}
		h.quit()
	})
}

func TestADeletedPeerLingersForAMomentAndIsGoneWithinASecond(t *testing.T) {
	network(t, func(t *testing.T, s *subnettest.Server) {
		h := newHost(t, s, 1).start()
		s.Put(record("x", "x", "10.5.200.0/24", "192.0.2.11"))
		after(0)
		want := []string{"10.5.200.0/24 192.0.2.11"}
		s.Remove("subnets/10.5.200.0-24")
		after(700 * time.Millisecond)
		if got := h.peers(); !slices.Equal(got, want) {
			t.Errorf("after 0.7 s: peers %v, want %v", got, want)
		}
		after(200 * time.Millisecond)
		if got := h.peers(); len(got) != 0 {
			t.Errorf("after 0.9 s: peers %v", got)
		}
		// A new owner has the subnet at once.
		s.Put(record("x", "x", "10.5.200.0/24", "192.0.2.11"))
		after(0)
		s.Remove("subnets/10.5.200.0-24")
		s.Put(record("y", "y", "10.5.200.0/24", "192.0.2.12"))
		after(0)
		if got := h.peers(); !slices.Equal(got, []string{"10.5.200.0/24 192.0.2.12"}) {
			t.Errorf("with a new owner: peers %v", got)
		}
		h.quit()
	})
}
