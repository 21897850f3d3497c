package lab_test

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"flanneld/api"
	"flanneld/lab"
)

// TestExtensionCarriesPacketsByCommands has commands do what the backend host-gw does, with a peer whose command fails
// for a while.
func TestExtensionCarriesPacketsByCommands(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	dir := t.TempDir()
	add := filepath.Join(dir, "add")
	c.ok(os.WriteFile(add, []byte(fmt.Sprintf(`#!/bin/sh -e
read -r host
[ -e %[1]s/ready ] || [ "$host" != late ] || { echo "$host: not ready" >&2; exit 1; }
ip route replace $SUBNET via $PUBLIC_IP
ip -6 route replace $IPV6SUBNET via $PUBLIC_IPV6
`, dir)), 0o755))
	remove := filepath.Join(dir, "remove")
	c.ok(os.WriteFile(remove, []byte("#!/bin/sh\nip route del $SUBNET; ip -6 route del $IPV6SUBNET\n"), 0o755))
	name := filepath.Join(dir, "name")
	c.ok(os.WriteFile(name, []byte(fmt.Sprintf("#!/bin/sh\n[ ! -e %s/broken ] || { echo no name yet >&2; exit 1; }\n"+
		"ip netns identify | sed 's/.*-//'\n", dir)), 0o755))
	e := c.etcd(fmt.Sprintf(`{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:5::/48","Backend":{"Type":"extension",
		"PreStartupCommand":%q,"PostStartupCommand":"ip route replace blackhole $SUBNET metric 4000","SubnetAddCommand":%q,"SubnetRemoveCommand":%q}}`, name, add, remove))
	hosts := c.hosts(2)
	daemons := c.startAll(hosts, e)
	pods := c.pods(hosts...)
	c.reaches(pods[0].Namespace, pods[1], lab.PingOptions{})
	c.reaches(pods[1].Namespace, pods[0], lab.PingOptions{})

	// A restart runs all commands again, which loses nothing.
	pings := c.pinged(pods[1], pods[0])
	c.ok(daemons[0].Stop(c.ctx))
	daemons[0] = c.flanneld(hosts[0], e)
	c.nothingLost("restart", pings)

	// A peer whose command fails is shown, and harms no other.
	late := c.host("late")
	d := c.flanneld(late, e)
	subnet := c.subnets(late)[0]
	c.await(func() error { return c.shown(hosts[0], subnet, "late: not ready") })
	c.reaches(pods[0].Namespace, pods[1], lab.PingOptions{})
	c.ok(os.WriteFile(filepath.Join(dir, "ready"), nil, 0o644))
	c.await(func() error { return c.shown(hosts[0], subnet, "") })
	c.reaches(pods[0].Namespace, must[*lab.Pod](t)(late.Pod()), lab.PingOptions{})

	// One that leaves while the daemon is stopped is removed at its next start. A command that fails then is waited for.
	key := c.keyOf(late)
	c.ok(d.Stop(c.ctx))
	c.ok(daemons[0].Stop(c.ctx))
	c.ok(e.Delete(c.ctx, "subnets/"+key))
	broken := filepath.Join(dir, "broken")
	c.ok(os.WriteFile(broken, nil, 0o644))
	daemons[0] = c.start(hosts[0], e)
	c.wantState(daemons[0], api.StateNotReady, "no name yet")
	c.ok(os.Remove(broken))
	c.wantState(daemons[0], api.StateReady, "")
	for _, command := range []string{"ip route show", "ip -6 route show"} {
		c.await(func() error {
			out, err := hosts[0].Output(command)
			if err == nil && (strings.Contains(out, "via "+late.Addr.String()) ||
				strings.Contains(out, "via "+late.Addr6.String())) {
				err = errors.New(out)
			}
			return err
		})
	}
}

// shown checks whether the commands of the host say of a peer that it is not there, and why; reason is empty if it is.
func (c *cluster) shown(h *lab.Host, subnet netip.Prefix, reason string) error {
	peers := ctlJSON[[]api.Peer](c, h, "peers")
	i := slices.IndexFunc(peers, func(p api.Peer) bool { return p.Subnet == subnet })
	if i < 0 {
		return errors.New("it is no peer yet")
	}
	if p := peers[i]; p.Programmed != (reason == "") || !strings.Contains(p.Reason, reason) {
		return fmt.Errorf("programmed: %t, reason %q", p.Programmed, p.Reason)
	}
	return nil
}
