package lab_test

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"flanneld/api"
	"flanneld/lab"
)

// TestFlannelctlPings pings hosts and pods through the overlay, over a path that carries all packets and over one that
// does not.
func TestFlannelctlPings(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	e := c.etcd(vxlanConfig)
	hosts := c.hosts(2)
	c.startAll(hosts, e)
	a, b := hosts[0], hosts[1]
	pod := must[*lab.Pod](t)(b.Pod())
	c.await(func() error {
		if n := len(ctlJSON[[]api.Peer](c, a, "peers")); n != 1 {
			return fmt.Errorf("%d peers, want 1", n)
		}
		return nil
	})
	peer := ctlJSON[[]api.Peer](c, a, "peers")[0]
	for _, to := range []string{peer.Host, peer.Subnet.String(), peer.PublicIP.String(), pod.Addrs[0].String()} {
		out := c.ctlOK(a, "ping", to)
		for _, want := range []string{"host " + peer.Host, "flannel.1 via " + peer.Subnet.Addr().String(), "3 of 3",
			"1450 or more"} {
			if !strings.Contains(out, want) {
				t.Errorf("ping %s does not say %q:\n%s", to, want, out)
			}
		}
	}
	own := ctlJSON[api.Status](c, a, "status").Subnets[0]
	c.refused(a, 2, "own subnet", "ping", own.Addr().Next().String())
	c.refused(a, 2, "no peer", "ping", "host9")
	c.refused(a, 2, "--count", "ping", "host2", "-c", "0")
	if out := c.ctlOK(a, "__complete", "ping", ""); !strings.Contains(out, peer.Host) ||
		!strings.Contains(out, peer.Subnet.String()) {
		t.Errorf("the shell is offered\n%s", out)
	}
	for _, args := range [][]string{{"leases", "reserve", ""}, {"network", "migrate", "--skip", ""}} {
		if out := c.ctlOK(a, append([]string{"__complete"}, args...)...); !strings.Contains(out, peer.Host+"\t") {
			t.Errorf("for %q the shell is offered\n%s", args, out)
		}
	}

	// A link on the way that carries no large packets: 1,400 bytes inside need 1,450 outside.
	must[string](t)(b.Output("ip link set eth0 mtu 1440"))
	c.refused(a, 3, "smaller than the network's MTU of 1450", "ping", pod.Addrs[0].String())
	must[string](t)(b.Output("ip link set eth0 down"))
	c.refused(a, 3, "0 of 1", "ping", pod.Addrs[0].String(), "-c", "1")
}

func TestFlannelctlPrintsAgainWhileItWatches(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	h := c.host("host1")
	c.flanneld(h, c.etcd(vxlanConfig))
	if out := c.ctlOK(h, "peers", "-o", "wide"); !strings.Contains(out, "BACKEND") || !strings.Contains(out, "VERSION") {
		t.Errorf("the wide table of peers is\n%s", out)
	}
	if out := c.ctlOK(h, "leases", "-o", "wide"); !strings.Contains(out, ctlJSON[api.Status](c, h, "status").Identity) {
		t.Errorf("the wide table of leases has no identity:\n%s", out)
	}
	var out output
	cmd := exec.Command(binaries.Flannelctl, "status", "-w", "--subnet-file", h.SubnetFile())
	cmd.Stdout = &out
	c.ok(h.Do(cmd.Start))
	c.await(func() error {
		if n := strings.Count(out.String(), "state "); n < 2 {
			return fmt.Errorf("printed %s so far", strconv.Quote(out.String()))
		}
		return nil
	})
	c.ok(cmd.Process.Signal(os.Interrupt))
	if err := cmd.Wait(); err != nil {
		t.Errorf("ends with %v", err)
	}
	if strings.Contains(out.String(), "\x1b") {
		t.Errorf("a screen is cleared that is none: %q", out.String())
	}
}
