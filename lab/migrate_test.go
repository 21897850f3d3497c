package lab_test

import (
	"fmt"
	"strings"
	"testing"

	"flanneld/lab"
)

// migrates moves a network to a backend from a host.
func (c *cluster) migrates(h *lab.Host, to string) {
	c.t.Helper()
	out := c.ctlOK(h, "network", "migrate", "--to", to, "--pause", "2s", "--timeout", "1m")
	c.t.Logf("%s\n%s", to, out)
}

// meshed has a pod of each host ping those of all others.
func (c *cluster) meshed(pods []*lab.Pod) (all []*lab.Pings) {
	c.t.Helper()
	for i, from := range pods {
		for j, to := range pods {
			if i != j {
				all = append(all, c.pinged(from, to)...)
			}
		}
	}
	return all
}

// TestANetworkMovesFromBackendToBackendWithoutLosingAPacket also keeps TCP connections, whose packets are full: the MTU
// grows and shrinks under them.
//
// Slow: five moves, each of which waits several times until all hosts have followed.
func TestANetworkMovesFromBackendToBackendWithoutLosingAPacket(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	e := c.etcd(dualConfig)
	hosts := c.hosts(3)
	daemons := c.startAll(hosts, e)
	pods := must[[]*lab.Pod](t)(lab.Pods(hosts...))
	var talks []*talk
	for _, a := range pods[1].Addrs {
		talks = append(talks, c.talk(pods[0].Namespace, pods[1].Namespace, a))
	}
	for i, to := range []string{
		`{"Type":"host-gw"}`, `{"Type":"udp"}`, `{"Type":"wireguard"}`, `{"Type":"vxlan"}`, `{"Type":"vxlan","VNI":2}`,
		`{"Type":"vxlan","VNI":2,"MTU":1400}`,
	} {
		pings := c.meshed(pods)
		c.migrates(hosts[i%len(hosts)], to)
		c.nothingLost("the move to "+to, pings)
		for _, each := range talks {
			c.ok(each.goesOn())
		}
		for _, h := range hosts {
			c.await(func() error { return c.alone(h, to) })
		}
	}
	for _, h := range hosts {
		c.await(func() error {
			if env, err := h.Env(); err != nil || env.MTU != 1400-70 {
				return fmt.Errorf("MTU %d in subnet.env, %v", env.MTU, err)
			}
			return nil
		})
	}
	for i, d := range daemons {
		if n := strings.Count(d.Log(), "starting flanneld"); n != 1 {
			t.Errorf("daemon %d was started %d times", i, n)
		}
	}
}

// alone wants a host to have the devices of one backend only.
func (c *cluster) alone(h *lab.Host, backend string) error {
	out, err := h.Output("ip -o link show")
	if err != nil {
		return err
	}
	want := map[string][]string{
		`{"Type":"host-gw"}`: nil, `{"Type":"udp"}`: {"flannel0"}, `{"Type":"wireguard"}`: {"flannel-wg", "flannel-wg-v6"},
		`{"Type":"vxlan"}`: {"flannel.1", "flannel-v6.1"}, `{"Type":"vxlan","VNI":2}`: {"flannel.2", "flannel-v6.2"},
		`{"Type":"vxlan","VNI":2,"MTU":1400}`: {"flannel.2", "flannel-v6.2"},
	}[backend]
	if n := strings.Count(out, ": flannel"); n != len(want) {
		return fmt.Errorf("%d devices, want %q:\n%s", n, want, out)
	}
	for _, name := range want {
		if !strings.Contains(out, ": "+name+":") {
			return fmt.Errorf("no device %s:\n%s", name, out)
		}
	}
	return nil
}
