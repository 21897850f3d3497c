package vxlan_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"flanneld/ip"
	"flanneld/ip/iptest"
	"flanneld/subnet"
)

// TestWhoFollowsThePeersHasWhatANewcomerHas changes peers at random, some of which have one MAC, and compares the
// kernel of a host that has seen all changes with that of one that sees the last peers only.
func TestWhoFollowsThePeersHasWhatANewcomerHas(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	for _, config := range []string{dual, direct} {
		self := own("10.5.34.0/24", "fd00:5:0:22::/64")
		if config == direct {
			self = self[:1]
		}
		r := newRig(t, iptest.Faults{})
		r.host.MACs["flannel.1"] = ip.MAC{2, 0, 0, 0, 1, 1} // some peers have it too
		b := r.backend(config)
		for step := range 300 {
			peers := subnet.PeersOfEntries(anyPeers(rnd)...)
			if rnd.IntN(20) == 0 {
				b.Observe(ip.Event{}) // the way to peers may have changed
			}
			setPeers(t, b, self, peers)
			fresh := newRig(t, iptest.Faults{})
			fresh.host.MACs = r.host.MACs
			setPeers(t, fresh.backend(config), self, peers)
			if diff := cmp.Diff(r.kernel.State().String(), fresh.kernel.State().String()); diff != "" {
				t.Fatalf("step %d, peers %v: kernel (-got +want):\n%s", step, slices.Collect(peers.All()), diff)
			}
		}
	}
}

// anyPeers returns records of up to eight subnets of each family with few MACs, one of which is the host's own, and few
// ages, on the link of the host and elsewhere.
func anyPeers(rnd *rand.Rand) []*subnet.Entry {
	var out []*subnet.Entry
	for i := range 8 {
		for _, prefix := range []string{fmt.Sprintf("10.5.%d.0/24", i), fmt.Sprintf("fd00:5:0:%d::/64", i)} {
			if rnd.IntN(3) == 0 {
				continue
			}
			public := []string{"192.0.2.%d", "198.51.100.%d"}[rnd.IntN(2)]
			out = append(out, entry(lease(prefix, fmt.Sprintf(public, 10+rnd.IntN(4)), byte(1+rnd.IntN(6))), 1+rnd.Int64N(3)))
		}
	}
	return out
}

func TestAPeerThatIsLeftOutIsNamedOnceEachTime(t *testing.T) {
	r := newRig(t, iptest.Faults{})
	b := r.backend(plain)
	first, second := lease("10.5.35.0/24", "192.0.2.2", 2), lease("10.5.36.0/24", "192.0.2.3", 2)
	for i, tt := range []struct {
		peers []subnet.Lease
		said  int
	}{
		{[]subnet.Lease{first}, 0},
		{[]subnet.Lease{first, second}, 1},
		{[]subnet.Lease{first, second}, 1},
		{[]subnet.Lease{second}, 1},
		{[]subnet.Lease{first, second}, 2},
	} {
		set(t, b, own("10.5.34.0/24"), tt.peers...)
		if said := strings.Count(r.log.String(), `msg="peer skipped`); said != tt.said ||
			strings.Contains(r.log.String(), `peer="10.5.35.0/24`) {
			t.Errorf("step %d: said %d times, want %d:\n%s", i, said, tt.said, r.log)
		}
	}
}

// entry is the record of a lease, created at a revision.
func entry(l subnet.Lease, created int64) *subnet.Entry {
	return &subnet.Entry{Key: l.Subnet.String(), Created: created, Record: subnet.Record{Leases: []subnet.Lease{l}}}
}

// TestOfTwoRecordsWithOneMACTheOlderCounts has a copy of a machine join, which gets a lower subnet and then a higher
// one.
func TestOfTwoRecordsWithOneMACTheOlderCounts(t *testing.T) {
	old := lease("10.5.36.0/24", "192.0.2.3", 2)
	for _, prefix := range []string{"10.5.35.0/24", "10.5.37.0/24"} {
		r := newRig(t, iptest.Faults{})
		b, young := r.backend(plain), lease(prefix, "192.0.2.2", 2)
		for _, created := range []int64{9, 3} { // again in the place of the one that was deleted
			setPeers(t, b, own("10.5.34.0/24"), subnet.PeersOfEntries(entry(young, created)))
			setPeers(t, b, own("10.5.34.0/24"), subnet.PeersOfEntries(entry(old, 5), entry(young, created)))
			first, second := old, young
			if created < 5 {
				first, second = young, old
			}
			got := b.Skipped()
			if len(got) != 1 || !strings.Contains(got[second.Subnet], "is that of "+first.Subnet.String()) {
				t.Errorf("%s of revision %d: left out: %v", prefix, created, got)
			}
			if s := r.kernel.State().String(); !strings.Contains(s, "dst "+first.PublicIP.String()) ||
				strings.Contains(s, "route "+second.Subnet.String()) {
				t.Errorf("%s of revision %d:\n%s", prefix, created, s)
			}
		}
	}
}

// TestAnMTUThatIsTooSmallForIPv6LeavesIPv4 has the underlay shrink and grow.
func TestAnMTUThatIsTooSmallForIPv6LeavesIPv4(t *testing.T) {
	r := newRig(t, iptest.Faults{})
	b := r.backend(dual)
	peers := []subnet.Lease{lease("10.5.35.0/24", "192.0.2.2", 2), lease("fd00:5:0:23::/64", "2001:db8::2", 2)}
	for _, tt := range []struct {
		underlay, mtu int
		want          string // problem
	}{
		{1350, 1280, ""},
		{1349, 1299, "IPv6 is not carried: it needs an MTU of 1350, and that of the interface eth0 is 1349"},
		{1280, 1230, "IPv6 is not carried: it needs an MTU of 1350, and that of the interface eth0 is 1280"},
		{1500, 1430, ""},
	} {
		r.underlay.MTU = tt.underlay
		set(t, b, own("10.5.34.0/24", "fd00:5:0:22::/64"), peers...)
		if b.MTU() != tt.mtu {
			t.Errorf("%d: MTU %d, want %d", tt.underlay, b.MTU(), tt.mtu)
		}
		if got := strings.Join(b.Problems(), "; "); got != tt.want {
			t.Errorf("%d: %q, want %q", tt.underlay, got, tt.want)
		}
		state, carried := r.kernel.State().String(), tt.want == ""
		if !strings.Contains(state, "route 10.5.35.0/24") || strings.Contains(state, "flannel-v6.1") != carried {
			t.Errorf("%d:\n%s", tt.underlay, state)
		}
		if got := b.Skipped(); (len(got) == 0) != carried || (got[peers[1].Subnet] == "") != carried {
			t.Errorf("%d: left out: %v", tt.underlay, got)
		}
	}
}

func TestAnIPv6NetworkWithAnMTUThatIsTooSmallSaysWhatItNeeds(t *testing.T) {
	r := newRig(t, iptest.Faults{})
	b := r.backend(`{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00:5::/48","Backend":{"Type":"vxlan","MTU":1300}}`)
	err := b.Set(own("fd00:5:0:22::/64"), subnet.Peers{})
	if err == nil || err.Error() != "IPv6 is not carried: it needs an MTU of 1350, and that of the option MTU is 1300" {
		t.Errorf("got %v", err)
	}
}
