package ip_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"flanneld/ip"
	"flanneld/ip/iptest"
)

// rig is a reconciler on a kernel in memory.
type rig struct {
	t      *testing.T
	kernel *iptest.Kernel
	*ip.Reconciler
	log *bytes.Buffer
}

func newRig(t *testing.T, f iptest.Faults) rig {
	r := rig{t: t, kernel: iptest.NewKernel(f), log: &bytes.Buffer{}}
	r.kernel.Underlay("eth0", "192.0.2.1/24")
	r.Reconciler = ip.NewReconciler(r.kernel, slog.New(slog.NewTextHandler(r.log, nil)))
	return r
}

// pass reconciles without an error.
func (r rig) pass(want ip.State) ip.Result {
	r.t.Helper()
	res, err := r.Reconcile(scope, desired(want).Snapshot())
	if err != nil {
		r.t.Fatal(err)
	}
	return res
}

func TestAPassWithoutAReasonReadsNothing(t *testing.T) {
	r := newRig(t, iptest.Faults{})
	if res := r.pass(cluster(2)); !res.Dumped || res.Put != 8 {
		t.Errorf("first pass %+v", res)
	}
	wantState(t, r.kernel, cluster(2))
	before := r.kernel.Counts()
	if res := r.pass(cluster(2)); res != (ip.Result{}) {
		t.Errorf("second pass %+v", res)
	}
	if res := r.pass(cluster(3)); res != (ip.Result{Put: 3}) {
		t.Errorf("one more peer: %+v", res)
	}
	after := r.kernel.Counts()
	if after.Dumps != before.Dumps || after.Ops != before.Ops+3 {
		t.Errorf("%+v, before %+v", after, before)
	}
	wantState(t, r.kernel, cluster(3))
}

func TestDriftIsRepairedCountedAndNamed(t *testing.T) {
	s := cluster(2)
	link, addr, fdb, neigh, route := s.Links[0], s.Addrs[0], s.FDB[0], s.Neighs[0], s.Routes[0]
	changed := func(f func(*ip.Link)) func(*iptest.Kernel) {
		return func(k *iptest.Kernel) {
			l := link
			f(&l)
			k.Put(l)
		}
	}
	for _, tt := range []struct {
		name   string
		tamper func(k *iptest.Kernel)
		drift  [ip.Kinds]int
		say    string
	}{
		{"device deleted", func(k *iptest.Kernel) { k.Delete(link) }, [ip.Kinds]int{1}, `object="flannel.1 type vxlan`},
		{"device down", changed(func(l *ip.Link) { l.Up = false }), [ip.Kinds]int{1}, "found="},
		{"hardware address changed", changed(func(l *ip.Link) { l.MAC[5] = 9 }), [ip.Kinds]int{1}, "02:00:00:00:00:09"},
		{"MTU changed", changed(func(l *ip.Link) { l.MTU = 1280 }), [ip.Kinds]int{1}, "mtu 1280"},
		{"address removed", func(k *iptest.Kernel) { k.Delete(addr) }, [ip.Kinds]int{0, 1},
			`object="10.0.0.0/32 dev flannel.1" found=missing`},
		{"foreign address", func(k *iptest.Kernel) {
			k.Put(ip.Addr{Link: "flannel.1", Prefix: netip.MustParsePrefix("169.254.3.3/16")})
		}, [ip.Kinds]int{0, 1}, "found=foreign"},
		{"FDB flushed", func(k *iptest.Kernel) { k.Delete(fdb, s.FDB[1]) }, [ip.Kinds]int{0, 0, 2}, "kind=fdb"},
		{"FDB entry elsewhere", func(k *iptest.Kernel) {
			k.Put(ip.FDB{Link: "flannel.1", MAC: fdb.MAC, Dst: netip.MustParseAddr("192.0.2.99")})
		}, [ip.Kinds]int{0, 0, 1}, "dst 192.0.2.99"},
		{"neighbours flushed", func(k *iptest.Kernel) { k.Delete(neigh, s.Neighs[1]) }, [ip.Kinds]int{0, 0, 0, 2}, "count=2"},
		{"neighbour changed", func(k *iptest.Kernel) { k.Put(ip.Neigh{Link: "flannel.1", IP: neigh.IP, MAC: ip.MAC{2, 9}}) },
			[ip.Kinds]int{0, 0, 0, 1}, "lladdr 02:09"},
		{"routes flushed", func(k *iptest.Kernel) { k.Delete(route, s.Routes[1]) }, [ip.Kinds]int{0, 0, 0, 0, 2},
			`object="10.0.1.0/24 via 10.0.1.0 dev flannel.1 onlink"`},
		{"route replaced", func(k *iptest.Kernel) {
			k.Put(ip.Route{Dst: route.Dst, Via: netip.MustParseAddr("192.0.2.9"), Link: "eth0", Protocol: ip.Protocol})
		}, [ip.Kinds]int{0, 0, 0, 0, 1}, "via 192.0.2.9 dev eth0"},
		{"route and neighbour", func(k *iptest.Kernel) { k.Delete(neigh, route) }, [ip.Kinds]int{0, 0, 0, 1, 1},
			"kind=neigh"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, iptest.Faults{})
				r.pass(cluster(2))
				woken := 0
				go func() {
					_ = r.kernel.Watch(t.Context(), func(ev ip.Event) {
						if r.Observe(ev) {
							woken++
						}
					})
				}()
				synctest.Wait()
				r.pass(cluster(2)) // the first event is empty: anything may have changed
				woken = 0
				tt.tamper(r.kernel)
				synctest.Wait()
				if woken == 0 {
					t.Error("no event has woken the daemon")
				}
				if res := r.pass(cluster(2)); res.Drift != tt.drift || r.Drift() != tt.drift {
					t.Errorf("drift %v, in all %v, want %v", res.Drift, r.Drift(), tt.drift)
				}
				wantState(t, r.kernel, cluster(2))
				if strings.Count(r.log.String(), "drift found") > 2 || !strings.Contains(r.log.String(), tt.say) ||
					!strings.Contains(r.log.String(), "by=\"administrator (pid 1)\"") {
					t.Errorf("log, want %q in it:\n%s", tt.say, r.log)
				}
				woken = 0
				synctest.Wait() // our own echo
				if res := r.pass(cluster(2)); woken != 0 || res != (ip.Result{}) {
					t.Errorf("woken %d times by ourselves, %+v", woken, res)
				}
			})
		})
	}
}

