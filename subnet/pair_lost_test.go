package subnet_test

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"flanneld/subnet"
	"flanneld/subnet/subnettest"
)

// takeHalf has a host of flannel, which looks for the key alone, take one subnet of a pair into a pair of its own.
func takeHalf(s *subnettest.Server, mine, other string) subnet.Entry {
	return s.Put(halfTaken(mine, other))
}

func halfTaken(mine, other string) subnet.Record {
	r := subnet.Record{}
	for _, text := range []string{mine, other} {
		p := netip.MustParsePrefix(text)
		public := netip.MustParseAddr("203.0.113.9")
		if p.Addr().Is6() {
			public = netip.MustParseAddr("2001:db8:9::9")
		}
		r.Leases = append(r.Leases, subnet.Lease{Subnet: p, Attrs: subnet.Attrs{PublicIP: public, BackendType: "vxlan"}})
	}
	slices.SortFunc(r.Leases, func(a, b subnet.Lease) int { return a.Subnet.Addr().Compare(b.Subnet.Addr()) })
	return r
}

func TestOneHalfThatIsLostIsReplacedAndTheOtherStays(t *testing.T) {
	for half, others := range []string{"fd00:5:0:99::/64", "10.5.99.0/24"} {
		for _, policy := range []subnet.LostPolicy{subnet.LostMove, subnet.LostHold, subnet.LostExit} {
			for _, cut := range []bool{true, false} { // the host learns it by a list, or by events
				t.Run(fmt.Sprintf("half %d, %s, cut off: %t", half, policy, cut), func(t *testing.T) {
					withConfig(t, configDual, func(t *testing.T, s *subnettest.Server) {
						h := newHost(t, s, 1)
						h.options.OnLost = policy
						h.start()
						after(time.Second)
						before := h.manager.View().Own
						lost, stays := before.Prefixes()[half], before.Prefixes()[1-half]
						// The record goes, and another host is faster than we with one of our subnets.
						h.client.Cut(cut)
						thief := s.Replace(before.Key(), halfTaken(lost.String(), others))
						h.client.Cut(false)
						after(5 * time.Second)
						h.wantLog("subnet lost to another host")
						h.wantLog(lost.String())
						switch policy {
						case subnet.LostExit:
							if err := <-h.ended; err == nil {
								t.Error("the host goes on")
							}
						case subnet.LostHold:
							wantKeys(t, s, subnet.Key(thief.Prefixes()), subnet.Key([]netip.Prefix{stays}))
							if !strings.Contains(h.manager.Status().Waiting, lost.String()) {
								t.Errorf("waits for %q", h.manager.Status().Waiting)
							}
						case subnet.LostMove:
							after := h.manager.View()
							if p := after.Own.Prefixes(); !after.Status.Held || len(p) != 2 || p[1-half] != stays || p[half] == lost {
								t.Errorf("now %v, before %v", p, before.Prefixes())
							}
							wantKeys(t, s, subnet.Key(thief.Prefixes()), h.key())
						}
					})
				})
			}
		}
	}
}

