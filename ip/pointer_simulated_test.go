//go:build simulated

package ip

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"testing"
)

// Many hosts that put the same objects at the same time have each all of them, and the process has them once.
func TestSimulatedHostsShareObjects(t *testing.T) {
	var objects []Object
	for i := range 100 {
		dst := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 5, byte(i), 0}), 24)
		objects = append(objects, Route{Dst: dst, Link: "eth0"})
	}
	states := make([]Snapshot, 8)
	var hosts sync.WaitGroup
	for i := range states {
		hosts.Go(func() {
			mine := NewDesired()
			for _, j := range rand.Perm(len(objects)) {
				mine.Put(objects[j])
			}
			states[i] = mine.Snapshot()
		})
	}
	hosts.Wait()
	first := slices.Collect(states[0].Routes.objects.All())
	if len(first) != len(objects) {
		t.Errorf("a host has %d routes, want %d", len(first), len(objects))
	}
	for i, s := range states {
		if !slices.Equal(slices.Collect(s.Routes.objects.All()), first) { // compares pointers
			t.Errorf("host %d has routes of its own", i)
		}
	}
}
