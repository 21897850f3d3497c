package lab_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"flanneld/lab"
)

const (
	// retaken is how soon a host must have its deleted key back, noticed how soon it must have settled after a loss or the
	// return of the store.
	retaken = time.Second
	noticed = 5 * time.Second
	// forwarded is how long packets still go to a host whose record was deleted.
	forwarded = 800 * time.Millisecond
	// slack is for a machine that does other work as well.
	slack = 2 * time.Second
)

// record returns the value of a record, or an error if there is none or it does not name the text.
func (c *cluster) record(e *lab.Etcd, key, text string) error {
	records, err := e.Records(c.ctx)
	if err != nil {
		return err
	}
	if value, ok := records[key]; !ok || !strings.Contains(value, text) {
		return fmt.Errorf("record %s is %q, want %q in it", key, value, text)
	}
	return nil
}

// within waits for a condition, and fails the test if it took longer.
func (c *cluster) within(most time.Duration, condition func() error) {
	c.t.Helper()
	start := time.Now()
	c.await(condition)
	c.inTime("the wait", time.Since(start), most+slack)
}

// says waits until a daemon has logged something.
func (c *cluster) logs(d *lab.Daemon, text string) func() error {
	return func() error {
		if !strings.Contains(d.Log(), text) {
			return fmt.Errorf("%q is not in the log", text)
		}
		return nil
	}
}

// revoke ends the store lease of a record.
func (c *cluster) revoke(e *lab.Etcd, key string) {
	c.t.Helper()
	client := must[*clientv3.Client](c.t)(e.Client())
	defer client.Close()
	resp := must[*clientv3.GetResponse](c.t)(client.Get(c.ctx, lab.Prefix+"/subnets/"+key))
	_, err := client.Revoke(c.ctx, clientv3.LeaseID(resp.Kvs[0].Lease))
	c.ok(err)
}

func ownKeyIsTakenAgain(s *site) {
	s.connected()
	pings := s.traffic()
	var longest time.Duration
	for i, h := range s.hosts {
		key := s.keyOf(h)
		again := func() {
			s.t.Helper()
			start := time.Now()
			s.within(retaken, func() error { return s.cluster.record(s.store, key, underlayOf(h)) })
			away := time.Since(start)
			s.t.Logf("deleted at %s, back after %s", start.UTC().Format(time.TimeOnly+".000"), away)
			longest = max(longest, away)
		}
		for range 3 {
			s.ok(s.store.Delete(s.ctx, "subnets/"+key))
			again()
		}
		s.revoke(s.store, key)
		again()
		if got := s.keyOf(h); got != key {
			s.t.Errorf("host %d has %s, before %s", i, got, key)
		}
	}
	if longest > forwarded && slower() > 1 {
		s.flowsAgain(pings) // on such a machine peers have given the host up meanwhile
		return
	}
	s.nothingLost("deleted keys", pings)
}

func TestAnOwnKeyThatAnotherHostHasTakenIsNamedAndNotFoughtFor(t *testing.T) {
	t.Parallel()
	const thief = `{"PublicIP":"198.18.200.200","PublicIPv6":"fd00:18::c8","BackendType":"vxlan",` +
		`"BackendData":{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:44"},"BackendV6Data":{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:66"},"Host":"thief"}`
	c := newCluster(t)
	e := c.etcd(dualConfig)
	hosts := c.hosts(3)
	move := c.flanneld(hosts[0], e)
	hold := c.flanneld(hosts[1], e, "-on-lost-subnet=hold")
	exit := c.flanneld(hosts[2], e, "-on-lost-subnet=exit")
	var keys []string
	for _, h := range hosts {
		keys = append(keys, c.keyOf(h))
		c.ok(e.Put(c.ctx, "subnets/"+keys[len(keys)-1], thief))
	}
	c.within(noticed, func() error {
		if got := c.keyOf(hosts[0]); got == keys[0] {
			return fmt.Errorf("subnet file still has %s", got)
		}
		return nil
	})
	c.within(noticed, func() error { return c.record(e, c.keyOf(hosts[0]), hosts[0].Addr.String()) })
	c.wantWaiting(hold, "was taken by thief (198.18.200.200, fd00:18::c8)")
	code, err := exit.Wait(c.ctx)
	if code != 3 || err != nil {
		t.Errorf("exit code %d, %v, want 3", code, err)
	}
	for i, d := range []*lab.Daemon{move, hold, exit} {
		if n := strings.Count(d.Log(), `msg="subnet lost to another host"`); n != 1 ||
			!strings.Contains(d.Log(), `holder="thief (198.18.200.200, fd00:18::c8)"`) {
			t.Errorf("host %d has logged the loss %d times:\n%s", i, n, d.Log())
		}
		c.ok(c.record(e, keys[i], "thief"))
	}
	c.ok(e.Delete(c.ctx, "subnets/"+keys[1]))
	c.within(noticed, func() error { return c.record(e, keys[1], hosts[1].Addr.String()) })
}