// TestWhatIsLeftOfAPairIsHeldUntilItIsWhole loses one half of a pair to a record that this host does not write over, and looks that
// nobody gets the other half meanwhile, however long that takes.
func TestWhatIsLeftOfAPairIsHeldUntilItIsWhole(t *testing.T) {
	// What stands in the store again when the host looks.
	for name, again := range map[string]func(t *testing.T, s *subnettest.Server, own subnet.Record){
		"the own record is gone": func(*testing.T, *subnettest.Server, subnet.Record) {},
		"the own record is the younger one": func(t *testing.T, s *subnettest.Server, own subnet.Record) {
			id, err := s.Client("flannel").Grant(t.Context(), time.Hour)
			if err != nil {
				t.Fatal(err)
			}
			s.PutLeased(own, id)
		},
		"the own record is a reservation": func(_ *testing.T, s *subnettest.Server, own subnet.Record) { s.Put(own) },
	} {
		for half, other := range []string{"fd00:5:0:99::/64", "10.5.99.0/24"} {
			t.Run(fmt.Sprintf("%s, half %d", name, half), func(t *testing.T) {
				withConfig(t, configDual, func(t *testing.T, s *subnettest.Server) {
					h, peer := newHost(t, s, 1), newHost(t, s, 2).start()
					h.options.OnLost = subnet.LostHold
					h.start()
					after(time.Second)
					own := h.manager.View().Own
					lost, stays := own.Prefixes()[half], own.Prefixes()[1-half]
					h.client.Cut(true)
					s.Remove(own.Key())
					thief := takeHalf(s, lost.String(), other)
					again(t, s, own)
					announced := subnet.Key([]netip.Prefix{stays})
					if slices.Contains(s.Keys(), own.Key()) {
						announced = subnet.Key(own.Prefixes())
					}
					h.client.Cut(false)
					for range 2 { // as it is, and after a restart
						after(10 * time.Hour) // ten times the time to live
						wantKeys(t, s, peer.key(), subnet.Key(thief.Prefixes()), announced)
						if st := h.manager.Status(); st.Held || !st.Lost || !strings.Contains(st.Waiting, lost.String()) {
							t.Errorf("status %+v", st)
						}
						if got := h.manager.View().Self; !slices.Equal(got, own.Leases) {
							t.Errorf("uses %v, before %v", got, own.Leases)
						}
						if want := stays.String() + " " + h.publicIP(stays).String(); !slices.Contains(peer.peers(), want) {
							t.Errorf("the peer sees %v, want %s", peer.peers(), want)
						}
						if n := strings.Count(h.log.String(), "subnet lost to another host"); n != 1 {
							t.Errorf("named %d times, want once:\n%s", n, h.log)
						}
						h.log.Reset()
						h.reconfigure()
					}
					s.Remove(thief.Key)
					after(2 * time.Second)
					wantKeys(t, s, peer.key(), subnet.Key(own.Prefixes()))
					if v := h.manager.View(); !v.Status.Held || v.Status.Lost || v.Status.Skipped > 0 {
						t.Errorf("status %+v", v.Status)
					}
				})
			})
		}
	}
}

func TestAnOldRecordOfThisHostThatARestoreBringsBackTakesNothingAway(t *testing.T) {
	withConfig(t, configDual, func(t *testing.T, s *subnettest.Server) {
		h := newHost(t, s, 1).start()
		after(time.Second)
		old, backup := h.manager.View().Own, s.Backup()
		thief := s.Replace(old.Key(), halfTaken(old.Leases[1].Subnet.String(), "10.5.99.0/24"))
		after(5 * time.Second)
		before := h.key()
		s.Remove(thief.Key)
		h.log.Reset()
		s.Restore(backup)
		after(5 * time.Second)
		wantKeys(t, s, before)
		if got := h.key(); got != before || strings.Contains(h.log.String(), "subnet lost to another host") {
			t.Errorf("now %s, before %s:\n%s", got, before, h.log)
		}
	})
}

func TestPeersGoOnSendingToTheHalfThatNobodyHasTaken(t *testing.T) {
	withConfig(t, configDual, func(t *testing.T, s *subnettest.Server) {
		h, peer := newHost(t, s, 1).start(), newHost(t, s, 2).start()
		after(time.Second)
		own := h.manager.View().Own
		h.client.Cut(true) // it cannot say what it has left
		s.Remove(own.Key())
		takeHalf(s, own.Leases[1].Subnet.String(), "10.5.99.0/24")
		after(100 * time.Millisecond)
		for i, holder := range []netip.Addr{h.publicIP(own.Leases[0].Subnet), netip.MustParseAddr("2001:db8:9::9")} {
			if want := own.Leases[i].Subnet.String() + " " + holder.String(); !slices.Contains(peer.peers(), want) {
				t.Errorf("the peer sees %v, want %s", peer.peers(), want)
			}
		}
		after(time.Second)
		if got := len(peer.peers()); got != 2 {
			t.Errorf("the peer still sees %v", peer.peers())
		}
	})
}

