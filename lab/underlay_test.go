package lab_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"flanneld/lab"
)

// followed waits until a pod of one host reaches one of the other again, both ways, and logs how long that took.
func followed(t *testing.T, c *cluster, since time.Time, pods []*lab.Pod) {
	t.Helper()
	for _, way := range [][2]*lab.Pod{{pods[0], pods[1]}, {pods[1], pods[0]}} {
		_, err := way[0].Ping(c.ctx, way[1].Addr(), lab.PingOptions{})
		c.ok(err)
	}
	t.Logf("traffic in both directions %s after the end of the change", time.Since(since).Round(time.Millisecond))
}

// eventually waits until a command on a host prints a text.
func (c *cluster) eventually(h *lab.Host, command, want string) {
	c.t.Helper()
	c.await(func() error {
		out, err := h.Output(command)
		if err == nil && !strings.Contains(out, want) {
			err = fmt.Errorf("%s: %q, want %q in it", command, out, want)
		}
		return err
	})
}

// plug makes the interface of a host anew, as a driver does that is loaded again.
func plug(c *cluster, h *lab.Host, link, port string) {
	c.t.Helper()
	c.ok(c.Underlay().Run(
		fmt.Sprintf("ip link add %s type veth peer name %s netns %s", port, link, h.Name()),
		fmt.Sprintf("ip link set %s master br0 up", port),
	))
}

func TestTheUnderlayIsFollowedLive(t *testing.T) {
	for _, config := range []string{vxlanConfig, `{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan","DirectRouting":true}}`, `{"Network":"10.5.0.0/16","Backend":{"Type":"host-gw"}}`} {
		t.Run(config, func(t *testing.T) { underlayIsFollowed(t, config) })
	}
}

func underlayIsFollowed(t *testing.T, config string) {
	c := newCluster(t)
	e := c.etcd(config)
	hosts := c.hosts(2)
	daemons := c.startAll(hosts, e)
	pods := c.pods(hosts...)
	h, d := hosts[0], daemons[0]
	followed(t, c, time.Now(), pods)
	tunnel, addr := strings.Contains(config, "vxlan"), h.Addr.String()
	mac := ""
	if tunnel {
		mac = macOf(t, h)
	}
	configure := func() {
		c.ok(h.Run("ip addr replace "+addr+"/16 dev eth0", "ip link set eth0 up", "ip route replace default via 198.18.0.1"))
	}
	for _, step := range []struct {
		name   string
		change func()
		check  func()
	}{
		{"link down and up", func() {
			c.ok(h.Run("ip link set eth0 down"))
			configure()
		}, func() {}},
		{"interface deleted and made again under its name", func() {
			c.ok(h.Run("ip link del eth0"))
			plug(c, h, "eth0", "again0")
			configure()
		}, func() {}},
		{"MTU changed", func() { c.ok(h.Run("ip link set eth0 mtu 1400")) }, func() {
			want := 1400
			if tunnel {
				want = 1350
				c.eventually(h, "ip link show flannel.1", "mtu 1350 ")
			}
			c.eventually(h, "cat "+h.SubnetFile(), fmt.Sprintf("FLANNEL_MTU=%d", want))
		}},
		{"address changed", func() {
			old := addr
			addr = "198.18.77.7"
			c.ok(h.Run("ip addr add "+addr+"/16 dev eth0", "ip addr del "+old+"/16 dev eth0"))
			configure()
		}, func() {
			c.await(func() error {
				for _, value := range must[map[string]string](t)(e.Records(c.ctx)) {
					if strings.Contains(value, `"PublicIP":"198.18.77.7"`) {
						return nil
					}
				}
				return fmt.Errorf("the lease is not updated:\n%s", d.Log())
			})
			if tunnel {
				c.eventually(h, "ip -d link show flannel.1", "local 198.18.77.7 dev eth0")
			}
		}},
	} {
		t.Run(step.name, func(t *testing.T) {
			step.change()
			start := time.Now()
			step.check()
			followed(t, c, start, pods)
			if tunnel && macOf(t, h) != mac {
				t.Errorf("hardware address %s, before %s", macOf(t, h), mac)
			}
		})
	}
}

