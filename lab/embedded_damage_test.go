package lab_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"flanneld/api"
	"flanneld/lab"
)

// A store that cannot run ends nothing: its host starts without it, says what to do, and the store is filled again once
// that is done.
func TestADamagedEmbeddedStoreLeavesItsHostDegradedUntilItsDataAreMovedAway(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	hosts := c.hosts(2)
	daemons, before := c.embedded(hosts)
	pods := c.pods(hosts...)
	c.reaches(pods[0].Namespace, pods[1], lab.PingOptions{})
	pings := c.pinged(pods[0], pods[1])

	c.ok(daemons[0].Stop(c.ctx))
	data := filepath.Join(hosts[0].StateDir(), "etcd")
	c.ok(os.WriteFile(filepath.Join(data, "member", "snap", "db"), make([]byte, 1<<16), 0o600))
	d := must[*lab.Daemon](t)(hosts[0].Flanneld("-etcd-embedded", "-etcd-embedded-listen",
		netip.AddrPortFrom(hosts[0].Addr, 2379).String(),
		"-network-config", vxlanConfig))
	c.ok(d.Ready(c.ctx))
	c.wantState(d, api.StateDegraded, "move "+data+" away")

	c.ok(os.Rename(data, data+".damaged"))
	for _, d := range []*lab.Daemon{d, daemons[1]} {
		c.wantState(d, api.StateReady, "")
	}
	c.nothingLost("a damaged store and a new one", pings)
	for i, h := range hosts {
		if got := c.subnets(h); got[0] != before[i][0] {
			t.Errorf("%s has %s, before %s", h.Name(), got, before[i])
		}
	}
}
