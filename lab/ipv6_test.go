package lab_test

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"flanneld/lab"
)

// TestANetworkGetsAndLosesIPv6WithoutLosingAnIPv4Packet follows docs/ipv6.md, host by host.
func TestANetworkGetsAndLosesIPv6WithoutLosingAnIPv4Packet(t *testing.T) {
	t.Parallel()
	for _, backend := range []string{"vxlan", "host-gw", "udp"} {
		t.Run(backend, func(t *testing.T) {
			t.Parallel()
			only4, both := network{backend, lab.IPv4}, network{backend, lab.Dual}
			s := &site{cluster: newCluster(t), network: only4}
			s.store = s.etcd(only4.config())
			s.hosts = s.cluster.hosts(2)
			s.daemons = s.startAll(s.hosts, s.store)
			s.pods = s.cluster.pods(s.hosts...)
			s.reaches(s.pods[0].Namespace, s.pods[1], lab.PingOptions{})
			before := []string{s.keyOf(s.hosts[0]), s.keyOf(s.hosts[1])}
			pings := append(s.pinged(s.pods[0], s.pods[1]), s.pinged(s.pods[1], s.pods[0])...)

			s.reconfigure(both, before)
			newPods := s.cluster.pods(s.hosts...)
			for i, p := range newPods {
				if len(p.Addrs) != 2 {
					t.Fatalf("a new pod has the addresses %s, want both families", p.Addrs)
				}
				s.reaches(p.Namespace, newPods[1-i], lab.PingOptions{Size: both.mtu(), DontFragment: true})
				s.reaches(p.Namespace, s.pods[1-i], lab.PingOptions{})
			}

			s.reconfigure(only4, before)
			for _, h := range s.hosts {
				if out := must[string](t)(h.Output("ip -6 route show")); strings.Contains(out, "proto 70") ||
					strings.Contains(out, "flannel") {
					t.Errorf("left over in IPv6:\n%s", out)
				}
			}
			s.nothingLost("all the way", pings)
		})
	}
}

// reconfigure changes the network's families and restarts the daemons one by one. While the first has changed and the
// second has not, both go on as peers in IPv4.
func (s *site) reconfigure(next network, keys4 []string) {
	s.t.Helper()
	s.ok(s.store.Put(s.ctx, "config", next.config()))
	for i, h := range s.hosts {
		s.ok(s.daemons[i].Stop(s.ctx))
		s.daemons[i] = s.flanneld(h, s.store)
		key, _, dual := strings.Cut(s.keyOf(h), "&")
		if key != keys4[i] || dual != (next.families == lab.Dual) {
			s.t.Errorf("host %d has %s, before %s", i+1, s.keyOf(h), keys4[i])
		}
	}
	records := must[map[string]string](s.t)(s.store.Records(s.ctx))
	if len(records) != 2 || records[s.keyOf(s.hosts[0])] == "" || records[s.keyOf(s.hosts[1])] == "" {
		s.t.Errorf("records %v", records)
	}
}

func TestHostsOfOneFamilyAndOfBothArePeersInTheOneTheyShare(t *testing.T) {
	t.Parallel()
	// The configuration is one for all; these hosts were configured by a file each.
	c := newCluster(t)
	e := c.etcd("")
	var hosts []*lab.Host
	var daemons []*lab.Daemon
	for i, families := range []lab.Families{lab.IPv4, lab.Dual, lab.IPv6} {
		h := must[*lab.Host](t)(c.HostOf(fmt.Sprintf("host%d", i+1), families))
		config := h.Dir() + "/net.json"
		c.ok(os.WriteFile(config, []byte(network{"vxlan", families}.config()), 0o644))
		daemons, hosts = append(daemons, c.start(h, e, "-net-config-path", config)), append(hosts, h)
	}
	c.ok(lab.Ready(c.ctx, daemons...))
	pods := c.pods(hosts...)
	for i, pair := range [][2]*lab.Pod{{pods[0], pods[1]}, {pods[1], pods[2]}} {
		is4 := i == 0
		for _, way := range [][2]*lab.Pod{pair, {pair[1], pair[0]}} {
			for _, a := range way[1].Addrs {
				if a.Is4() == is4 {
					_, err := way[0].Ping(c.ctx, a, lab.PingOptions{})
					c.ok(err)
				}
			}
		}
	}
	for i, d := range daemons {
		c.await(func() error {
			if want := []string{"1 peer", "2 peers", "1 peer"}[i]; !strings.Contains(d.Status(), want) {
				return fmt.Errorf("host %d: %s, want %s", i+1, d.Status(), want)
			}
			return nil
		})
	}
}

