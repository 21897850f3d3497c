package lab_test

import (
	"net/netip"
	"path/filepath"
	"slices"
	"testing"

	"flanneld/lab"
)

// embedded starts a cluster whose first host holds the store.
func (c *cluster) embedded(hosts []*lab.Host) (daemons []*lab.Daemon, subnets [][]netip.Prefix) {
	c.t.Helper()
	listen := netip.AddrPortFrom(hosts[0].Addr, 2379).String()
	for i, h := range hosts {
		args := []string{"-etcd-endpoints", "http://" + listen}
		if i == 0 {
			args = []string{"-etcd-embedded", "-etcd-embedded-insecure", "-etcd-embedded-listen", listen, "-network-config",
				vxlanConfig}
		}
		daemons = append(daemons, must[*lab.Daemon](c.t)(h.Flanneld(args...)))
	}
	c.ok(lab.Ready(c.ctx, daemons...))
	for _, h := range hosts {
		subnets = append(subnets, c.subnets(h))
	}
	return daemons, subnets
}

// moved restarts the daemons, the first host's last, on another store, and looks at subnets and traffic.
func (c *cluster) moved(hosts []*lab.Host, daemons []*lab.Daemon, before [][]netip.Prefix, e *lab.Etcd) {
	c.t.Helper()
	pods := c.pods(hosts...)
	pings := c.pinged(pods[0], pods[1])
	for i := len(hosts) - 1; i >= 0; i-- {
		c.ok(daemons[i].Stop(c.ctx))
		daemons[i] = c.flanneld(hosts[i], e)
	}
	c.nothingLost("a move to another store", pings)
	for i, h := range hosts {
		if got := c.subnets(h); !slices.Equal(got, before[i]) {
			c.t.Errorf("%s has %s, before the move %s", h.Name(), got, before[i])
		}
	}
	if n := len(must[map[string]string](c.t)(e.Records(c.ctx))); n != len(hosts) {
		c.t.Errorf("%d records in the new store, want %d", n, len(hosts))
	}
}

func TestAMoveFromTheEmbeddedStoreByConfigurationAloneKeepsEverySubnet(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	hosts := c.hosts(2)
	daemons, before := c.embedded(hosts)
	c.moved(hosts, daemons, before, c.etcd(vxlanConfig))
}

func TestAMoveFromTheEmbeddedStoreBySnapshotKeepsEverySubnet(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	hosts := c.hosts(2)
	daemons, before := c.embedded(hosts)
	file := filepath.Join(c.Dir(), "flannel.snapshot")
	c.ok(hosts[1].Snapshot(c.ctx, netip.AddrPortFrom(hosts[0].Addr, 2379).String(), file))
	e := c.etcd("")
	c.ok(e.Restore(c.ctx, file, lab.RestoreOptions{BumpRevision: 1_000_000}))
	c.moved(hosts, daemons, before, e)
}
