package ip_test

import (
	"math/rand/v2"
	"sync"
	"testing"

	"flanneld/ip"
)

// Many hosts that put the same objects at the same time have each all of them, and the process has them once.
func TestHostsOfOneProcessShareObjects(t *testing.T) {
	var shared ip.Shared
	state := cluster(20).Snapshot()
	var objects []ip.Object
	for _, op := range ip.Diff(ip.Snapshot{}, state) {
		objects = append(objects, op.Object)
	}
	var hosts sync.WaitGroup
	for range 8 {
		hosts.Go(func() {
			mine := ip.Host{Shared: &shared}.Desired()
			for _, i := range rand.Perm(len(objects)) {
				mine.Put(objects[i])
			}
			if ops := ip.Diff(mine.Snapshot(), state); len(ops) != 0 {
				t.Errorf("a host lacks or has too much: %v", ops)
			}
		})
	}
	hosts.Wait()
	if shared.Len() != len(objects) {
		t.Errorf("%d objects for all hosts, want %d", shared.Len(), len(objects))
	}
}

// Equal objects that two states have in different memory are no difference.
func TestEqualObjectsAreNoDifference(t *testing.T) {
	if ops := ip.Diff(cluster(100).Snapshot(), cluster(100).Snapshot()); len(ops) != 0 {
		t.Errorf("operations %v, want none", ops)
	}
}
