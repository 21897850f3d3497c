package lab_test

import (
	"testing"

	"flanneld/api"
)

// TestForwardingIsOnWherePacketsOfPodsArrive starts a daemon on a host that forwards nothing on new devices, and turns forwarding off on the
// underlay.
func TestForwardingIsOnWherePacketsOfPodsArrive(t *testing.T) {
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
