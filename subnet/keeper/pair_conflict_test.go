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

// TestAConflictOverOneHalfIsOneOfTheRecord has another host take one subnet of a pair. By the policy the host takes a
// new record, which keeps the other subnet as long as that is free, waits for the whole pair, or ends.
func TestAConflictOverOneHalfIsOneOfTheRecord(t *testing.T) {
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
							wantKeys(t, s, subnet.Key(thief.Prefixes()))
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

// TestAPairOfWhichOneHalfIsTakenIsWaitedForUnderHold loses one subnet of a pair to a record that this host does not
// write over. It announces nothing new, keeps what it still has in the store, and comes back once the pair is free.
func TestAPairOfWhichOneHalfIsTakenIsWaitedForUnderHold(t *testing.T) {
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
					lost := own.Prefixes()[half]
					h.client.Cut(true)
					s.Remove(own.Key())
					thief := takeHalf(s, lost.String(), other)
					again(t, s, own)
					want := []string{peer.key(), subnet.Key(thief.Prefixes())}
					if slices.Contains(s.Keys(), own.Key()) {
						want = append(want, subnet.Key(own.Prefixes()))
					}
					h.client.Cut(false)
					for range 2 { // as it is, and after a restart
						after(10 * time.Hour) // ten times the time to live
						wantKeys(t, s, want...)
						if st := h.manager.Status(); st.Held || !st.Lost || !strings.Contains(st.Waiting, lost.String()) {
							t.Errorf("status %+v", st)
						}
						if got := h.manager.View().Self; !slices.Equal(got, own.Leases) {
							t.Errorf("uses %v, before %v", got, own.Leases)
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

func TestAPairOfWhichBothHalvesAreTakenIsNamedOnce(t *testing.T) {
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
		if w := h.manager.Status().Waiting; !strings.Contains(w, own.Leases[0].Subnet.String()) {
			t.Errorf("waits for %q, want %s in it", w, own.Leases[0].Subnet)
		}
	})
}

// TestAReservationThatCannotBeTakenBecomesThePairInUse gives a host that waits for its pair a reservation, by its
// address, for one half of it, beside a subnet of another host, and starts it anew. The reservation gets the subnets in
// use.
func TestAReservationThatCannotBeTakenBecomesThePairInUse(t *testing.T) {
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
			r.Leases = append(r.Leases, subnet.Lease{Subnet: p,
				Attrs: subnet.Attrs{PublicIP: h.publicIP(p), BackendType: "vxlan"}})
		}
		s.Put(r)
		h.client.Cut(false)
		after(5 * time.Second)
		wantKeys(t, s, other.key(), subnet.Key(r.Prefixes()))
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
