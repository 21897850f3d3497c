package lab_test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"flanneld/api"
	"flanneld/lab"
)

// TestAStoreThatLostTwoOfThreeMembersIsRecoveredUnderTraffic is the promise of "flannelctl members recover": no lease
// changes, and the lost members are added anew, with their data and without.
func TestAStoreThatLostTwoOfThreeMembersIsRecoveredUnderTraffic(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	hosts := c.hosts(4)
	daemons := c.threeMembers(hosts)
	plain := must[*lab.Daemon](t)(hosts[3].Flanneld("-join", c.tokenOf(hosts[0])))
	c.ok(plain.Ready(c.ctx))
	pods := c.pods(hosts...)
	c.reaches(pods[0].Namespace, pods[3], lab.PingOptions{})
	c.reaches(pods[1].Namespace, pods[2], lab.PingOptions{})
	pings := slices.Concat(c.pinged(pods[0], pods[3]), c.pinged(pods[1], pods[2]))
	before := c.leasesOf(hosts[0])
	c.refused(hosts[0], 1, "with a majority of its members", "members", "recover")

	daemons[1].Kill()
	daemons[2].Kill()
	c.await(func() error { // the member that is left first gives up its leader
		if out, code := c.ctl(hosts[0], "members", "recover"); code != 0 {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
	c.voters(hosts[0], 1)
	c.wantState(daemons[0], api.StateReady, "")
	c.wantState(plain, api.StateReady, "")
	if got := c.leasesOf(hosts[0]); !maps.Equal(got, before) {
		t.Errorf("after the recovery there are the leases %v, before %v", got, before)
	}

	c.ok(os.RemoveAll(filepath.Join(hosts[1].StateDir(), "etcd")))
	for i, h := range hosts[1:3] {
		daemons[i+1] = c.member(h)
	}
	c.ok(lab.Ready(c.ctx, daemons...))
	c.voters(hosts[0], 3)
	c.nothingLost("the loss of two members and the recovery", pings)
	for _, h := range hosts[:3] {
		if got := c.leasesOf(h); !maps.Equal(got, before) {
			t.Errorf("with all members there are the leases %v, before %v", got, before)
		}
	}
}

// leasesOf returns whose all records are and when they were made, as a host sees them.
func (c *cluster) leasesOf(h *lab.Host) map[string]string {
	c.t.Helper()
	out := map[string]string{}
	for _, r := range ctlJSON[api.Leases](c, h, "leases").Records {
		out[r.Key] = fmt.Sprintf("host %s, made at revision %d", r.Identity, r.Created)
	}
	return out
}
