package lab_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"flanneld/lab"
)

// threeHosts is a cluster of three ready hosts with a pod each.
func threeHosts(t *testing.T) (c *cluster, e *lab.Etcd, hosts []*lab.Host, daemons []*lab.Daemon, pods []*lab.Pod) {
	t.Helper()
	c = newCluster(t)
	e = c.etcd(vxlanConfig)
	hosts = c.hosts(3)
	daemons = c.startAll(hosts, e)
	return c, e, hosts, daemons, c.pods(hosts...)
}

func TestPodsReachPodsAndHostsInBothDirections(t *testing.T) {
	c, _, hosts, _, pods := threeHosts(t)
	full := must[int](t)(mtu(hosts[0]))
	for i, from := range pods {
		for j, to := range pods {
			if i == j {
				continue
			}
			_, err := from.Ping(c.ctx, to.Addr(), lab.PingOptions{})
			c.ok(err)
			_, err = from.Ping(c.ctx, to.Addr(), lab.PingOptions{Size: full, DontFragment: true})
			c.ok(err)
			_, err = hosts[i].Ping(c.ctx, to.Addr(), lab.PingOptions{})
			c.ok(err)
			_, err = from.Ping(c.ctx, gateway(to), lab.PingOptions{}) // the other host, by its address in the network
			c.ok(err)
		}
	}
}

func mtu(h *lab.Host) (int, error) {
	env, err := h.Env()
	return env.MTU, err
}

// gateway is the address that a pod's host has on the pods' bridge.
func gateway(p *lab.Pod) netip.Addr { return p.Addr().Prev() }

func TestAHostThatJoinsLaterIsReachedWithinASecondAndADeletedLeaseIsGone(t *testing.T) {
	c, e, hosts, _, pods := threeHosts(t)
	late := c.host("late")
	d := c.flanneld(late, e)
	p := must[*lab.Pod](t)(late.Pod())
	for _, from := range pods {
		_, err := from.Ping(c.ctx, p.Addr(), lab.PingOptions{})
		c.ok(err)
	}
	if took := time.Since(d.ReadyAt()); took > time.Second {
		t.Logf("the new host's pod was pinged from all %s after it was ready", took)
	}

	// A host that ends for good: its record is deleted, and all that led to it goes away.
	c.ok(d.Stop(c.ctx))
	subnet := must[netip.Prefix](t)(subnetOf(late))
	start := time.Now()
	c.ok(e.Delete(c.ctx, "subnets/"+strings.ReplaceAll(subnet.String(), "/", "-")))
	for _, h := range hosts {
		c.await(func() error {
			routes, err := h.Output("ip route show " + subnet.String())
			if err == nil && routes != "" {
				err = fmt.Errorf("still there: %s", routes)
			}
			return err
		})
		for _, command := range []string{"ip neigh show dev flannel.1", "bridge fdb show dev flannel.1"} {
			out := must[string](t)(h.Output(command))
			if strings.Contains(out, late.Addr.String()+" ") || strings.Contains(out, subnet.Addr().String()+" ") {
				t.Errorf("%s: %s", command, out)
			}
		}
	}
	t.Logf("a deleted lease was gone from all after %s", time.Since(start).Round(time.Millisecond))
}

func subnetOf(h *lab.Host) (netip.Prefix, error) {
	env, err := h.Env()
	if err != nil {
		return netip.Prefix{}, err
	}
	return env.Subnets[0], nil
}