func TestObserve(t *testing.T) {
	s := cluster(2)
	link, addr, fdb, neigh, route := s.Links[0], s.Addrs[0], s.FDB[0], s.Neighs[0], s.Routes[0]
	down := link
	down.Up = false
	foreign := ip.Route{Dst: netip.MustParsePrefix("172.16.0.0/24"), Via: netip.MustParseAddr("192.0.2.9"), Link: "eth0",
		Protocol: 3}
	metric := route
	metric.Metric = 50
	leftover := ip.Route{Dst: netip.MustParsePrefix("10.0.77.0/24"), Link: "eth0", Via: netip.MustParseAddr("192.0.2.9"),
		Protocol: ip.Protocol}
	for _, tt := range []struct {
		name string
		ev   ip.Event
		want bool
	}{
		{"anything", ip.Event{}, true},
		{"the echo of a device", ip.Event{Object: link}, false},
		{"the device on its way", ip.Event{Object: down}, true},
		{"the device gone", ip.Event{Object: link, Deleted: true}, true},
		{"another device", ip.Event{Object: ip.Link{Name: "eth9"}}, false},
		{"another device gone", ip.Event{Object: ip.Link{Name: "eth9"}, Deleted: true}, false},
		{"the echo of an address", ip.Event{Object: addr}, false},
		{"the address gone", ip.Event{Object: addr, Deleted: true}, true},
		{"a foreign address", ip.Event{Object: ip.Addr{Link: "flannel.1", Prefix: netip.MustParsePrefix("10.1.1.1/8")}},
			true},
		{"the foreign address deleted",
			ip.Event{Object: ip.Addr{Link: "flannel.1", Prefix: netip.MustParsePrefix("10.1.1.1/8")}, Deleted: true}, false},
		{"an address elsewhere", ip.Event{Object: ip.Addr{Link: "eth0", Prefix: netip.MustParsePrefix("10.1.1.1/8")}}, false},
		{"the echo of an FDB entry", ip.Event{Object: fdb}, false},
		{"the FDB entry gone", ip.Event{Object: fdb, Deleted: true}, true},
		{"the FDB entry gone after it was changed",
			ip.Event{Object: ip.FDB{Link: "flannel.1", MAC: fdb.MAC, Dst: neigh.IP}, Deleted: true}, true},
		{"a strange FDB entry gone", ip.Event{Object: ip.FDB{Link: "flannel.1", MAC: ip.MAC{2, 9}, Dst: neigh.IP},
			Deleted: true}, false},
		{"an odd FDB entry", ip.Event{Object: ip.FDB{Link: "flannel.1", MAC: fdb.MAC, Dst: fdb.Dst, Odd: true}}, true},
		{"the echo of a neighbour", ip.Event{Object: neigh}, false},
		{"the neighbour gone", ip.Event{Object: neigh, Deleted: true}, true},
		{"the neighbour flushed", ip.Event{Object: ip.Neigh{Link: "flannel.1", IP: neigh.IP}, Deleted: true}, true},
		{"a neighbour elsewhere", ip.Event{Object: ip.Neigh{Link: "eth0", IP: neigh.IP}}, false},
		{"the echo of a route", ip.Event{Object: route}, false},
		{"the route gone", ip.Event{Object: route, Deleted: true}, true},
		{"the route replaced", ip.Event{Object: ip.Route{Dst: route.Dst, Via: neigh.IP, Link: "eth0", Protocol: 3}}, true},
		{"an old route of that key gone",
			ip.Event{Object: ip.Route{Dst: route.Dst, Via: neigh.IP, Link: "eth0", Protocol: 3}, Deleted: true}, false},
		{"a route with our number", ip.Event{Object: leftover}, true},
		{"the route with our number gone", ip.Event{Object: leftover, Deleted: true}, false},
		{"another's route", ip.Event{Object: foreign}, false},
		{"a route of another metric", ip.Event{Object: metric}, false},
	} {
		r := newRig(t, iptest.Faults{})
		r.pass(cluster(2))
		if got := r.Observe(tt.ev); got != tt.want {
			t.Errorf("%s: %t, want %t", tt.name, got, tt.want)
		}
		if res := r.pass(cluster(2)); res.Dumped != tt.want {
			t.Errorf("%s: read anew %t, want %t", tt.name, res.Dumped, tt.want)
		}
	}
}