func TestBothHalvesThatAreLostAreNamedOnce(t *testing.T) {
	withConfig(t, configDual, func(t *testing.T, s *subnettest.Server) {
		h := newHost(t, s, 1)
		h.options.OnLost = subnet.LostHold
		h.start()
		after(time.Second)
		own := h.manager.View().Own
		h.client.Cut(true)
		s.Remove(own.Key())
		takeHalf(s, own.Leases[0].Subnet.String(), "fd00:5:0:99::/64")
		takeHalf(s, own.Leases[1].Subnet.String(), "10.5.99.0/24")
		h.client.Cut(false)
		for range 20 { // each event calls for a look
			after(5 * time.Second)
			s.Put(record("", "", "10.5.98.0/24", "203.0.113.98"))
		}
		if n := strings.Count(h.log.String(), "subnet lost to another host"); n != 1 {
			t.Errorf("named %d times, want once:\n%s", n, h.log)
		}
		for _, p := range own.Prefixes() {
			if w := h.manager.Status().Waiting; !strings.Contains(w, p.String()) {
				t.Errorf("waits for %q, want %s in it", w, p)
			}
		}
	})
}

// TestARecordKeepsItsKeyWhileAYoungerOneHasOneOfItsSubnets lets the half come back that was lost, when the other one is in a younger record:
// under a new key, ours would be the younger one.
func TestARecordKeepsItsKeyWhileAYoungerOneHasOneOfItsSubnets(t *testing.T) {
	for _, rubbish := range []bool{false, true} {
		withConfig(t, configDual, func(t *testing.T, s *subnettest.Server) { keepsItsKey(t, s, rubbish) })
	}
}

func keepsItsKey(t *testing.T, s *subnettest.Server, rubbish bool) {
	h := newHost(t, s, 1)
	h.options.OnLost = subnet.LostHold
	h.start()
	after(time.Second)
	before := h.manager.View().Own
	lost, stays := before.Prefixes()[0], before.Prefixes()[1]
	h.client.Cut(true)
	s.Remove(before.Key())
	thief := takeHalf(s, lost.String(), "fd00:5:0:99::/64")
	h.client.Cut(false)
	after(5 * time.Second)
	younger := takeHalf(s, stays.String(), "10.5.99.0/24")
	if rubbish {
		s.PutBad(younger.Key, "rubbish")
	}
	s.Remove(thief.Key)
	after(time.Hour)
	if rubbish {
		wantKeys(t, s, subnet.Key([]netip.Prefix{stays}))
	} else {
		wantKeys(t, s, subnet.Key([]netip.Prefix{stays}), subnet.Key(younger.Prefixes()))
	}
	if v := h.manager.View(); !strings.Contains(v.Status.Waiting, strings.TrimPrefix(younger.Key, subnet.SubnetsFolder)) || len(v.Self) != 2 {
		t.Errorf("waits for %q with %v", v.Status.Waiting, v.Self)
	}
	h.address = netip.MustParseAddr("192.0.2.77") // the record follows the host meanwhile
	h.manager.Refresh()
	after(time.Second)
	if e, _ := recordOf(s, stays); e.Leases[0].PublicIP != h.publicIP(stays) {
		t.Errorf("record %s of a host that has moved to %s", e.Record, h.publicIP(stays))
	}
	s.Remove(younger.Key)
	after(2 * time.Second)
	if v := h.manager.View(); v.Own.Key() != before.Key() || !v.Status.Held {
		t.Errorf("now %s, %+v", v.Own.Key(), v.Status)
	}
	wantKeys(t, s, subnet.Key(before.Prefixes()))
	h.quit()
}

// TestACloneWithAReservationOfItsOwnAsksForTheRestOfThePair gives the clone of a host a reservation, by its address, for one half of the pair that both
// use, in a pair that is another's. What is left of the original's stands in its way, and the original lives.
func TestACloneWithAReservationOfItsOwnAsksForTheRestOfThePair(t *testing.T) {
	withConfig(t, configDual, func(t *testing.T, s *subnettest.Server) {
		other, h := newHost(t, s, 3).start(), newHost(t, s, 1)
		h.options.OnLost = subnet.LostHold
		h.start()
		after(time.Second)
		clone := newHost(t, s, 2)
		clone.id, clone.options.State = h.id, h.remembered()
		pair := h.manager.View().Own.Prefixes()
		h.client.Cut(true)
		s.Remove(h.manager.View().Own.Key())
		r := subnet.Record{}
		for _, p := range []netip.Prefix{pair[0], other.manager.View().Own.Prefixes()[1]} {
			r.Leases = append(r.Leases, subnet.Lease{Subnet: p, Attrs: subnet.Attrs{PublicIP: clone.publicIP(p), BackendType: "vxlan"}})
		}
		s.Put(r)
		h.client.Cut(false)
		after(5 * time.Second)
		clone.start()
		after(10 * time.Second)
		select {
		case err := <-clone.ended:
			if !errors.Is(err, subnet.ErrCloned) {
				t.Errorf("clone: %v", err)
			}
		default:
			t.Errorf("the clone goes on: %+v", clone.manager.Status())
		}
		wantKeys(t, s, subnet.Key(r.Prefixes()), subnet.Key(pair[1:]), other.key())
	})
}

