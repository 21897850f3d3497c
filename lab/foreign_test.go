package lab_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"flanneld/api"
	"flanneld/lab"
)

// prints waits until a command on a host prints a text, and none of the others.
func (c *cluster) prints(h *lab.Host, command, text string, not ...string) {
	c.t.Helper()
	c.await(func() error {
		out, err := h.Output(command)
		for _, n := range not {
			if strings.Contains(out, n) {
				return fmt.Errorf("%s prints %q, not to have %q", command, out, n)
			}
		}
		if err != nil || !strings.Contains(out, text) {
			return fmt.Errorf("%s prints %q, want %q: %w", command, out, text, err)
		}
		return nil
	})
}

// TestWhatTheHostReachesOtherwiseIsNeverTakenFromIt puts routes and bridges of others in the way of a peer, which come
// and go.
func TestWhatTheHostReachesOtherwiseIsNeverTakenFromIt(t *testing.T) {
	t.Parallel()
	for _, backend := range []string{"vxlan", "host-gw"} {
		t.Run(backend, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t)
			e := c.etcd(network{backend, lab.Dual}.config())
			hosts := c.hosts(2)
			daemons := c.startAll(hosts, e)
			h, d := hosts[0], daemons[0]
			c.wantState(d, api.StateReady, "")
			c.ok(h.Run("ip link add tun9 type veth peer name tun9p"))
			c.ok(h.Run("ip link set tun9p up"))
			c.ok(h.Run("ip link set tun9 up"))
			for _, peer := range c.subnets(hosts[1]) {
				ip := "ip -4"
				if peer.Addr().Is6() {
					ip = "ip -6"
				}
				route := fmt.Sprintf("%s route show %s", ip, peer)
				c.prints(h, route, "proto 70")
				c.foreign(h, d, route, fmt.Sprintf("%s route replace %s dev tun9 proto static", ip, peer),
					fmt.Sprintf("%s route del %s dev tun9 proto static", ip, peer), peer)

				bridge := netip.PrefixFrom(peer.Addr().Next(), peer.Bits())
				c.foreign(h, d, route, fmt.Sprintf("%s addr add %s dev tun9 noprefixroute", ip, bridge),
					fmt.Sprintf("%s addr del %s dev tun9", ip, bridge), peer)
				c.foreign(h, d, route, fmt.Sprintf("%s addr add %s dev tun9", ip, bridge),
					fmt.Sprintf("%s addr del %s dev tun9", ip, bridge), peer)
			}
		})
	}
}

// foreign has somebody come with a command and go with another one. Meanwhile our route to the peer is not there, and
// the status says so.
func (c *cluster) foreign(h *lab.Host, d *lab.Daemon, route, come, leave string, peer netip.Prefix) {
	c.t.Helper()
	c.ok(h.Run(come))
	c.prints(h, route, "", "proto 70")
	c.wantState(d, api.StateDegraded, peer.String())
	c.wantState(d, api.StateDegraded, "skipped: ")
	if !strings.Contains(come, "noprefixroute") {
		c.prints(h, route, "dev tun9", "proto 70")
	}
	c.ok(h.Run(leave))
	c.prints(h, route, "proto 70", "tun9")
	c.wantState(d, api.StateReady, "")
}

// TestANetworkThatContainsTheUnderlayCutsNobodyOff gives a peer, and then this host, the subnet that the underlay is
// in.
func TestANetworkThatContainsTheUnderlayCutsNobodyOff(t *testing.T) {
	t.Parallel()
	for _, backend := range []string{"vxlan", "host-gw", "udp"} {
		t.Run(backend, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t)
			e := c.etcd(fmt.Sprintf(`{"Network":"198.16.0.0/12","SubnetLen":16,"Backend":{"Type":%q}}`, backend))
			hosts := c.hosts(2)
			kind := fmt.Sprintf(`"BackendType":%q,`, backend)
			if backend == "udp" {
				kind = ""
			}
			const data = `"BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:00:77"}`
			// A reservation for the first host.
			c.ok(e.Put(c.ctx, "subnets/198.18.0.0-16", fmt.Sprintf(`{"PublicIP":"%s",%s%s}`, hosts[0].Addr, kind, data)))
			daemons := []*lab.Daemon{c.flanneld(hosts[0], e), c.flanneld(hosts[1], e)}
			for i, h := range hosts {
				if got := c.subnets(h)[0]; got.Contains(h.Addr) {
					t.Errorf("%s has the subnet %s, and the address %s", h.Addr, got, h.Addr)
				}
				c.prints(h, "ip route show 198.18.0.0/16", "dev eth0 proto kernel", "proto 70")
				c.prints(h, "ip route get 198.18.0.1", "dev eth0", "via", "flannel")
				if text := daemons[i].Log(); strings.Contains(text, "store unreachable") {
					t.Errorf("%s was cut off from the store:\n%s", h.Addr, text)
				}
			}
			// One of another host: the address of its own host in it would make no sense.
			c.ok(e.Put(c.ctx, "subnets/198.18.0.0-16", fmt.Sprintf(`{"PublicIP":"192.0.2.77",%s%s}`, kind, data)))
			for i, h := range hosts {
				c.wantState(daemons[i], api.StateDegraded,
					"peer 198.18.0.0/16 (192.0.2.77) skipped: its subnet overlaps 198.18.0.0/16")
				c.prints(h, "ip route show 198.18.0.0/16", "dev eth0 proto kernel", "proto 70")
				c.prints(h, "ip route get 198.18.0.1", "dev eth0", "via", "flannel")
			}
		})
	}
}