func TestAfterAnErrorEverythingIsReadAnew(t *testing.T) {
	for _, tt := range []struct {
		name   string
		faults func(broken *bool) iptest.Faults
	}{
		{"an operation fails", func(broken *bool) iptest.Faults {
			return iptest.Faults{Op: func(op ip.Op) error {
				if r, ok := op.Object.(ip.Route); *broken && ok && r.Dst == cluster(2).Routes[1].Dst {
					return syscall.ENOMEM
				}
				return nil
			}}
		}},
		{"the outcome is unknown", func(broken *bool) iptest.Faults {
			return iptest.Faults{Batch: func(n int) (int, error) {
				if *broken {
					return n / 2, errors.New("no buffer space")
				}
				return n, nil
			}}
		}},
		{"the dump was interrupted", func(broken *bool) iptest.Faults {
			return iptest.Faults{Dump: func() error {
				if *broken {
					return errors.New("interrupted")
				}
				return nil
			}}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			broken := true
			r := newRig(t, tt.faults(&broken))
			if _, err := r.Reconcile(scope, desired(cluster(2)).Snapshot()); err == nil {
				t.Error("no error")
			}
			broken = false
			if res := r.pass(cluster(2)); !res.Dumped || res.Drift != [ip.Kinds]int{} {
				t.Errorf("next pass %+v", res)
			}
			wantState(t, r.kernel, cluster(2))
			// The other way round: nothing may be deleted of what an interrupted dump does not know.
			broken = true
			r.Observe(ip.Event{})
			_, _ = r.Reconcile(scope, desired(cluster(2)).Snapshot())
			broken = false
			wantState(t, r.kernel, cluster(2))
		})
	}
}

// TestWhatComesWithALargerScopeIsNoDrift has a backend join whose datapath makes its device itself, before the pass. A
// device that somebody puts into the old scope at the same time is drift.
func TestWhatComesWithALargerScopeIsNoDrift(t *testing.T) {
	both, own := scope, ip.Link{Name: "flannel0", Type: "tun", MTU: 1472}
	both.Links = append([]string{own.Name}, scope.Links...)
	want := cluster(2)
	want.Links = append(want.Links, own)
	foreign := ip.Addr{Link: "flannel.1", Prefix: netip.MustParsePrefix("169.254.3.3/16")}

	r := newRig(t, iptest.Faults{})
	joins := func() ip.Result {
		t.Helper()
		r.kernel.Put(own)
		r.Observe(ip.Event{Object: own})
		r.Observe(ip.Event{}) // as for each new backend
		res, err := r.Reconcile(both, desired(want).Snapshot())
		if err != nil {
			t.Fatal(err)
		}
		return res
	}
	r.pass(cluster(2))
	if res := joins(); res.Drift != [ip.Kinds]int{} {
		t.Errorf("the device of a new backend: drift %v, want none\n%s", res.Drift, r.log)
	}
	r.pass(cluster(2)) // it leaves again
	r.kernel.Delete(own)
	r.kernel.Put(foreign)
	if res := joins(); res.Drift != [ip.Kinds]int{0, 1} {
		t.Errorf("the device of a new backend, and a foreign address: drift %v, want the address\n%s", res.Drift, r.log)
	}
	r.kernel.Delete(own)
	r.Observe(ip.Event{Object: own, Deleted: true})
	r.kernel.Put(ip.Link{Name: own.Name, Type: "dummy", MTU: 1500})
	if res, err := r.Reconcile(both, desired(want).Snapshot()); err != nil || res.Drift != [ip.Kinds]int{1} {
		t.Errorf("the device replaced: drift %v, %v, want the device", res.Drift, err)
	}
}