// TestAReservationForTheRestOfAPairJoinsBothHalvesAfterARestart gives a host that holds one half of its pair a reservation, by its address, for the
// other half, in a pair that is another's, and starts it anew. It must come to its pair, and answer claims to what it has all the time.
func TestAReservationForTheRestOfAPairJoinsBothHalvesAfterARestart(t *testing.T) {
	withConfig(t, configDual, func(t *testing.T, s *subnettest.Server) {
		other, h := newHost(t, s, 3).start(), newHost(t, s, 1)
		h.options.OnLost = subnet.LostHold
		h.start()
		after(time.Second)
		own := h.manager.View().Own
		pair := own.Prefixes()
		h.client.Cut(true)
		s.Remove(own.Key())
		r := subnet.Record{}
		for _, p := range []netip.Prefix{other.manager.View().Own.Prefixes()[0], pair[1]} {
			r.Leases = append(r.Leases, subnet.Lease{Subnet: p, Attrs: subnet.Attrs{PublicIP: h.publicIP(p), BackendType: "vxlan"}})
		}
		s.Put(r)
		h.client.Cut(false)
		after(5 * time.Second)
		wantKeys(t, s, other.key(), subnet.Key(r.Prefixes()), subnet.Key(pair[:1]))
		h.options.State = h.remembered()
		_ = h.quit()
		h.start()
		after(5 * time.Second)
		if v := h.manager.View(); !v.Status.Held || v.Own.Key() != own.Key() {
			t.Errorf("now %s, %+v", v.Own.Key(), v.Status)
		}
		wantKeys(t, s, other.key(), subnet.Key(pair))
	})
}

// TestWhatIsLeftOfAPairIsKeptBesideAReservationThatCannotReplaceIt gives a host that holds one half of its pair a reservation for all of it, while another
// has the rest and a record that makes no sense disputes the half. The reservation needs no renewal; the half, which others go by, does.
func TestWhatIsLeftOfAPairIsKeptBesideAReservationThatCannotReplaceIt(t *testing.T) {
	withConfig(t, configDual, func(t *testing.T, s *subnettest.Server) {
		h := newHost(t, s, 1)
		h.options.OnLost = subnet.LostHold
		h.start()
		after(time.Second)
		own := h.manager.View().Own
		pair := own.Prefixes()
		h.client.Cut(true)
		s.Remove(own.Key())
		thief := takeHalf(s, pair[0].String(), "fd00:5:0:99::/64")
		h.client.Cut(false)
		after(5 * time.Second)
		rubbish := subnet.SubnetsFolder + subnet.Key([]netip.Prefix{netip.MustParsePrefix("10.5.99.0/24"), pair[1]})
		s.PutBad(rubbish, "rubbish")
		s.Put(own)
		after(72 * time.Hour)
		wantKeys(t, s, subnet.Key(thief.Prefixes()), subnet.Key(pair), subnet.Key(pair[1:]))
		if until := h.manager.View().Until; !until.IsZero() {
			t.Errorf("the reservation ends at %s", until)
		}
		s.Remove(rubbish)
		s.Remove(thief.Key)
		after(5 * time.Second)
		if v := h.manager.View(); !v.Status.Held || v.Own.Key() != own.Key() {
			t.Errorf("now %s, %+v", v.Own.Key(), v.Status)
		}
		wantKeys(t, s, subnet.Key(pair))
		renewals := h.client.Counts()["KeepAlive"]
		after(72 * time.Hour)
		if n := h.client.Counts()["KeepAlive"] - renewals; n > 0 {
			t.Errorf("%d renewals of a lease that nothing hangs on", n)
		}
	})
}
