package lab_test

import (
	"fmt"
	"testing"

	"flanneld/api"
	"flanneld/lab"
)

// TestForwardingIsOnWherePacketsOfPodsArrive starts a daemon on a host that forwards nothing on new devices, and turns
// forwarding off on the underlay.
func TestForwardingIsOnWherePacketsOfPodsArrive(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	e := c.etcd(vxlanConfig)
	hosts := c.hosts(2)
	h := hosts[0]
	c.ok(h.Sysctl("net/ipv4/conf/default/forwarding", "0"))
	d := c.startAll(hosts, e)[0]
	c.wantState(d, api.StateReady, "")
	c.prints(h, "cat /proc/sys/net/ipv4/conf/flannel.1/forwarding", "1")
	for _, tt := range []struct{ value, state, reason string }{
		{"0", api.StateDegraded, "forwarding is off on eth0, so packets of containers that arrive there are dropped"},
		{"1", api.StateReady, ""},
	} {
		c.ok(h.Sysctl("net/ipv4/conf/eth0/forwarding", tt.value))
		c.await(func() error {
			// The kernel tells nobody of a setting. A new address makes the daemon look before the minute is over.
			for _, verb := range []string{"add", "del"} {
				if err := h.Run("ip addr " + verb + " 203.0.113.9/32 dev lo"); err != nil {
					return err
				}
			}
			return c.state(d, tt.state, tt.reason)
		})
	}
}

// TestDualStackOnAnUnderlayWhoseMTUIsTooSmallForIPv6CarriesIPv4 has the MTU of a VPN or of a cloud on all hosts.
func TestDualStackOnAnUnderlayWhoseMTUIsTooSmallForIPv6CarriesIPv4(t *testing.T) {
	t.Parallel()
	for backend, needs := range map[string]int{"vxlan": 1350, "udp": 1328} {
		t.Run(backend, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t)
			e := c.etcd(network{backend, lab.Dual}.config())
			hosts := c.hosts(2)
			for _, h := range hosts {
				c.ok(h.Run("ip link set eth0 mtu 1280"))
			}
			daemons := c.startAll(hosts, e)
			for i, d := range daemons {
				c.wantState(d, api.StateDegraded,
					fmt.Sprintf("IPv6 is not carried: it needs an MTU of %d, and that of the interface eth0 is 1280", needs))
				env, err := hosts[i].Env()
				c.ok(err)
				if len(env.Subnets) != 1 || !env.Subnets[0].Addr().Is4() || env.MTU < 1230 {
					t.Errorf("subnet.env says %+v", env)
				}
			}
			env, err := hosts[1].Env()
			c.ok(err)
			_, err = hosts[0].Ping(c.ctx, env.Subnets[0].Addr(), lab.PingOptions{Size: env.MTU, DontFragment: true})
			c.ok(err)

			for _, h := range hosts {
				c.ok(h.Run("ip link set eth0 mtu 1500"))
			}
			for i, d := range daemons {
				c.wantState(d, api.StateReady, "")
				c.await(func() error {
					if env, err := hosts[i].Env(); err != nil || len(env.Subnets) != 2 {
						return fmt.Errorf("subnet.env says %+v: %w", env, err)
					}
					return nil
				})
			}
			_, err = hosts[0].Ping(c.ctx, c.subnets(hosts[1])[1].Addr(), lab.PingOptions{})
			c.ok(err)
		})
	}
}