func TestARestartIsInvisibleToTrafficAndKeepsTheSubnet(t *testing.T) {
	c, e, hosts, daemons, pods := threeHosts(t)
	before := must[netip.Prefix](t)(subnetOf(hosts[0]))
	mac := macOf(t, hosts[0])
	for _, way := range []struct {
		name string
		end  func(d *lab.Daemon)
	}{
		{"SIGTERM", func(d *lab.Daemon) { c.ok(d.Stop(c.ctx)) }},
		{"SIGINT", func(d *lab.Daemon) {
			c.ok(d.Signal(syscall.SIGINT))
			<-d.Done()
		}},
		{"SIGKILL", (*lab.Daemon).Kill},
	} {
		t.Run(way.name, func(t *testing.T) {
			out := must[*lab.Pings](t)(pods[0].Pings(pods[1].Addr(), lab.PingOptions{}))
			in := must[*lab.Pings](t)(pods[2].Pings(pods[0].Addr(), lab.PingOptions{}))
			way.end(daemons[0])
			daemons[0] = c.flanneld(hosts[0], e)
			for _, s := range []lab.PingStats{out.Stop(), in.Stop()} {
				if s.Lost() != 0 {
					t.Error(s)
				}
			}
			if got := must[netip.Prefix](t)(subnetOf(hosts[0])); got != before {
				t.Errorf("subnet %s, before %s", got, before)
			}
			if got := macOf(t, hosts[0]); got != mac {
				t.Errorf("MAC %s, before %s", got, mac)
			}
		})
	}
}

// macOf returns the hardware address of a host's tunnel device.
func macOf(t *testing.T, h *lab.Host) string {
	t.Helper()
	return strings.Fields(must[string](t)(h.Output("ip -br link show flannel.1")))[2]
}

func TestTwoDaemonsOnAnEmptyStoreGetDifferentSubnets(t *testing.T) {
	c := newCluster(t)
	e := c.etcd(vxlanConfig)
	hosts := c.hosts(2)
	c.startAll(hosts, e)
	a, b := must[netip.Prefix](t)(subnetOf(hosts[0])), must[netip.Prefix](t)(subnetOf(hosts[1]))
	if a == b || len(must[map[string]string](t)(e.Records(c.ctx))) != 2 {
		t.Errorf("%s and %s", a, b)
	}
}

func TestRecordsAreThoseOfFlannel(t *testing.T) {
	c := newCluster(t)
	e := c.etcd(vxlanConfig)
	h := c.host("host1")
	// A peer that exists as a record only, written as flannel writes it.
	c.ok(e.Put(c.ctx, "subnets/10.5.34.0-24",
		`{"PublicIP":"198.18.9.9","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:44"}}`))
	c.flanneld(h, e)
	for command, want := range map[string]string{
		"ip route show 10.5.34.0/24":       "10.5.34.0/24 via 10.5.34.0 dev flannel.1 proto 70 onlink",
		"ip neigh show 10.5.34.0":          "10.5.34.0 dev flannel.1 lladdr c6:d2:32:6f:8f:44 PERMANENT",
		"bridge fdb show dev flannel.1":    "c6:d2:32:6f:8f:44 dst 198.18.9.9 self permanent",
		"ip -d link show flannel.1":        "vxlan id 1 local " + h.Addr.String() + " dev eth0 srcport 0 0 dstport 8472 nolearning",
		"ip -4 -o addr show dev flannel.1": "/32 scope global flannel.1",
	} {
		if out := must[string](t)(h.Output(command)); !strings.Contains(out, want) {
			t.Errorf("%s: %q, want %q in it", command, out, want)
		}
	}
	records := must[map[string]string](t)(e.Records(c.ctx))
	delete(records, "10.5.34.0-24")
	for key, value := range records {
		wantRecord(t, h, key, value)
	}
}

// wantRecord compares a record with the form of flannel, up to the fields that only we write.
func wantRecord(t *testing.T, h *lab.Host, key, value string) {
	t.Helper()
	subnet := must[netip.Prefix](t)(subnetOf(h))
	if want := fmt.Sprintf("%s-%d", subnet.Addr(), subnet.Bits()); key != want {
		t.Errorf("key %s, want %s", key, want)
	}
	want := fmt.Sprintf(`{"PublicIP":"%s","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"%s"},`, h.Addr, macOf(t, h))
	if !strings.HasPrefix(value, want) {
		t.Errorf("record %s, want it to start with %s", value, want)
	}
	var strict struct {
		PublicIP    string
		PublicIPv6  *string
		BackendType string
		BackendData json.RawMessage
	}
	if err := json.Unmarshal([]byte(value), &strict); err != nil {
		t.Error(err)
	}
}
