//go:build moves

package lab_test

import (
	"fmt"
	"strings"
	"testing"

	"flanneld/lab"
)

// formerHost is the name of the host that runs it.
const formerHost = "former-host"

// former starts the daemon of the former version on a host.
func (c *cluster) former(h *lab.Host, e *lab.Etcd, program string) *lab.Process {
	c.t.Helper()
	p := must[*lab.Process](c.t)(h.Start("flanneld-former", "unshare", "--uts", "sh", "-c", `hostname "$0" && exec "$@"`,
		formerHost, program, "-etcd-endpoints", e.URL(), "-subnet-file", h.SubnetFile(), "-state-dir", h.StateDir()))
	c.await(func() error {
		if _, err := h.Env(); err != nil {
			return fmt.Errorf("the daemon of the former version is not ready: %w\n%s", err, p.Log())
		}
		return nil
	})
	return p
}

// TestADaemonOfTheFormerVersionBlocksAMoveWithItsName has one host run a daemon that offers nothing: the move does not
// go beyond its first step, can be given up, and goes through when the daemon is updated.
//
// Slow: builds the former version.
func TestADaemonOfTheFormerVersionBlocksAMoveWithItsName(t *testing.T) {
	t.Parallel()
	program := buildVersion(t, lab.FormerCommit)
	c := newCluster(t)
	e := c.etcd(dualConfig)
	hosts := c.hosts(3)
	old := c.former(hosts[2], e, program)
	c.startAll(hosts[:2], e)
	pods := c.pods(hosts...)
	for i := range pods {
		c.reaches(pods[i].Namespace, pods[(i+1)%len(pods)], lab.PingOptions{})
	}
	pings := c.meshed(pods)
	blocks := func(from *lab.Host) {
		t.Helper()
		out, code := c.migratesIn(from, "5s", "--to", toHostGW)
		want := fmt.Sprintf("these hosts do not offer %s, 1: %s (%s", toHostGW, formerHost, hosts[2].Addr)
		if code != 1 || !strings.Contains(out, want) {
			t.Errorf("exit code %d, want 1 and %q\n%s", code, want, out)
		}
		config := c.ctlOK(from, "network", "get")
		if !strings.Contains(config, "Next") || strings.Contains(config, "Previous") {
			t.Errorf("the move is not in its first step:\n%s", config)
		}
	}
	blocks(hosts[0])
	c.ctlOK(hosts[1], "network", "migrate", "--abort", "--pause", "1s", "--timeout", "1m")
	blocks(hosts[1])
	c.nothingLost("a move that a daemon of the former version blocks", pings)
	select {
	case <-old.Done():
		t.Fatalf("the daemon of the former version has ended:\n%s", old.Log())
	default:
	}
	// The update, and the rest of the move.
	pings = c.meshed(pods)
	c.ok(old.Stop(c.ctx))
	c.flanneld(hosts[2], e)
	c.ctlOK(hosts[0], "network", "migrate", "--to", toHostGW, "--pause", "1s", "--timeout", "1m")
	for _, h := range hosts {
		c.await(func() error { return c.alone(h, toHostGW) })
	}
	c.nothingLost("the update of the daemon, and the move", pings)
}