func TestAHostWithoutIPv4RunsTheEmbeddedStore(t *testing.T) {
	t.Parallel()
	c := newClusterWith(t, lab.Options{Families: lab.IPv6})
	hosts := c.hosts(2)
	// The address is still checked for duplicates when the daemon starts: it waits, and does not fail.
	first := hosts[0]
	c.ok(first.Run("ip addr del " + first.Addr6.String() + "/64 dev eth0"))
	c.ok(errors.Join(first.Sysctl("net/ipv6/conf/eth0/accept_dad", "1"),
		first.Sysctl("net/ipv6/conf/eth0/dad_transmits", "1000")))
	address := first.Addr6.String() + "/64 dev eth0"
	c.ok(first.Run("ip addr add "+address, "ip -6 route replace default via fd00:18::1"))
	store := netip.AddrPortFrom(first.Addr6, 2379).String()
	one := must[*lab.Daemon](t)(first.Flanneld("-etcd-embedded", "-etcd-embedded-insecure", "-etcd-embedded-listen",
		store, "-network-config", network{"vxlan", lab.IPv6}.config(), "-iface-can-reach", "fd00:18::ffff"))
	c.await(c.logs(one, "waiting for the address of the embedded etcd"))
	c.ok(first.Run("ip addr del "+address, "ip addr add "+address+" nodad", "ip -6 route replace default via fd00:18::1"))
	two := must[*lab.Daemon](t)(hosts[1].Flanneld("-etcd-endpoints", "http://"+store, "-iface", hosts[1].Addr6.String(),
		"-public-ipv6", hosts[1].Addr6.String()))
	c.ok(lab.Ready(c.ctx, one, two))
	pods := c.pods(hosts...)
	c.reaches(pods[0].Namespace, pods[1], lab.PingOptions{Size: 1430, DontFragment: true})
	// Pods' packets need forwarding, which this daemon was not asked to turn on.
	c.ok(hosts[1].Sysctl("net/ipv6/conf/all/forwarding", "0"))
	c.ok(two.Stop(c.ctx))
	two = must[*lab.Daemon](t)(hosts[1].Flanneld("-etcd-endpoints", "http://"+store))
	c.await(c.logs(two, "net.ipv6.conf.all.forwarding is 0"))
	for _, h := range hosts {
		if out := must[string](t)(h.Output("ip -4 addr show")); strings.Count(out, "inet ") != strings.Count(out,
			"inet 127.") {
			t.Errorf("IPv4 beside the loopback:\n%s", out)
		}
	}
}

func TestAnUnderlayWithLinkLocalAddressesOnly(t *testing.T) {
	t.Parallel()
	for _, backend := range []string{"vxlan", "host-gw", "udp"} {
		t.Run(backend, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t)
			e := c.etcd(network{backend, lab.IPv6}.config())
			var hosts []*lab.Host
			var daemons []*lab.Daemon
			for i := range 2 {
				h := must[*lab.Host](t)(c.HostOf(fmt.Sprintf("host%d", i+1), lab.IPv4)) // by which it reaches the store
				iface := linkLocal(t, h)
				if backend == "vxlan" && i == 1 {
					iface = "eth0" // where a router is waited for first
				}
				daemons, hosts = append(daemons, c.start(h, e, "-iface", iface)), append(hosts, h)
			}
			c.ok(lab.Ready(c.ctx, daemons...))
			pods := c.pods(hosts...)
			full := must[int](t)(mtuOf(hosts[0]))
			for i, p := range pods {
				c.reaches(p.Namespace, pods[1-i], lab.PingOptions{Size: full, DontFragment: true})
			}
		})
	}
}

