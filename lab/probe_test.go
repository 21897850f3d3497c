package lab_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"flanneld/api"
	"flanneld/lab"
)

// probes returns what a host has found out about all its peers.
func (c *cluster) probes(h *lab.Host) (map[string]api.Probe, error) {
	peers := ctlJSON[[]api.Peer](c, h, "peers")
	out := map[string]api.Probe{}
	for _, p := range peers {
		if p.Probe == nil {
			return nil, fmt.Errorf("%s has not been probed", p.Subnet)
		}
		out[p.PublicIP.String()] = *p.Probe
	}
	return out, nil
}

func TestProbesMeasureThePathToEveryPeer(t *testing.T) {
	t.Parallel()
	// What the deaf host does not hear: the tunnel, or where there is none the probes themselves.
	for backend, unheard := range map[string]string{"vxlan": "udp dport 8472", "udp": "udp dport 8285",
		"host-gw": "udp dport 8473"} {
		t.Run(backend, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t)
			e := c.etcd(fmt.Sprintf(`{"Network":"10.5.0.0/16","Backend":{"Type":%q}}`, backend))
			hosts := c.hosts(3)
			daemons := c.startAll(hosts, e, "-probe-interval", "200ms")
			mtu := must[int](t)(envMTU(hosts[0]))
			for _, h := range hosts {
				c.await(func() error {
					found, err := c.probes(h)
					if err == nil && len(found) != 2 {
						err = fmt.Errorf("%d peers, want 2", len(found))
					}
					for a, p := range found {
						if p.Lost != 0 || p.RoundTrip == 0 || p.PathMTU != mtu || p.Version != "lab" {
							err = errors.Join(err, fmt.Errorf("the probe of %s is %+v", a, p))
						}
					}
					return err
				})
			}
			c.pagesAreServed(daemons[0])
			c.oneWay(hosts[0], hosts[1], unheard)
		})
	}
}

func envMTU(h *lab.Host) (int, error) {
	e, err := h.Env()
	return e.MTU, err
}

// pagesAreServed looks at what the health port shows of the probes.
func (c *cluster) pagesAreServed(d *lab.Daemon) {
	c.t.Helper()
	for page, wants := range map[string][]string{
		"/metrics": {"flannel_ready 1\n", "flannel_peers 2\n", "flannel_probe_peers{finding=\"all\"} 2\n",
			"flannel_probe_peers{finding=\"failing\"} 0\n",
			"flannel_probe_round_trip_seconds_count ", "flannel_store_reachable 1\n",
			"flannel_kernel_operations_total{kind=\"route\",operation=\"put\",result=\"ok\"} "},
		"/": {"ready</span>", "2 peers ok</span>", "10.5.0.0/16"},
	} {
		c.await(func() error { // on a busy machine a probe may be late at any moment
			code, text, err := d.Get(c.ctx, page)
			for _, want := range wants {
				if err == nil && (code != 200 || !strings.Contains(text, want)) {
					err = fmt.Errorf("%s is %d and has no %q:\n%s", page, code, want, text)
				}
			}
			return err
		})
	}
}

// oneWay filters the tunnel in one direction, which that host's daemon must notice, and nobody may take for more.
func (c *cluster) oneWay(h, deaf *lab.Host, unheard string) {
	c.ok(deaf.Run("nft add table inet deaf", "nft add chain inet deaf in { type filter hook input priority 0 ; }",
		fmt.Sprintf("nft add rule inet deaf in ip saddr %s %s drop", h.Addr, unheard)))
	c.await(func() error {
		found, err := c.probes(h)
		if err != nil {
			return err
		}
		if p := found[deaf.Addr.String()]; !p.OneWay || p.Lost != p.Sent {
			return fmt.Errorf("the probe of the deaf host is %+v", p)
		}
		return nil
	})
	c.await(func() error {
		if s := ctlJSON[api.Status](c, h, "status"); s.Probes == nil || s.Probes.OneWay != 1 || s.Probes.Failing != 1 {
			return fmt.Errorf("the status has the probes %+v", s.Probes)
		}
		return nil
	})
	if out, code := c.ctl(h, "peers"); code != 3 ||
		!strings.Contains(out, "one way: its probes arrive, ours get no answer") {
		c.t.Errorf("peers exits with %d and does not say so:\n%s", code, out)
	}
}