// TestWhatVanishesWhileAPassAppliesIsDrift has the device go between the decision what to do and the doing.
func TestWhatVanishesWhileAPassAppliesIsDrift(t *testing.T) {
	broken := false
	r := newRig(t, iptest.Faults{Batch: func(n int) (int, error) {
		if broken {
			return 0, errors.New("the socket is gone")
		}
		return n, nil
	}})
	r.pass(cluster(3))
	broken = true
	if _, err := r.Reconcile(scope, desired(cluster(4)).Snapshot()); err == nil {
		t.Fatal("no error")
	}
	broken = false
	r.kernel.Delete(cluster(3).Links[0])
	if res := r.pass(cluster(4)); res.Drift != [ip.Kinds]int{1} {
		t.Errorf("drift %v, want the device, and neither what went with it nor the peer that was not there yet", res.Drift)
	}
	wantState(t, r.kernel, cluster(4))
	// What failed and what was left undone is no drift.
	if res := r.pass(cluster(4)); res != (ip.Result{}) || r.Drift() != [ip.Kinds]int{1} {
		t.Errorf("then %+v, in all %v", res, r.Drift())
	}
}

func TestABadPeerHarmsNoOther(t *testing.T) {
	bad := cluster(3).Routes[1]
	r := newRig(t, iptest.Faults{Op: func(op ip.Op) error {
		if op.Object == ip.Object(bad) {
			return syscall.EINVAL
		}
		return nil
	}})
	_, err := r.Reconcile(scope, desired(cluster(3)).Snapshot())
	if !ip.PeersOnly(err) || !errors.Is(err, syscall.EINVAL) || !strings.Contains(err.Error(), bad.String()) {
		t.Errorf("got %v", err)
	}
	want := cluster(3)
	want.Routes = append(want.Routes[:1], want.Routes[2:]...)
	wantState(t, r.kernel, want)
	r.kernel.Delete(cluster(3).Links[0])
	r.kernel.Delete(ip.Link{Name: "eth0"})
	_, err = r.Reconcile(scope, desired(cluster(3)).Snapshot())
	if ip.PeersOnly(err) || err == nil {
		t.Errorf("without the underlay: %v", err)
	}
	if text := err.Error(); strings.Count(text, "put ") != 1 {
		t.Errorf("one cause, many lines: %s", text)
	}
}

func TestContentionIsNamedAndSlowedDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, iptest.Faults{})
		r.pass(cluster(2))
		var err error
		down := cluster(1).Links[0]
		down.Up = false
		rounds := 0
		for ; err == nil && rounds < 50; rounds++ {
			time.Sleep(time.Second)
			r.kernel.Put(down)
			if !r.Observe(ip.Event{Object: down, By: "NetworkManager (pid 7)"}) {
				t.Fatal("no contention yet, and not woken")
			}
			_, err = r.Reconcile(scope, desired(cluster(2)).Snapshot())
		}
		if !errors.Is(err, ip.ErrContention) || !ip.PeersOnly(err) || rounds != 11 {
			t.Fatalf("after %d rounds: %v", rounds, err)
		}
		wantState(t, r.kernel, cluster(2))
		for _, want := range []string{"another program keeps changing", "by=\"NetworkManager (pid 7)\"", "times=11",
			"object=\"flannel.1 type vxlan"} {
			if strings.Count(r.log.String(), want) == 0 {
				t.Errorf("%q is not in the log:\n%s", want, r.log)
			}
		}
		if r.Observe(ip.Event{Object: down}) {
			t.Error("the contested object still wakes the daemon at once")
		}
		if route := cluster(2).Routes[0]; !r.Observe(ip.Event{Object: route, Deleted: true}) {
			t.Error("another object does not wake the daemon")
		}
		if _, err := r.Reconcile(scope, desired(cluster(2)).Snapshot()); !errors.Is(err, ip.ErrContention) {
			t.Errorf("a quiet pass ends the contention: %v", err)
		}
		time.Sleep(2 * time.Minute)
		r.pass(cluster(2))
		if !r.Observe(ip.Event{Object: down}) {
			t.Error("the contention is over, and the object does not wake the daemon")
		}
	})
}

// Many changes of different objects, as an operator at work makes them, are no contention.
func TestManyRepairsOfDifferentObjectsAreNoContention(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, iptest.Faults{})
		r.pass(cluster(30))
		for i := range 30 {
			r.kernel.Delete(cluster(30).Routes[i])
			r.Observe(ip.Event{})
			r.pass(cluster(30))
		}
		if got, want := fmt.Sprint(r.Drift()), "[0 0 0 0 30]"; got != want {
			t.Errorf("drift %s, want %s", got, want)
		}
	})
}
