package lab_test

import (
	"encoding/json"
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

// TestThreeMembersOutliveTheFirstUnderTraffic is the promise of a store with three members: the loss of the host that
// the cluster began with costs nothing but that host.
func TestThreeMembersOutliveTheFirstUnderTraffic(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	hosts := c.hosts(5)
	daemons := c.threeMembers(hosts)
	plain := must[*lab.Daemon](t)(hosts[3].Flanneld("-join", c.tokenOf(hosts[0])))
	c.ok(plain.Ready(c.ctx))
	c.refused(hosts[0], 1, "this is the member of this host", "members", "remove", userOf(c, hosts[0], hosts[0]))

	pods := c.pods(hosts[1], hosts[2], hosts[3])
	c.reaches(pods[0].Namespace, pods[1], lab.PingOptions{})
	pings := slices.Concat(c.pinged(pods[0], pods[1]), c.pinged(pods[2], pods[0]))
	daemons[0].Kill()
	c.voters(hosts[1], 2)
	third := userOf(c, hosts[1], hosts[2])
	c.await(func() error {
		if says, code := c.ctl(hosts[1], "members", "remove", third); code != 1 || !strings.Contains(says, "no majority") {
			return fmt.Errorf("exit code %d: %s", code, says)
		}
		return nil
	})
	fifth := must[*lab.Daemon](t)(hosts[4].Flanneld("-join", c.tokenOf(hosts[1])))
	c.ok(fifth.Ready(c.ctx))
	for _, d := range []*lab.Daemon{daemons[1], daemons[2], plain, fifth} {
		c.await(func() error {
			lost := c.state(d, api.StateDegraded, hosts[0].Addr.String()+") does not answer: 3 of 3 probes lost")
			if lost == nil { // its daemon was killed
				return nil
			}
			return c.state(d, api.StateReady, "")
		})
	}
	pod := c.pods(hosts[4])[0]
	c.reaches(pods[2].Namespace, pod, lab.PingOptions{})
	c.nothingLost("the loss of the first of three members", pings)
	for _, h := range hosts[1:3] {
		if used := residentEtcd(t, h); used > mostResident {
			t.Errorf("the etcd of %s had %d MiB of memory, want at most %d", h.Name(), used>>20, mostResident>>20)
		} else {
			t.Logf("the etcd of %s had %d MiB of memory at most", h.Name(), used>>20)
		}
	}

	// It is back from its own data.
	daemons[0] = c.member(hosts[0])
	c.ok(daemons[0].Ready(c.ctx))
	c.voters(hosts[2], 3)
	first := userOf(c, hosts[2], hosts[0])
	c.await(func() error { // etcd wants all members to be connected for some seconds
		says, code := c.ctl(hosts[2], "members", "remove", first)
		if code != 0 {
			return fmt.Errorf("%s", says)
		}
		return nil
	})
	c.voters(hosts[1], 2)
}

// mostResident is what an embedded etcd may have of memory, in bytes.
const mostResident = 80 << 20

// residentEtcd returns the most that the etcd of a host has had.
func residentEtcd(t *testing.T, h *lab.Host) (bytes int) {
	t.Helper()
	for _, file := range must[[]string](t)(filepath.Glob("/proc/[0-9]*/cmdline")) {
		text, _ := os.ReadFile(file)
		if !strings.HasPrefix(string(text), "flanneld-etcd\x00"+h.StateDir()+"/etcd\x00") {
			continue
		}
		_, rest, _ := strings.Cut(string(must[[]byte](t)(os.ReadFile(filepath.Dir(file)+"/status"))), "VmHWM:")
		_ = must[int](t)(fmt.Sscan(rest, &bytes))
		return bytes << 10
	}
	t.Fatalf("%s runs no etcd", h.Name())
	return 0
}

// member starts the daemon of a host as a member of the store; a new one is told the network or a token.
func (c *cluster) member(h *lab.Host, more ...string) *lab.Daemon {
	c.t.Helper()
	listen := netip.AddrPortFrom(h.Addr, 2379).String()
	return must[*lab.Daemon](c.t)(h.Flanneld(append([]string{"-etcd-embedded", "-etcd-embedded-listen", listen},
		more...)...))
}

// threeMembers starts a store on the first three hosts.
func (c *cluster) threeMembers(hosts []*lab.Host) (daemons []*lab.Daemon) {
	c.t.Helper()
	daemons = append(daemons, c.member(hosts[0], "-network-config", vxlanConfig))
	c.ok(daemons[0].Ready(c.ctx))
	_, token, _ := strings.Cut(strings.TrimSpace(c.ctlOK(hosts[0], "token", "create", "--member")), " -join ")
	for _, h := range hosts[1:3] {
		daemons = append(daemons, c.member(h, "-join", token))
	}
	c.ok(lab.Ready(c.ctx, daemons...))
	c.voters(hosts[0], 3)
	for _, h := range hosts[:3] {
		c.ok(h.KnowsMembers(c.ctx, 3))
	}
	return daemons
}

// voters waits until the store has so many healthy members that vote, as a member says.
func (c *cluster) voters(at *lab.Host, want int) {
	c.t.Helper()
	c.await(func() error {
		members, err := c.members(at)
		if err != nil {
			return err
		}
		return lab.WantVoters(members, want)
	})
}

// members returns the members of the store as a host sees them. Without a leader nobody can say.
func (c *cluster) members(at *lab.Host) (members []api.Member, err error) {
	c.t.Helper()
	out, code := c.ctl(at, "members", "list", "--json")
	if code != 0 {
		return nil, fmt.Errorf("members list: %s", out)
	}
	return members, json.Unmarshal([]byte(out), &members)
}

// userOf returns the user of a member on a host: the hosts of the lab share one name.
func userOf(c *cluster, at, of *lab.Host) string {
	c.t.Helper()
	user := ""
	c.await(func() error {
		members, err := c.members(at)
		if err != nil {
			return err
		}
		for _, m := range members {
			if strings.Contains(m.Address, of.Addr.String()+":") {
				user = m.User
				return nil
			}
		}
		return fmt.Errorf("%s is no member", of.Name())
	})
	return user
}

// tokenOf returns what a host is to give to -join, from a member among several.
func (c *cluster) tokenOf(member *lab.Host) string {
	c.t.Helper()
	token, ok := strings.CutPrefix(strings.TrimSpace(c.ctlOK(member, "token", "create")), "flanneld -join ")
	if !ok || !strings.Contains(token, member.Addr.String()+":8474") {
		c.t.Fatalf("token create prints %q", token)
	}
	return token
}
