//go:build members

package lab_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"flanneld/api"
	"flanneld/lab"
)

// trio is a cluster of three members and one more host, whose pods ping each other.
type trio struct {
	*cluster
	hosts   []*lab.Host
	daemons []*lab.Daemon // the last one is no member
	pods    []*lab.Pod
	pings   []*lab.Pings // of each pod to the next one
	before  map[string]string
	token   string // as the configuration of the last host has it
}

func newTrio(t *testing.T, prepare func(c *cluster, hosts []*lab.Host)) *trio {
	t.Helper()
	return newTrioWith(t, binaries, prepare)
}

func newTrioWith(t *testing.T, with lab.Binaries, prepare func(c *cluster, hosts []*lab.Host)) *trio {
	t.Helper()
	l := must[*lab.Lab](t)(lab.New(lab.Options{Binaries: with}))
	t.Cleanup(l.Close)
	c := &cluster{Lab: l, t: t}
	ctx, cancel := context.WithTimeout(context.Background(), 3*patience)
	t.Cleanup(cancel)
	c.ctx = ctx
	s := &trio{cluster: c, hosts: c.hosts(4)}
	if prepare != nil {
		prepare(c, s.hosts)
	}
	s.daemons = append(c.threeMembers(s.hosts), nil)
	s.token = c.tokenOf(s.hosts[0])
	s.start(3)
	c.ok(s.daemons[3].Ready(c.ctx))
	s.pods = c.pods(s.hosts...)
	for _, pair := range [][2]int{{0, 1}, {1, 2}, {2, 3}, {3, 0}} {
		c.reaches(s.pods[pair[0]].Namespace, s.pods[pair[1]], lab.PingOptions{})
		s.pings = append(s.pings, c.pinged(s.pods[pair[0]], s.pods[pair[1]])...)
	}
	c.saved(s.hosts)
	s.before = c.leasesOf(s.hosts[3])
	return s
}

// start starts the daemon of a host.
func (s *trio) start(i int) {
	s.t.Helper()
	if i < 3 {
		s.daemons[i] = s.member(s.hosts[i])
		return
	}
	s.daemons[i] = must[*lab.Daemon](s.t)(s.hosts[i].Flanneld("-join", s.token))
}

// kept wants all leases to be as before, and no ping of those to be lost.
func (s *trio) kept(what string, pings []*lab.Pings) {
	s.t.Helper()
	for _, d := range s.daemons {
		s.wantState(d, api.StateReady, "")
	}
	s.voters(s.hosts[0], 3)
	s.nothingLost(what, pings)
	for _, h := range s.hosts {
		if got := s.leasesOf(h); !maps.Equal(got, s.before) {
			s.t.Errorf("after %s %s sees the leases %v, before %v", what, h.Name(), got, s.before)
		}
	}
}

// TestAMemberThatIsCutOffIsBack cuts off that which leads, and with it its pods.
func TestAMemberThatIsCutOffIsBack(t *testing.T) {
	t.Parallel()
	s := newTrio(t, nil)
	i := 0
	for _, m := range must[[]api.Member](t)(s.members(s.hosts[0])) {
		for j, h := range s.hosts[:3] {
			if m.Leader && strings.Contains(m.Address, h.Addr.String()+":") {
				i = j
			}
		}
	}
	others := slices.Delete([]int{0, 1, 2}, i, i+1)
	s.ok(s.hosts[i].Run("ip link set eth0 down"))
	s.voters(s.hosts[others[0]], 2)
	s.wantState(s.daemons[i], api.StateDegraded, "store unreachable")
	late := must[*lab.Host](t)(s.Host("late"))
	d := must[*lab.Daemon](t)(late.Flanneld("-join", s.tokenOf(s.hosts[others[1]])))
	s.ok(d.Ready(s.ctx))
	s.before = s.leasesOf(s.hosts[3])
	s.ok(configure(s.hosts[i]))
	var pings []*lab.Pings
	for j := range s.pods { // 1 → 2 → 3 → 4 → 1
		if j != i && (j+1)%4 != i {
			pings = append(pings, s.pings[j])
		} else {
			s.pings[j].Stop()
		}
	}
	s.kept("the return of a member", pings)
}

// TestAFullDiskOfOneOfThreeMembersStopsThatOnly fills it while all write.
// Slow: what etcd has reserved of the disk has to be written first.
func TestAFullDiskOfOneOfThreeMembersStopsThatOnly(t *testing.T) {
	t.Parallel()
	s := newTrio(t, func(c *cluster, hosts []*lab.Host) { c.stateOnSmallDisk(hosts[1]) })
	file := s.fill(s.hosts[1])
	root := s.root(s.hosts[0])
	for i := 0; s.state(s.daemons[1], api.StateDegraded, "its disk is full") != nil; i++ {
		if s.ctx.Err() != nil {
			t.Fatal("the embedded etcd goes on with a full disk")
		}
		ctx, cancel := context.WithTimeout(s.ctx, 2*time.Second)
		_, _ = root.Put(ctx, fmt.Sprint("elsewhere/", i%50), strings.Repeat("x", 500_000)) // may change its leader
		cancel()
	}
	s.voters(s.hosts[0], 2)
	s.wantState(s.daemons[3], api.StateReady, "")
	if _, err := root.Put(s.ctx, "elsewhere/last", ""); err != nil {
		t.Errorf("the other two members take no changes: %v", err)
	}
	s.ok(os.Remove(file))
	s.kept("a full disk", s.pings)
}

