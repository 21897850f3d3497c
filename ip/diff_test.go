package ip_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"flanneld/ip"
	"flanneld/ip/iptest"
)

func TestDiff(t *testing.T) {
	for _, tt := range []struct {
		name       string
		have, want func(*ip.State) // changes of the state for one peer
		ops        []string
	}{
		{name: "nothing to do"},
		{name: "everything is put in the order of the kinds", have: func(s *ip.State) { *s = ip.State{} }, ops: []string{
			"put link flannel.1", "put addr 10.0.0.0/32", "put fdb 02:01:00:00:00:01", "put neigh 10.0.1.0",
			"put route 10.0.1.0/24"}},
		{name: "everything is deleted in the reverse order", want: func(s *ip.State) { *s = ip.State{} }, ops: []string{
			"delete route 10.0.1.0/24", "delete neigh 10.0.1.0", "delete fdb 02:01:00:00:00:01", "delete addr 10.0.0.0/32",
			"delete link flannel.1"}},
		{name: "a route is replaced in place", want: func(s *ip.State) { s.Routes[0].Via = netip.MustParseAddr("10.0.1.9") },
			ops: []string{"put route 10.0.1.0/24 via 10.0.1.9"}},
		{name: "a route gets an MTU in place", want: func(s *ip.State) { s.Routes[0].MTU = 1400 },
			ops: []string{"put route 10.0.1.0/24 via 10.0.1.0 dev flannel.1 onlink mtu 1400"}},
		{name: "a route of another protocol is taken over", have: func(s *ip.State) { s.Routes[0].Protocol = 3 },
			ops: []string{"put route 10.0.1.0/24 via 10.0.1.0 dev flannel.1 onlink"}},
		{name: "another metric is another route", want: func(s *ip.State) { s.Routes[0].Metric = 7 },
			ops: []string{"put route 10.0.1.0/24 via 10.0.1.0 dev flannel.1 onlink metric 7", "delete route 10.0.1.0/24"}},
		{name: "what a dump lists twice is not deleted", have: func(s *ip.State) {
			s.FDB, s.Neighs, s.Routes = append(s.FDB, s.FDB...), append(s.Neighs, s.Neighs...), append(s.Routes, s.Routes...)
		}},
		{name: "what a dump lists twice in two forms is put once", have: func(s *ip.State) {
			s.Neighs = append(s.Neighs, s.Neighs[0])
			s.Neighs[1].MAC[0] = 4
		}, want: func(s *ip.State) { s.Neighs[0].MAC[0] = 6 }, ops: []string{"put neigh 10.0.1.0 lladdr 06:01"}},
		{name: "puts come before deletes",
			want: func(s *ip.State) { s.Addrs[0].Prefix = netip.MustParsePrefix("10.0.5.0/32") },
			ops:  []string{"put addr 10.0.5.0/32", "delete addr 10.0.0.0/32"}},
		{name: "a device is changed in place", want: func(s *ip.State) { s.Links[0].MTU = 1400 },
			ops: []string{"put link flannel.1"}},
		{name: "with another hardware address the kernel forgets the neighbours",
			want: func(s *ip.State) { s.Links[0].MAC[5] = 9 },
			ops:  []string{"put link flannel.1", "put neigh 10.0.1.0"}},
		{name: "a device with another VNI is made anew, and all on it", have: func(s *ip.State) { s.Links[0].VXLAN.VNI = 7 },
			ops: []string{
				"delete link flannel.1", "put link flannel.1", "put addr 10.0.0.0/32", "put fdb 02:01:00:00:00:01",
				"put neigh 10.0.1.0", "put route 10.0.1.0/24"}},
		{name: "a device of another type is made anew",
			have: func(s *ip.State) { *s = ip.State{Links: []ip.Link{{Name: "flannel.1", Type: "bridge"}}} }, ops: []string{
				"delete link flannel.1", "put link flannel.1", "put addr 10.0.0.0/32", "put fdb 02:01:00:00:00:01",
				"put neigh 10.0.1.0", "put route 10.0.1.0/24"}},
		{name: "a route elsewhere is not touched when a device is made anew", have: func(s *ip.State) {
			s.Links[0].VXLAN.Port = 4789
			s.Routes[0] = ip.Route{Dst: s.Routes[0].Dst, Blackhole: true, Protocol: ip.Protocol}
		}, want: func(s *ip.State) {
			s.Routes[0] = ip.Route{Dst: s.Routes[0].Dst, Blackhole: true, Protocol: ip.Protocol}
		}, ops: []string{
			"delete link flannel.1", "put link flannel.1", "put addr 10.0.0.0/32", "put fdb 02:01:00:00:00:01",
			"put neigh 10.0.1.0"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			have, want := cluster(1), cluster(1)
			if tt.have != nil {
				tt.have(&have)
			}
			if tt.want != nil {
				tt.want(&want)
			}
			ops := ip.Diff(have.Snapshot(), want.Snapshot())
			ok := len(ops) == len(tt.ops)
			for i := range min(len(ops), len(tt.ops)) {
				ok = ok && strings.HasPrefix(ops[i].String(), tt.ops[i])
			}
			if !ok {
				t.Errorf("got %v\nwant %v", ops, tt.ops)
			}
		})
	}
}

