package vxlan_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"flanneld/ip"
	"flanneld/ip/iptest"
	"flanneld/subnet"
)

// TestWhoFollowsThePeersHasWhatANewcomerHas changes peers at random, some of which have one MAC, and compares the kernel of a host that
// has seen all changes with that of one that sees the last peers only.
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
			peers := anyPeers(rnd)
			if rnd.IntN(20) == 0 {
				b.Observe(ip.Event{}) // the way to peers may have changed
			}
			set(t, b, self, peers...)
			fresh := newRig(t, iptest.Faults{})
			fresh.host.MACs = r.host.MACs
			set(t, fresh.backend(config), self, peers...)
			if diff := cmp.Diff(r.kernel.State().String(), fresh.kernel.State().String()); diff != "" {
				t.Fatalf("step %d, peers %v: kernel (-got +want):\n%s", step, peers, diff)
			}
		}
	}
}

// anyPeers returns leases of up to eight subnets of each family with few MACs, one of which is the host's own, on the link of the host and
// elsewhere.
func anyPeers(rnd *rand.Rand) []subnet.Lease {
	var out []subnet.Lease
	for i := range 8 {
		for _, prefix := range []string{fmt.Sprintf("10.5.%d.0/24", i), fmt.Sprintf("fd00:5:0:%d::/64", i)} {
			if rnd.IntN(3) == 0 {
				continue
			}
			public := []string{"192.0.2.%d", "198.51.100.%d"}[rnd.IntN(2)]
			out = append(out, lease(prefix, fmt.Sprintf(public, 10+rnd.IntN(4)), byte(1+rnd.IntN(6))))
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
		if said := strings.Count(r.log.String(), `msg="peer left out`); said != tt.said || strings.Contains(r.log.String(), `peer="10.5.35.0/24`) {
			t.Errorf("step %d: said %d times, want %d:\n%s", i, said, tt.said, r.log)
		}
	}
}