func mtuOf(h *lab.Host) (int, error) {
	env, err := h.Env()
	return env.MTU, err
}

// linkLocal returns the link-local address of a host's interface.
func linkLocal(t *testing.T, h *lab.Host) string {
	t.Helper()
	words := strings.Fields(must[string](t)(h.Output("ip -6 -o addr show dev eth0 scope link")))
	i := slices.Index(words, "inet6")
	if i < 0 {
		t.Fatalf("no link-local address: %v", words)
	}
	return strings.TrimSuffix(words[i+1], "/64")
}

// recordAwaited waits until a host's record names an address.
func (c *cluster) recordAwaited(e *lab.Etcd, h *lab.Host, address string) {
	c.t.Helper()
	start := time.Now()
	c.await(func() error {
		records, err := e.Records(c.ctx)
		if value := records[c.keyOf(h)]; err == nil && !strings.Contains(value, address) {
			err = fmt.Errorf("record %s, want %s in it", value, address)
		}
		return err
	})
	c.t.Logf("%s published after %s", address, time.Since(start).Round(time.Millisecond))
}

// TestAConflictOverOneSubnetOfAPairIsNamedAndTheOtherIsKeptIfItMoves has somebody take the IPv6 subnet of a host into a
// record of his own.
func TestAConflictOverOneSubnetOfAPairIsNamedAndTheOtherIsKeptIfItMoves(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	e := c.etcd(dualConfig)
	hosts := c.hosts(3)
	daemons := []*lab.Daemon{c.flanneld(hosts[0], e, "-on-lost-subnet=hold"),
		c.flanneld(hosts[1], e, "-on-lost-subnet=move"), c.flanneld(hosts[2], e)}
	pods := c.pods(hosts...)
	client := must[*clientv3.Client](t)(e.Client())
	defer client.Close()
	for i, h := range hosts[:2] {
		key := c.keyOf(h)
		half4, half6, _ := strings.Cut(key, "&")
		thief := fmt.Sprintf("10.5.25%d.0-24&%s", i, half6)
		var pings []*lab.Pings
		if i == 1 {
			pings = append(pings, must[*lab.Pings](t)(pods[2].Pings(pods[i].Addr(), lab.PingOptions{})))
			answered(t, c, pings[0], 3)
		}
		_, err := client.Txn(c.ctx).Then(clientv3.OpDelete(lab.Prefix+"/subnets/"+key),
			clientv3.OpPut(lab.Prefix+"/subnets/"+thief, fmt.Sprintf(
				`{"PublicIP":"198.18.200.%d","PublicIPv6":"fd00:18::c%d","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:4%d"},`+
					`"BackendV6Data":{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:6%d"},"Host":"thief"}`, i+1, i, i, i))).Commit()
		c.ok(err)
		c.await(c.logs(daemons[i], `msg="subnet lost to another host" subnet=`+strings.Replace(half6, "-", "/", 1)))
		if i == 0 { // it waits for the pair
			c.wantWaiting(daemons[i], "was taken by thief")
			c.ok(e.Delete(c.ctx, "subnets/"+thief))
			c.within(noticed, func() error { return c.record(e, key, h.Addr6.String()) })
			c.reaches(pods[2].Namespace, pods[i], lab.PingOptions{})
		} else {
			c.within(noticed, func() error {
				now4, now6, _ := strings.Cut(c.keyOf(h), "&")
				if now4 != half4 || now6 == half6 {
					return fmt.Errorf("now %s, before %s", c.keyOf(h), key)
				}
				return c.record(e, c.keyOf(h), h.Addr6.String())
			})
		}
		c.nothingLost("a lost half", pings)
	}
}