// TestAllHostsThatRebootAtOnceHaveTheirLeases takes away what a reboot does: processes, devices and routes.
func TestAllHostsThatRebootAtOnceHaveTheirLeases(t *testing.T) {
	t.Parallel()
	s := newTrio(t, nil)
	for _, p := range s.pings {
		p.Stop()
	}
	for i, d := range s.daemons {
		d.Kill()
		s.hosts[i].ForgetFiles()
		s.ok(s.hosts[i].Run("ip link del flannel.1", "ip route flush proto 70"))
	}
	for i := range s.hosts {
		s.start(i)
	}
	s.ok(lab.Ready(s.ctx, s.daemons...))
	for i := range s.pods {
		s.reaches(s.pods[i].Namespace, s.pods[(i+1)%4], lab.PingOptions{})
	}
	s.kept("a reboot of all hosts", nil)
}

// TestAHundredRestartsOfMembersInRandomOrderLoseNothing does not wait for a majority of the members in between.
func TestAHundredRestartsOfMembersInRandomOrderLoseNothing(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	s := newTrio(t, nil)
	for range 100 {
		i := rnd.IntN(4)
		if rnd.IntN(3) == 0 {
			s.ok(s.daemons[i].Ready(s.ctx))
			s.ok(s.daemons[i].Stop(s.ctx))
		} else {
			s.daemons[i].Kill()
		}
		s.start(i)
	}
	s.ok(lab.Ready(s.ctx, s.daemons...))
	s.kept("a hundred restarts", s.pings)
}

// formerMembers is a commit whose stores have several members. A clone must reach back to it.
const formerMembers = "5c7b1368b4a1b919c0c4bc9f383b874e7c47421e"

// TestMembersAreUpgradedOneAfterTheOther begins with daemons of a former version.
//
// Slow: builds the former version.
func TestMembersAreUpgradedOneAfterTheOther(t *testing.T) {
	t.Parallel()
	former := buildVersion(t, formerMembers)
	link := filepath.Join(t.TempDir(), "flanneld")
	if err := os.Symlink(former, link); err != nil {
		t.Fatal(err)
	}
	with := binaries
	with.Flanneld = link
	s := newTrioWith(t, with, nil)
	s.ok(os.Remove(link))
	s.ok(os.Symlink(binaries.Flanneld, link))
	for i := range s.hosts {
		s.ok(s.daemons[i].Stop(s.ctx))
		s.start(i)
		s.ok(s.daemons[i].Ready(s.ctx))
		s.voters(s.hosts[0], 3)
	}
	s.kept("an upgrade", s.pings)
}

// TestTheAuthorityIsReplacedUnderTraffic does what docs/embedded-etcd.md says.
func TestTheAuthorityIsReplacedUnderTraffic(t *testing.T) {
	t.Parallel()
	s := newTrio(t, nil)
	folder := func(h *lab.Host, name string) string { return filepath.Join(h.StateDir(), name) }
	former := filepath.Join(s.Dir(), "former")
	s.ok(os.CopyFS(former, os.DirFS(folder(s.hosts[3], "store"))))
	users := ctlJSON[[]api.JoinedHost](s.cluster, s.hosts[0], "hosts", "list")

	for i, h := range s.hosts[1:3] {
		s.ok(s.daemons[i+1].Stop(s.ctx))
		s.ok(errors.Join(os.RemoveAll(folder(h, "etcd")), os.RemoveAll(folder(h, "store"))))
	}
	s.await(func() error { return s.works(s.hosts[0], "members", "recover") })
	s.ok(s.daemons[0].Stop(s.ctx))
	s.ok(os.Rename(folder(s.hosts[0], "store"), folder(s.hosts[0], "store.old")))
	s.daemons[0] = s.member(s.hosts[0], "-etcd-embedded-secure")
	s.ok(s.daemons[0].Ready(s.ctx))
	s.await(func() error { return s.works(s.hosts[0], "hosts", "list") })
	_, s.token, _ = strings.Cut(strings.TrimSpace(s.ctlOK(s.hosts[0], "token", "create", "--member")), " -join ")
	for i, h := range s.hosts[1:3] {
		s.daemons[i+1] = s.member(h, "-join", s.token)
	}
	s.ok(s.daemons[3].Stop(s.ctx))
	s.start(3)
	s.ok(lab.Ready(s.ctx, s.daemons...))
	s.voters(s.hosts[0], 3)
	for _, u := range users {
		what := "hosts"
		if u.Member {
			what = "members"
		}
		s.await(func() error { return s.works(s.hosts[0], what, "remove", u.User) })
	}
	s.kept("another authority", s.pings)
	if err := s.letsIn(former); err == nil {
		t.Error("the store lets a certificate of the former authority in")
	}
	if err := s.letsIn(folder(s.hosts[3], "store")); err != nil {
		t.Errorf("the store does not let a certificate of the new authority in: %v", err)
	}
}

// works reports why a command fails.
func (s *trio) works(h *lab.Host, args ...string) error {
	if out, code := s.ctl(h, args...); code != 0 {
		return fmt.Errorf("%s: %s", strings.Join(args, " "), out)
	}
	return nil
}

// letsIn reports whether the first member accepts the certificate of a host.
func (s *trio) letsIn(folder string) error {
	pair := must[tls.Certificate](s.t)(tls.LoadX509KeyPair(filepath.Join(folder, "host.pem"),
		filepath.Join(folder, "host.key")))
	conn := must[net.Conn](s.t)(s.hosts[3].Dial(s.ctx, "tcp", netip.AddrPortFrom(s.hosts[0].Addr, 2379).String()))
	defer conn.Close()
	c := tls.Client(conn, &tls.Config{
		Certificates: []tls.Certificate{pair}, InsecureSkipVerify: true, NextProtos: []string{"h2"},
	})
	_, err := c.Read(make([]byte, 1)) // a client learns that it was refused when it reads
	return err
}
