package ip_test

import (
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"

	"flanneld/ip"
	"flanneld/ip/iptest"
)

// foreignRoute is one of others, in the place of that of the first peer.
func foreignRoute() ip.Route {
	return ip.Route{Dst: cluster(2).Routes[0].Dst, Via: netip.MustParseAddr("192.0.2.9"), Link: "eth0", Protocol: 4}
}

// wantConflict wants just that route in conflict, and all else of the cluster in place.
func (r rig) wantConflict(found ip.Route) {
	r.t.Helper()
	all := r.Conflicts()
	if len(all) != 1 || all[0].Want != cluster(2).Routes[0] || all[0].Found != found {
		r.t.Errorf("conflicts %v", all)
	}
	want := cluster(2)
	want.Routes = want.Routes[1:]
	wantState(r.t, r.kernel, want)
	if got := r.kernel.Foreign(scope).Routes; len(got) != 1 || got[0] != found {
		r.t.Errorf("routes of others %v, want %v", got, found)
	}
}

func TestARouteOfOthersIsNotReplacedAndOursComesWhenItGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, iptest.Faults{})
		r.kernel.Put(foreignRoute())
		if res := r.pass(cluster(2)); res.Put != 7 {
			t.Errorf("%+v", res)
		}
		r.wantConflict(foreignRoute())
		woken := 0
		go func() {
			_ = r.kernel.Watch(t.Context(), func(ev ip.Event) {
				if r.Observe(ev) {
					woken++
				}
			})
		}()
		synctest.Wait()
		r.pass(cluster(2)) // the first event is empty
		r.wantConflict(foreignRoute())
		before := r.kernel.Counts()
		r.pass(cluster(2))
		if after := r.kernel.Counts(); after != before {
			t.Errorf("a conflict that lasts costs %+v, before %+v", after, before)
		}
		woken = 0
		changed := foreignRoute()
		changed.Via = changed.Via.Next()
		r.kernel.Put(changed)
		synctest.Wait()
		r.pass(cluster(2))
		r.wantConflict(changed)
		moved := cluster(2)
		moved.Routes[0].Via = netip.MustParseAddr("192.0.2.77")
		moved.Routes[0].Link = "eth0"
		r.pass(moved)
		if got := r.Conflicts(); len(got) != 1 || got[0].Want != moved.Routes[0] || got[0].Found != changed {
			t.Errorf("conflicts after the peer's route has changed: %v", got)
		}
		r.pass(cluster(2))
		r.wantConflict(changed)
		r.kernel.Delete(changed)
		synctest.Wait()
		if woken != 2 {
			t.Errorf("woken %d times, want once when the route changes and once when it goes", woken)
		}
		if res := r.pass(cluster(2)); res.Put != 1 || len(r.Conflicts()) != 0 || r.Drift() != [ip.Kinds]int{} {
			t.Errorf("%+v, conflicts %v, drift %v", res, r.Conflicts(), r.Drift())
		}
		wantState(t, r.kernel, cluster(2))
		if !strings.Contains(r.log.String(), "put=7") {
			t.Errorf("log:\n%s", r.log)
		}
	})
}

func TestARouteOfOthersThatTookThePlaceOfOursStays(t *testing.T) {
	r := newRig(t, iptest.Faults{})
	r.pass(cluster(2))
	r.kernel.Put(foreignRoute())
	r.Observe(ip.Event{})
	r.pass(cluster(2))
	r.wantConflict(foreignRoute())
	r.pass(cluster(0)) // the peers go
	if got := r.Conflicts(); len(got) != 0 {
		t.Errorf("conflicts without peers: %v", got)
	}
	if got := r.kernel.Foreign(scope).Routes; len(got) != 1 {
		t.Errorf("routes of others %v", got)
	}
}