func TestAMovedDefaultRouteMovesTheUnderlay(t *testing.T) {
	c := newCluster(t)
	c.ok(c.Underlay().Run("ip addr add 198.19.0.1/16 dev br0"))
	c.ok(c.Underlay().Sysctl("net/ipv4/ip_forward", "1"))
	e := c.etcd(vxlanConfig)
	hosts := c.hosts(2)
	c.startAll(hosts, e)
	pods := c.pods(hosts...)
	followed(t, c, time.Now(), pods)
	h := hosts[0]
	plug(c, h, "eth1", "second0")
	c.ok(h.Run("ip addr add 198.19.0.7/16 dev eth1", "ip link set eth1 up"))
	// As a DHCP client does it: with a metric, and the better one wins.
	c.ok(h.Run("ip route add default via 198.18.0.1 metric 200", "ip route del default via 198.18.0.1 metric 0", "ip route add default via 198.19.0.1 metric 100"))
	start := time.Now()
	c.eventually(h, "ip -d link show flannel.1", "local 198.19.0.7 dev eth1")
	c.eventually(hosts[1], "bridge fdb show dev flannel.1", "dst 198.19.0.7")
	followed(t, c, start, pods)
	c.ok(h.Run("ip route del default via 198.19.0.1"))
	start = time.Now()
	c.eventually(h, "ip -d link show flannel.1", "local "+h.Addr.String()+" dev eth0")
	followed(t, c, start, pods)
}

func TestDirectRoutesFollowTheRoutes(t *testing.T) {
	c := newCluster(t)
	c.ok(c.Underlay().Sysctl("net/ipv4/ip_forward", "1"))
	e := c.etcd(`{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan","DirectRouting":true}}`)
	hosts := c.hosts(2)
	c.startAll(hosts, e)
	pods := c.pods(hosts...)
	followed(t, c, time.Now(), pods)
	peer := must[string](t)(firstThree(hosts[1])) + ".0/24"
	straight, tunnel := "via "+hosts[1].Addr.String()+" dev eth0 proto 70", "dev flannel.1 proto 70 onlink"
	c.eventually(hosts[0], "ip route show "+peer, straight)
	if out := must[string](t)(hosts[0].Output("bridge fdb show dev flannel.1")); strings.Contains(out, hosts[1].Addr.String()) {
		t.Errorf("a peer on the link has a forwarding entry: %s", out)
	}
	start := time.Now()
	c.ok(hosts[0].Run("ip route add " + hosts[1].Addr.String() + "/32 via 198.18.0.1"))
	c.eventually(hosts[0], "ip route show "+peer, tunnel)
	followed(t, c, start, pods)
	start = time.Now()
	c.ok(hosts[0].Run("ip route del " + hosts[1].Addr.String() + "/32"))
	c.eventually(hosts[0], "ip route show "+peer, straight)
	followed(t, c, start, pods)
}

func TestTheBackendIsChangedHostByHostWithoutLeftovers(t *testing.T) {
	const other = `{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan","VNI":7,"Port":4789}}`
	c := newCluster(t)
	e := c.etcd(vxlanConfig)
	hosts := c.hosts(3)
	daemons := c.startAll(hosts, e, "-ip-blackhole-route")
	pods := c.pods(hosts...)
	for _, config := range []string{
		`{"Network":"10.5.0.0/16","Backend":{"Type":"host-gw"}}`, other, `{"Network":"10.5.0.0/16","Backend":{"Type":"alloc"}}`, vxlanConfig,
	} {
		c.ok(e.Put(c.ctx, "config", config))
		for i, h := range hosts {
			c.ok(daemons[i].Stop(c.ctx))
			daemons[i] = c.flanneld(h, e, "-ip-blackhole-route")
			wantNoLeftovers(c, h, config)
		}
		if strings.Contains(config, "alloc") {
			continue
		}
		for i, from := range pods {
			_, err := from.Ping(c.ctx, pods[(i+1)%len(pods)].Addr(), lab.PingOptions{})
			c.ok(err)
		}
	}
	// Once a peer's routes have followed, too, nothing of the old ones is left.
	for _, h := range hosts {
		if n := strings.Count(must[string](t)(h.Output("ip route show proto 70")), "\n"); n != 3 {
			t.Errorf("%d routes of ours, want two to peers and a blackhole", n)
		}
	}
}

// wantNoLeftovers looks for what other backends have.
func wantNoLeftovers(c *cluster, h *lab.Host, config string) {
	c.t.Helper()
	c.await(func() error {
		links, err := h.Output("ip -br link")
		if err != nil {
			return err
		}
		routes, err := h.Output("ip route show proto 70")
		if err != nil {
			return err
		}
		for device, mine := range map[string]bool{
			"flannel.1": config == vxlanConfig, "flannel.7": strings.Contains(config, `"VNI":7`), "eth0": strings.Contains(config, "host-gw"),
		} {
			if strings.Contains(routes, "dev "+device) && !mine {
				return fmt.Errorf("under %s: routes by %s:\n%s", config, device, routes)
			}
			if device != "eth0" && strings.Contains(links, device) != mine {
				return fmt.Errorf("under %s: links:\n%s", config, links)
			}
		}
		if n := strings.Count(routes, "blackhole"); n != 1 {
			return fmt.Errorf("%d blackholes:\n%s", n, routes)
		}
		return nil
	})
}
