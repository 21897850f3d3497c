package lab_test

import (
	"fmt"
	"strings"
	"testing"

	"flanneld/lab"
)

// etcd's grpc-proxy makes one watch of many. It leaves the identity of the cluster out of its answers, which must not
// look like another store.
func TestHostsWatchThroughEtcdsProxy(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	e := c.etcd(vxlanConfig)
	p := c.host("proxy")
	proxy := must[*lab.Process](t)(p.Start("proxy", binaries.Etcd, "grpc-proxy", "start", "--endpoints", e.URL(),
		"--listen-addr", p.Addr.String()+":23790"))
	t.Cleanup(proxy.Kill)
	url := fmt.Sprintf("http://%s:23790", p.Addr)
	hosts := c.hosts(3)
	var daemons []*lab.Daemon
	for _, h := range hosts {
		d := must[*lab.Daemon](t)(h.Flanneld("-etcd-endpoints", url))
		c.ok(d.Ready(c.ctx))
		daemons = append(daemons, d)
	}
	pods := c.pods(hosts...)
	for i, from := range pods {
		c.reaches(from.Namespace, pods[(i+1)%len(pods)], lab.PingOptions{})
	}
	for _, d := range daemons {
		if n := strings.Count(d.Log(), "watch on the store ended"); n != 0 {
			t.Errorf("the watch ended %d times:\n%s", n, d.Log())
		}
	}
}