func lostStoreIsFilledAgain(s *site) {
	s.connected()
	backup := filepath.Join(s.Dir(), "backup.db")
	s.ok(s.store.Snapshot(s.ctx, backup))
	late := s.host("not-in-the-backup")
	d := s.flanneld(late, s.store)
	hosts, pings := append(slices.Clone(s.hosts), late), s.traffic()
	if p := s.cluster.pods(late)[0]; s.carries() {
		s.reaches(s.pods[0].Namespace, p, lab.PingOptions{})
		pings = append(pings, s.pinged(s.pods[0], p)...)
	}
	var keys []string
	for _, h := range hosts {
		keys = append(keys, s.keyOf(h))
	}
	settled := func() {
		s.t.Helper()
		for i, h := range hosts {
			s.within(noticed, func() error { return s.cluster.record(s.store, keys[i], underlayOf(h)) })
			if got := s.keyOf(h); got != keys[i] {
				s.t.Errorf("host %d has %s, before %s", i, got, keys[i])
			}
		}
	}
	for i := range 30 { // the new store starts far below the revision of the old one
		s.ok(s.store.Put(s.ctx, "other", fmt.Sprint(i)))
	}
	s.ok(s.store.Wipe(s.ctx))
	s.ok(s.store.Put(s.ctx, "config", s.config()))
	settled()
	s.ok(s.store.Restore(s.ctx, backup, lab.RestoreOptions{}))
	settled()
	s.nothingLost("a wiped and a restored store", pings)
	s.ok(d.Stop(s.ctx))
	s.ok(s.store.Delete(s.ctx, "subnets/"+keys[2]))
}

func storeIsNotNeeded(s *site) {
	s.connected()
	pings, h := s.traffic(), s.hosts[0]
	key := s.keyOf(h)
	s.store.Kill()
	s.within(noticed, s.logs(s.daemons[1], "store unreachable"))
	s.ok(s.daemons[0].Stop(s.ctx)) // writes down the peers
	start := time.Now()
	d := s.flanneld(h, s.store)
	s.inTime("the start", d.ReadyAt().Sub(start), 2*time.Second)
	s.await(func() error {
		if text := d.Status(); !strings.Contains(text, "store unreachable since") {
			return fmt.Errorf("status %q", text)
		}
		return nil
	})
	s.restarted("a killed store and a restarted daemon", pings)

	d.Kill()
	s.reboot(h)
	s.daemons[0] = s.flanneld(h, s.store)
	s.connected()

	pings = s.traffic()
	s.ok(s.store.Start(s.ctx))
	late := s.host("after-the-outage")
	s.flanneld(late, s.store)
	s.within(noticed, func() error { return s.cluster.record(s.store, key, underlayOf(h)) })
	if p := s.cluster.pods(late)[0]; s.carries() {
		s.reaches(s.pods[0].Namespace, p, lab.PingOptions{})
	}
	s.nothingLost("the return of the store", pings)
}

// reboot takes away what a reboot does: all that the daemon has in the kernel, and what the service manager keeps for
// it.
func (s *site) reboot(h *lab.Host) {
	s.t.Helper()
	h.ForgetFiles()
	s.ok(h.Run("ip route flush proto 70", "ip -6 route flush proto 70"))
	links := must[string](s.t)(h.Output("ip -br link"))
	for line := range strings.Lines(links) {
		name, _, _ := strings.Cut(strings.Fields(line)[0], "@") // iproute2 names the link that a tunnel is bound to
		if strings.HasPrefix(name, "flannel") {
			s.ok(h.Run("ip link del " + name))
		}
	}
}

