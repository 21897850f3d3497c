package lab_test

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"flanneld/api"
	"flanneld/lab"
)

// TestPeersThatPodsTalkToAreProbedFirst has a host with hundreds of peers, of which one answers: that one by chance
// would be asked in one of a hundred rounds, and is asked in most while a pod talks to it.
func TestPeersThatPodsTalkToAreProbedFirst(t *testing.T) {
	t.Parallel()
	for _, backend := range []string{"vxlan", "host-gw", "udp"} {
		t.Run(backend, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t)
			// rounds take a second: most peers do not answer
			ctx, cancel := context.WithTimeout(context.Background(), 3*patience)
			defer cancel()
			c.ctx = ctx
			e := c.etcd(fmt.Sprintf(`{"Network":"10.5.0.0/16","SubnetMax":"10.5.19.0","Backend":{"Type":%q}}`, backend))
			for n := range 150 {
				kind := fmt.Sprintf(`"BackendType":%q,"BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:09:%02x"},`, backend, n)
				if backend == "udp" {
					kind = ""
				}
				c.ok(e.Put(c.ctx, fmt.Sprintf("subnets/10.5.%d.0-24", 100+n),
					fmt.Sprintf(`{"PublicIP":"198.18.9.%d",%s"ID":"absent%d"}`, n+1, kind, n)))
			}
			hosts := c.hosts(2)
			h := hosts[0]
			// The neighbour table notes traffic once in this time, half a minute otherwise.
			c.ok(h.Sysctl("net/ipv4/neigh/eth0/base_reachable_time_ms", "1000"))
			c.ok(h.Sysctl("net/ipv4/neigh/eth0/delay_first_probe_time", "1"))
			d := c.start(h, e, "-probe-interval", "200ms")
			quiet := c.start(hosts[1], e, "-probe-interval", "1h") // or it would be asked because it asks
			c.ok(lab.Ready(c.ctx, d, quiet))
			pods := c.pods(hosts...)
			c.reaches(pods[0].Namespace, pods[1], lab.PingOptions{})
			pings := must[*lab.Pings](t)(pods[0].Pings(pods[1].Addr(), lab.PingOptions{Interval: 50 * time.Millisecond}))
			defer pings.Stop()
			const rounds, each = 6, 3
			var answered int
			c.await(func() error {
				if answered = c.metric(d, `flannel_probes_total{result="answered"}`); answered < rounds*each {
					return fmt.Errorf("%d answers", answered)
				}
				return nil
			})
			// A round asks three that did not answer last time and three by chance.
			others := c.metric(d, `flannel_probes_total{result="lost"}`) + c.metric(d, `flannel_probes_total{result="refused"}`)
			if others > 40*answered {
				t.Errorf("the peer that a pod talks to has given %d answers, all others were asked %d times", answered, others)
			}
			t.Logf("%d answers, %d questions to others", answered, others)
		})
	}
}

// metric returns the value of one metric of a daemon; 0 if it is not there.
func (c *cluster) metric(d *lab.Daemon, name string) int {
	c.t.Helper()
	_, text, err := d.Get(c.ctx, "/metrics")
	c.ok(err)
	m := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(name) + ` (\d+)$`).FindStringSubmatch(text)
	if m == nil {
		return 0
	}
	return must[int](c.t)(strconv.Atoi(m[1]))
}

func TestAHostWithoutProbesIsSilentAndNotFailing(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	e := c.etcd(vxlanConfig)
	hosts := c.hosts(3)
	h := hosts[0]
	daemons := []*lab.Daemon{c.start(h, e, "-probe-interval", "200ms"), c.start(hosts[1], e, "-probe-port", "0"),
		c.start(hosts[2], e)}
	c.ok(lab.Ready(c.ctx, daemons...))
	c.await(func() error { // else its kernel could not answer that nobody listens
		if s := daemons[2].Status(); !strings.Contains(s, "2 peers") {
			return errors.New(s)
		}
		return nil
	})
	c.ok(daemons[2].Stop(c.ctx))
	c.await(func() error {
		p := ctlJSON[api.Status](c, h, "status").Probes
		if p == nil || p.Silent != 2 || p.Failing != 0 || p.SmallMTU != 0 {
			return fmt.Errorf("the status has the probes %+v, want two silent ones", p)
		}
		return nil
	})
	if out := c.ctlOK(h, "peers"); strings.Count(out, "packets arrive, its daemon does not answer probes") != 2 {
		t.Errorf("peers does not say so:\n%s", out)
	}
	if n := c.metric(daemons[0], `flannel_probe_peers{finding="silent"}`); n != 2 {
		t.Errorf("the metric says %d, want 2", n)
	}
	_, page, err := daemons[0].Get(c.ctx, "/")
	if c.ok(err); !strings.Contains(page, "packets arrive, its daemon does not answer probes") {
		t.Errorf("the page does not say so:\n%s", page)
	}
}

func TestAHostThatDoesNotForwardSaysSoOnce(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	h := c.host("host1")
	c.ok(h.Sysctl("net/ipv4/ip_forward", "0"))
	d := c.flanneld(h, c.etcd(vxlanConfig), "-iptables-resync", "1")
	c.await(func() error {
		if s := ctlJSON[api.Status](c, h, "status"); strings.Count(s.Reason, "net.ipv4.ip_forward is 0") != 1 {
			return fmt.Errorf("the status says %q", s.Reason)
		}
		return nil
	})
	if n := strings.Count(d.Log(), `msg="forwarding or masquerading is incomplete"`); n != 1 ||
		!strings.Contains(d.Log(), "-ip-forward") {
		t.Errorf("the log says it %d times:\n%s", n, d.Log())
	}
	c.ok(h.Sysctl("net/ipv4/ip_forward", "1"))
	c.await(func() error {
		if s := ctlJSON[api.Status](c, h, "status"); s.Reason != "" {
			return fmt.Errorf("the status says %q", s.Reason)
		}
		return nil
	})
}

func TestPeersAreLoggedOneByOneAtDebug(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	e := c.etcd(vxlanConfig)
	hosts := c.hosts(2)
	loud, quiet := c.start(hosts[0], e, "-v", "1"), c.start(hosts[1], e)
	c.ok(lab.Ready(c.ctx, loud, quiet))
	const key, first = "subnets/10.5.234.0-24", `{"PublicIP":"198.18.0.77","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:00:77"}}`
	c.ok(e.Put(c.ctx, key, first))
	c.logsLine(loud, `level=DEBUG msg=peer subnet=10.5.234.0/24 public=198.18.0.77 data=.*02:00:00:00:00:77.* new=true`)
	c.ok(e.Put(c.ctx, key, strings.ReplaceAll(first, "77", "78")))
	c.logsLine(loud, `level=DEBUG msg=peer subnet=10.5.234.0/24 public=198.18.0.78 data=.*02:00:00:00:00:78.* new=false`)
	c.ok(e.Delete(c.ctx, key))
	c.logsLine(loud, `level=DEBUG msg="peer removed" subnet=10.5.234.0/24 public=198.18.0.78`)
	if strings.Contains(quiet.Log(), "DEBUG") {
		t.Errorf("details without -v:\n%s", quiet.Log())
	}
}

// logsLine waits until a daemon has logged a line that matches an expression.
func (c *cluster) logsLine(d *lab.Daemon, line string) {
	c.t.Helper()
	re := regexp.MustCompile(line)
	c.await(func() error {
		if !re.MatchString(d.Log()) {
			return fmt.Errorf("no line %s in the log:\n%s", line, d.Log())
		}
		return nil
	})
}
