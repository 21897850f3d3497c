package lab_test

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"flanneld/api"
	"flanneld/lab"
)

// TestAnEmbeddedStoreIsSecuredUnderTrafficAndHostsJoinItWithATokenOnly begins without security, for that is what users
// have.
func TestAnEmbeddedStoreIsSecuredUnderTrafficAndHostsJoinItWithATokenOnly(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	hosts := c.hosts(3)
	daemons, before := c.embedded(hosts[:2])
	pods := c.pods(hosts[:2]...)
	c.reaches(pods[0].Namespace, pods[1], lab.PingOptions{})
	pings := c.pinged(pods[0], pods[1])

	c.ok(daemons[0].Stop(c.ctx))
	listen := netip.AddrPortFrom(hosts[0].Addr, 2379).String()
	first := must[*lab.Daemon](t)(hosts[0].Flanneld("-etcd-embedded", "-etcd-embedded-secure", "-etcd-embedded-listen",
		listen))
	c.ok(first.Ready(c.ctx))
	c.wantState(first, api.StateReady, "")
	c.wantState(daemons[1], api.StateDegraded, "store unreachable")
	token := c.token(hosts[0])
	c.ok(daemons[1].Stop(c.ctx))
	second := must[*lab.Daemon](t)(hosts[1].Flanneld("-join", token))
	c.ok(second.Ready(c.ctx))
	c.wantState(second, api.StateReady, "")
	c.nothingLost("securing the store", pings)
	for i, h := range hosts[:2] {
		if got := c.subnets(h); !slices.Equal(got, before[i]) {
			t.Errorf("%s has %s, before %s", h.Name(), got, before[i])
		}
	}

	for command, want := range map[string]string{
		"token revoke": strings.Split(token, ".")[1] + "\tvalid", "hosts remove": "\t" + hosts[1].Addr.String(),
		"members remove": "\tleader",
	} {
		args := append(append([]string{"__complete"}, strings.Fields(command)...), "")
		if out := c.ctlOK(hosts[0], args...); !strings.Contains(out, want) {
			t.Errorf("%s: the shell is offered\n%s\nwant %q", command, out, want)
		}
	}
	c.ctlOK(hosts[0], "token", "revoke", token)
	third := must[*lab.Daemon](t)(hosts[2].Flanneld("-join", token))
	c.wantState(third, api.StateNotReady, "the token was revoked")
	c.ok(third.Stop(c.ctx))
	other := c.token(hosts[0])
	third = must[*lab.Daemon](t)(hosts[2].Flanneld("-join", other))
	c.ok(third.Ready(c.ctx))
	c.refused(hosts[2], 1, "no member of a secured store", "token", "create")
	c.refused(hosts[2], 1, "permission denied", "network", "set", vxlanConfig, "--force")

	// By its user: the hosts of the lab share one name.
	var user string
	for _, h := range ctlJSON[[]api.JoinedHost](c, hosts[0], "hosts", "list") {
		if h.Address == hosts[2].Addr.String() {
			user = h.User
		}
	}
	c.ctlOK(hosts[0], "hosts", "remove", user)
	c.await(func() error {
		if n := len(ctlJSON[api.Leases](c, hosts[0], "leases").Records); n != 2 {
			return fmt.Errorf("%d records after the removal of one of three hosts", n)
		}
		return nil
	})
	for _, d := range []*lab.Daemon{first, second, third} {
		for _, secret := range []string{token, other} {
			if strings.Contains(d.Log(), strings.Split(secret, ".")[2]) {
				t.Errorf("a secret is in the log:\n%s", d.Log())
			}
		}
	}
	if info, err := os.Stat(hosts[1].StateDir() + "/store/host.key"); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key of a host: %v, %v", info, err)
	}
}

// token returns what a host is to give to -join, from the command that is printed on the first host.
func (c *cluster) token(first *lab.Host) string {
	c.t.Helper()
	out := c.ctlOK(first, "token", "create")
	token, ok := strings.CutPrefix(strings.TrimSpace(out), "flanneld -join ")
	if !ok || !strings.HasSuffix(token, "@"+first.Addr.String()+":8474") {
		c.t.Fatalf("token create prints %q", out)
	}
	return token
}
