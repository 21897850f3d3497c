package lab_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"flanneld/lab"
)

// migratesIn runs the command with a short time for each wait, and returns what it prints and its exit code.
func (c *cluster) migratesIn(h *lab.Host, timeout string, args ...string) (string, int) {
	c.t.Helper()
	return c.ctl(h, append([]string{"network", "migrate", "--pause", "1s", "--timeout", timeout}, args...)...)
}

const toHostGW = `{"Type":"host-gw"}`

// Slow: a move that is given up, one without a host, and one without the store, each with its waits.
func TestAMoveIsGivenUpGoesOnAndWaitsForWhoIsAway(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	e := c.etcd(dualConfig)
	hosts := c.hosts(3)
	daemons := c.startAll(hosts, e)
	pods := must[[]*lab.Pod](t)(lab.Pods(hosts...))
	pings := c.meshed(pods)

	// A host without a daemon holds up the first step, and is named.
	c.ok(daemons[2].Stop(c.ctx))
	out, code := c.migratesIn(hosts[0], "3s", "--to", toHostGW)
	if code != 1 || !strings.Contains(out, "do not offer") || !strings.Contains(out, hosts[2].Addr.String()) {
		t.Errorf("without a host: exit code %d\n%s", code, out)
	}
	c.refused(hosts[1], 1, "on its way to", "network", "migrate", "--to", `{"Type":"udp"}`)
	c.ctlOK(hosts[1], "network", "migrate", "--abort", "--pause", "1s", "--skip", hosts[2].Addr.String())
	c.await(func() error { return c.alone(hosts[0], `{"Type":"vxlan"}`) })
	c.nothingLost("a move that was given up", pings)

	// It is left behind, and follows when it comes back: its daemon starts with what it remembers.
	c.ctlOK(hosts[0], "network", "migrate", "--to", toHostGW, "--pause", "1s", "--skip", hosts[2].Addr.String())
	c.flanneld(hosts[2], e)
	for i := range pods {
		c.reaches(pods[i].Namespace, pods[(i+1)%len(pods)], lab.PingOptions{})
	}
	c.await(func() error { return c.alone(hosts[2], toHostGW) })

	// Without the store the command waits, and traffic flows.
	pings = c.meshed(pods)
	e.Kill()
	c.await(func() error { return c.unreachable(daemons[0]) })
	out, code = c.migratesIn(hosts[0], "3s", "--to", `{"Type":"vxlan"}`)
	if code != 1 {
		t.Errorf("without the store: exit code %d\n%s", code, out)
	}
	c.ok(e.Start(c.ctx))
	c.ctlOK(hosts[1], "network", "migrate", "--to", `{"Type":"vxlan"}`, "--pause", "1s", "--timeout", "60s")
	c.nothingLost("a move after the store was away", pings)
}

func (c *cluster) unreachable(d *lab.Daemon) error {
	if !strings.Contains(d.Log(), "store unreachable") {
		return fmt.Errorf("the store is not missed yet")
	}
	return nil
}

// putLeased writes a record with a store lease, as a host does.
func (c *cluster) putLeased(e *lab.Etcd, key, value string) {
	c.t.Helper()
	client := must[*clientv3.Client](c.t)(e.Client())
	defer client.Close()
	lease := must[*clientv3.LeaseGrantResponse](c.t)(client.Grant(c.ctx, 3600))
	must[*clientv3.PutResponse](c.t)(client.Put(c.ctx, lab.Prefix+"/"+key, value, clientv3.WithLease(lease.ID)))
}

func TestAMoveIsRefusedWithTheHostsThatCannotFollow(t *testing.T) {
	t.Parallel()
	const foreign = `{"PublicIP":"198.18.200.200","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:44"}`
	c := newCluster(t)
	e := c.etcd(vxlanConfig)
	h := c.host("host1")
	c.flanneld(h, e)
	c.refused(h, 2, "either --to or --abort", "network", "migrate")
	c.refused(h, 2, "Type is missing", "network", "migrate", "--to", `{}`)
	c.refused(h, 1, "another VNI", "network", "migrate", "--to", `{"Type":"vxlan","Port":4789}`)
	c.refused(h, 1, "carries no packets", "network", "migrate", "--to", `{"Type":"alloc"}`)
	c.putLeased(e, "subnets/10.5.77.0-24", foreign+"}")
	c.refused(h, 1, "run flannel, which has one backend at a time", "network", "migrate", "--to", toHostGW)
	if out := c.ctlOK(h, "network", "get"); strings.Contains(out, "Next") {
		t.Errorf("what was refused is written:\n%s", out)
	}
	// One of an older version says who it is, and offers nothing.
	c.putLeased(e, "subnets/10.5.77.0-24", foreign+`,"ID":"old","Host":"old-host"}`)
	out, code := c.migratesIn(h, "2s", "--to", toHostGW)
	if code != 1 || !strings.Contains(out, "old-host (198.18.200.200)") {
		t.Errorf("with an older version: exit code %d\n%s", code, out)
	}
	c.ctlOK(h, "network", "migrate", "--to", toHostGW, "--pause", "1s", "--skip", "old-host", "--timeout",
		time.Minute.String())
}