func TestAHostThatLosesPowerRightAfterItsStartKnowsItsPeersWithoutAStore(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	e := c.etcd(dualConfig)
	hosts := c.hosts(2)
	daemons := c.startAll(hosts, e)
	pods := c.pods(hosts...)
	c.within(noticed, func() error { return remembers(hosts[0], c.keyOf(hosts[1])) })
	daemons[0].Kill()
	e.Kill()
	c.ok(hosts[0].Run("ip link del flannel.1", "ip link del flannel-v6.1"))
	c.flanneld(hosts[0], e)
	c.reaches(pods[0].Namespace, pods[1], lab.PingOptions{})
}

// remembers reports whether the state folder of a host names the subnets of a peer.
func remembers(h *lab.Host, key string) error {
	files, err := filepath.Glob(filepath.Join(h.StateDir(), "*.peers"))
	if err != nil {
		return err
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err == nil && strings.Contains(string(text), strings.Split(key, "-")[0]) {
			return nil
		}
	}
	return fmt.Errorf("%s is not in the state folder", key)
}

// Slow: thirty hosts are made and thirty daemons start on two processors.
func TestManyDaemonsThatStartAtOnceGetDifferentSubnets(t *testing.T) {
	t.Parallel()
	const many = 30
	c := newClusterWith(t, lab.Options{Families: lab.IPv4})
	e := c.etcd(`{"Network":"10.5.0.0/16","Backend":{"Type":"alloc"}}`)
	hosts := c.hosts(many)
	c.startAll(hosts, e)
	seen := map[string]bool{}
	for _, h := range hosts {
		seen[c.keyOf(h)] = true
	}
	if records := must[map[string]string](t)(e.Records(c.ctx)); len(seen) != many || len(records) != many {
		t.Errorf("%d subnets and %d records, want %d", len(seen), len(records), many)
	}
}

func TestAClonedStateEndsWithTwoSubnetsAndALoudLine(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	e := c.etcd(dualConfig)
	hosts := c.hosts(2)
	d := c.flanneld(hosts[0], e)
	c.ok(os.CopyFS(hosts[1].StateDir(), os.DirFS(hosts[0].StateDir())))
	c.renameState(hosts[0], hosts[1])
	key := c.keyOf(hosts[0])
	clone := c.start(hosts[1], e)
	c.await(c.logs(clone, "probably a cloned disk"))
	c.await(func() error {
		if _, err := hosts[1].Env(); err != nil {
			return err
		}
		if c.keyOf(hosts[1]) == key {
			return errors.New("the clone is on the same subnet")
		}
		return c.record(e, c.keyOf(hosts[1]), hosts[1].Addr.String())
	})
	c.ok(c.record(e, key, hosts[0].Addr.String()))
	if got := c.keyOf(hosts[0]); got != key {
		t.Errorf("the original has %s, before %s", got, key)
	}
	c.await(c.logs(d, "refused"))
}

// renameState gives the state files of one host the names that they have on another one: they are called by the subnet
// file.
func (c *cluster) renameState(from, to *lab.Host) {
	c.t.Helper()
	name := func(h *lab.Host) string {
		return strings.ReplaceAll(strings.Trim(filepath.Clean(h.SubnetFile()), "/"), "/", "-")
	}
	for _, ending := range []string{".json", ".peers", ".lock"} {
		err := os.Rename(filepath.Join(to.StateDir(), name(from)+ending), filepath.Join(to.StateDir(), name(to)+ending))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			c.t.Fatal(err)
		}
	}
}

func TestASecondDaemonWithTheSameStateRefusesToRun(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	e := c.etcd(dualConfig)
	h := c.host("host1")
	d := c.flanneld(h, e)
	second := c.start(h, e, "-healthz-port", "0")
	if code, err := second.Wait(c.ctx); code != 1 || err != nil {
		t.Errorf("exit code %d, %v", code, err)
	}
	c.ok(c.logs(second, fmt.Sprintf("another flanneld (pid %d) uses this state", d.Pid()))())
}

func TestTheAddressOfALivingHostIsRefusedWithItsName(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	e := c.etcd(dualConfig)
	hosts := c.hosts(2)
	c.flanneld(hosts[0], e)
	double := c.start(hosts[1], e, "-public-ip", hosts[0].Addr.String())
	c.wantWaiting(double, "public IP conflict: the running host")
	if n := len(must[map[string]string](t)(e.Records(c.ctx))); n != 1 {
		t.Errorf("%d records, want 1", n)
	}
}