// Whatever two states are, the difference turns one into the other, and there is none left.
func TestDiffTurnsOneStateIntoTheOther(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	for range 300 {
		k := iptest.NewKernel(iptest.Faults{})
		k.Underlay("eth0", "192.0.2.1/24")
		have, want := anyState(rnd), anyState(rnd)
		for _, next := range []ip.State{have, want} {
			now, err := k.Dump(scope)
			if err != nil {
				t.Fatal(err)
			}
			if err := k.Apply(ip.Diff(now.Snapshot(), next.Snapshot())); err != nil {
				t.Fatal(err)
			}
		}
		wantState(t, k, want)
		got, _ := k.Dump(scope)
		if ops := ip.Diff(got.Snapshot(), want.Snapshot()); len(ops) != 0 {
			t.Fatalf("left over: %v", ops)
		}
	}
}

// What is known already is only shared: the same objects come out, those of one key in their order.
func TestASnapshotIsTheSameWhateverIsKnown(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	for range 300 {
		found, twice, known := anyState(rnd), anyState(rnd), anyState(rnd).Snapshot()
		found.FDB, found.Neighs, found.Routes = append(found.FDB, twice.FDB...), append(found.Neighs, twice.Neighs...),
			append(found.Routes, twice.Routes...)
		beside, alone := found.SnapshotBeside(known), found.Snapshot()
		if diff := cmp.Diff(textOf(beside), textOf(alone)); diff != "" {
			t.Fatalf("snapshot (-got +want):\n%s", diff)
		}
		if ops := ip.Diff(beside, alone); len(ops) != 0 {
			t.Fatalf("beside others they differ: %v", ops)
		}
	}
}

// textOf returns the objects in the order in which a snapshot has them.
func textOf(s ip.Snapshot) string {
	return fmt.Sprint(slices.Collect(s.Links.All()), slices.Collect(s.Addrs.All()), slices.Collect(s.FDB.All()),
		slices.Collect(s.Neighs.All()), slices.Collect(s.Routes.All()))
}

// anyState returns a state of a few peers, of which some are odd.
func anyState(rnd *rand.Rand) ip.State {
	s := cluster(rnd.IntN(6))
	if rnd.IntN(3) == 0 {
		s.Links[0].VXLAN.VNI = 2
	}
	if rnd.IntN(3) == 0 {
		s.Links[0].MAC[4] = byte(rnd.IntN(3))
	}
	for i := range s.Routes {
		if rnd.IntN(3) == 0 {
			s.FDB[i].Dst, s.Neighs[i].MAC[5] = netip.MustParseAddr(fmt.Sprintf("192.0.2.%d", rnd.IntN(9))), 0xaa
			s.Routes[i].Via, s.Routes[i].Metric = netip.MustParseAddr("10.0.9.9"), 0
		}
	}
	return s
}

