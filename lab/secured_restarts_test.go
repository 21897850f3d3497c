package lab_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"flanneld/api"
	"flanneld/lab"
	"flanneld/subnet"
)

// TestAHundredRestartsOfASecuredStoresHostsInRandomOrderLoseNothing restarts also the host of the store. A daemon that
// is killed may not have become ready since it was started.
// Slow: a hundred restarts.
func TestAHundredRestartsOfASecuredStoresHostsInRandomOrderLoseNothing(t *testing.T) {
	t.Parallel()
	restarts := 100
	if testing.Short() {
		restarts = 15
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	c := newCluster(t)
	hosts := c.hosts(3)
	daemons, args, before := c.secured(hosts)
	pods := c.pods(hosts...)
	c.reaches(pods[0].Namespace, pods[1], lab.PingOptions{})
	c.reaches(pods[1].Namespace, pods[2], lab.PingOptions{})
	pings := append(c.pinged(pods[0], pods[1]), c.pinged(pods[1], pods[2])...)
	c.saved(hosts)
	for range restarts {
		i := rnd.IntN(len(hosts))
		if rnd.IntN(3) == 0 {
			c.ok(daemons[i].Ready(c.ctx))
			c.ok(daemons[i].Stop(c.ctx))
		} else {
			daemons[i].Kill()
		}
		daemons[i] = must[*lab.Daemon](t)(hosts[i].Flanneld(args[i]...))
	}
	c.ok(lab.Ready(c.ctx, daemons...))
	for _, d := range daemons {
		c.wantState(d, api.StateReady, "")
	}
	c.nothingLost("restarts", pings)
	for i, h := range hosts {
		if got := c.subnets(h); !slices.Equal(got, before[i]) {
			t.Errorf("%s has %s, before the restarts %s", h.Name(), got, before[i])
		}
	}
	if n := len(ctlJSON[api.Leases](c, hosts[0], "leases").Records); n != len(hosts) {
		t.Errorf("%d records, want %d", n, len(hosts))
	}
}

// saved waits until hosts have saved the records of all of them: they are written within a second of a change.
func (c *cluster) saved(hosts []*lab.Host) {
	c.t.Helper()
	for _, h := range hosts {
		c.await(func() error {
			st, err := subnet.ReadState(h.StateDir(), h.SubnetFile())
			if err == nil && len(st.Memory.Records) < len(hosts) {
				err = fmt.Errorf("%s has saved %d records", h.Name(), len(st.Memory.Records))
			}
			return err
		})
	}
}
