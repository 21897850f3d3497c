package lab_test

import (
	"strings"
	"testing"

	"flanneld/lab"
)

// TestAHealthyStartWarnsOfNothing starts hosts for the first time, and again.
func TestAHealthyStartWarnsOfNothing(t *testing.T) {
	t.Parallel()
	for _, n := range []network{{"vxlan", lab.Dual}, {"host-gw", lab.IPv4}, {"udp", lab.IPv4}, {"wireguard", lab.Dual},
		{"extension", lab.IPv4}} {
		t.Run(n.String(), func(t *testing.T) {
			t.Parallel()
			c := newClusterWith(t, lab.Options{Families: n.families})
			e := c.etcd(n.config())
			hosts := c.hosts(2)
			daemons := c.startAll(hosts, e, "-ip-forward", "-ip-masq")
			for _, d := range daemons {
				calm(t, "the first start", d)
				c.ok(d.Stop(c.ctx))
			}
			for _, d := range c.startAll(hosts, e, "-ip-forward", "-ip-masq") {
				calm(t, "a restart", d)
			}
		})
	}
}

func calm(t *testing.T, what string, d *lab.Daemon) {
	t.Helper()
	ready := false
	for line := range strings.Lines(d.Log()) {
		if strings.Contains(line, "level=WARN") || strings.Contains(line, "level=ERROR") {
			t.Errorf("%s: %s", what, line)
		}
		ready = ready || strings.Contains(line, `level=INFO msg="ready, bootstrap done"`)
	}
	if !ready {
		t.Errorf("%s: the log does not say that the host is ready:\n%s", what, d.Log())
	}
}

// undisturbed wants a daemon to warn of nothing that it has done itself: making and removing devices, and changing the
// MTU of peers.
func undisturbed(t testing.TB, d *lab.Daemon) {
	t.Helper()
	for line := range strings.Lines(d.Log()) {
		if !strings.Contains(line, "level=DEBUG") &&
			(strings.Contains(line, `msg="drift found"`) || strings.Contains(line, `msg="worker ended"`) ||
				strings.Contains(line, "loses packets of more than")) {
			t.Error(line)
		}
	}
}