func TestStateText(t *testing.T) {
	s := cluster(1)
	s.Routes = append(s.Routes,
		ip.Route{Dst: netip.MustParsePrefix("10.0.0.0/24"), Blackhole: true, Metric: ip.BlackholeMetric,
			Protocol: ip.Protocol},
		ip.Route{Dst: netip.MustParsePrefix("10.0.7.0/24"), Via: netip.MustParseAddr("192.0.2.7"), Link: "eth0", Odd: true,
			Protocol: 3})
	s.FDB[0].Odd = true
	want := `link flannel.1 type vxlan mac 02:00:00:00:00:01 mtu 1450 up vni 1 port 8472 local 192.0.2.1 dev eth0
addr 10.0.0.0/32 dev flannel.1
fdb 02:01:00:00:00:01 dst 192.0.0.1 dev flannel.1 odd
neigh 10.0.1.0 lladdr 02:01:00:00:00:01 dev flannel.1
route blackhole 10.0.0.0/24 metric 4294967295
route 10.0.1.0/24 via 10.0.1.0 dev flannel.1 onlink
route 10.0.7.0/24 via 192.0.2.7 dev eth0 odd proto 3
`
	if diff := cmp.Diff(s.String(), want); diff != "" {
		t.Errorf("state (-got +want):\n%s", diff)
	}
}

func TestScopeOwns(t *testing.T) {
	ours := ip.Route{Dst: netip.MustParsePrefix("10.0.1.0/24"), Via: netip.MustParseAddr("10.0.1.0"), Link: "flannel.1",
		Onlink: true, Protocol: ip.Protocol}
	for _, tt := range []struct {
		name   string
		change func(*ip.Route)
		boot   bool // BootGateways
		want   bool
	}{
		{"ours", func(*ip.Route) {}, false, true},
		{"ours on another device", func(r *ip.Route) { r.Link = "eth0" }, false, true},
		{"outside the network", func(r *ip.Route) { r.Dst = netip.MustParsePrefix("172.16.0.0/24") }, false, false},
		{"wider than the network", func(r *ip.Route) { r.Dst = netip.MustParsePrefix("0.0.0.0/0") }, false, false},
		{"of another protocol on our device", func(r *ip.Route) { r.Protocol = 3 }, false, true},
		{"of another protocol on another device", func(r *ip.Route) { r.Protocol, r.Link = 3, "eth0" }, false, false},
		{"of the kernel on our device", func(r *ip.Route) { r.Protocol = 2 }, false, false},
		{"of router advertisements on our device", func(r *ip.Route) { r.Protocol = 9 }, false, false},
		{"left by flannel's host-gw", func(r *ip.Route) { r.Protocol, r.Link = 3, "eth0" }, true, true},
		{"set by hand without a next hop", func(r *ip.Route) { r.Protocol, r.Link, r.Via = 3, "eth0", netip.Addr{} }, true,
			false},
		{"set by an administrator's tool", func(r *ip.Route) { r.Protocol, r.Link = 4, "eth0" }, true, false},
		{"of another metric", func(r *ip.Route) { r.Metric = 100 }, true, false},
		{"our blackhole", func(r *ip.Route) {
			*r = ip.Route{Dst: r.Dst, Blackhole: true, Metric: ip.BlackholeMetric, Protocol: ip.Protocol}
		}, false, true},
		{"another's blackhole", func(r *ip.Route) {
			*r = ip.Route{Dst: r.Dst, Blackhole: true, Metric: ip.BlackholeMetric,
				Protocol: 4}
		}, false, false},
	} {
		r := ours
		tt.change(&r)
		s := ip.Scope{Links: scope.Links, Networks: scope.Networks, BootGateways: tt.boot}
		if got := s.Owns(r); got != tt.want {
			t.Errorf("%s: %t, want %t", tt.name, got, tt.want)
		}
	}
}

func TestManyFailuresAreOneShortLine(t *testing.T) {
	var errs ip.OpErrors
	for _, r := range cluster(10_000).Routes {
		errs = append(errs, &ip.OpError{Op: ip.Op{Object: r}, Err: fmt.Errorf("no way")})
	}
	if got := errs.Error(); len(got) > 400 || !strings.HasSuffix(got, "; and 9997 more") {
		t.Errorf("got %.500s", got)
	}
}

// Equal objects that two states have in different memory are no difference.
func TestEqualObjectsAreNoDifference(t *testing.T) {
	if ops := ip.Diff(cluster(100).Snapshot(), cluster(100).Snapshot()); len(ops) != 0 {
		t.Errorf("operations %v, want none", ops)
	}
}
