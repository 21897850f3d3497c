package lab_test

import (
	"fmt"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"flanneld/lab"
)

// TestAHostThatIsCutOffFromTheStoreKeepsItsPeersAndCatchesUp is not among the cases of every backend and family because
// a connection that has gone silent is given up after 13 s: the networks are looked at side by side.
//
// Slow: a connection that has gone silent is given up after 13 s.
func TestAHostThatIsCutOffFromTheStoreKeepsItsPeersAndCatchesUp(t *testing.T) {
	t.Parallel()
	for _, net := range networks() {
		if !net.carries() {
			continue
		}
		t.Run(net.String(), func(t *testing.T) {
			t.Parallel()
			cutOffHostCatchesUp(newSite(t, net, 2))
		})
	}
}

func cutOffHostCatchesUp(s *site) {
	s.connected()
	pings := s.traffic()
	said := func(text string) int { return strings.Count(s.daemons[0].Log(), text) }
	again := func(text string, before int) func() error {
		return func() error {
			if n := said(text); n != before+1 {
				return fmt.Errorf("%q was said %d times, before %d", text, n, before)
			}
			return nil
		}
	}
	// The text alone also stands in the line about the state of the daemon.
	const lost = `msg="store unreachable`
	away, back := said(lost), said("store reachable again")
	mend, err := s.hosts[0].CutFrom(s.store)
	s.ok(err)
	late := s.host("while-cut-off")
	s.flanneld(late, s.store)
	pod := s.cluster.pods(late)[0]
	s.compact(s.store)
	s.await(again(lost, away))
	s.ok(mend())
	s.within(noticed, again("store reachable again", back))
	s.reaches(s.pods[0].Namespace, pod, lab.PingOptions{})
	s.nothingLost("a partition", pings)
	s.ok(again(lost, away)())
}

// compact has the store forget its history.
func (c *cluster) compact(e *lab.Etcd) {
	c.t.Helper()
	client := must[*clientv3.Client](c.t)(e.Client())
	defer client.Close()
	resp := must[*clientv3.GetResponse](c.t)(client.Get(c.ctx, "x"))
	_, err := client.Compact(c.ctx, resp.Header.Revision)
	c.ok(err)
}

// Slow: etcd elects a leader after each of three restarts.
func TestThreeMembersAreRestartedOneByOneWithoutALostPacket(t *testing.T) {
	t.Parallel()
	for _, net := range networks() {
		if net.backend != "vxlan" { // the store knows nothing of the backend
			continue
		}
		t.Run(net.String(), func(t *testing.T) {
			t.Parallel()
			membersAreRestarted(t, net)
		})
	}
}

func membersAreRestarted(t *testing.T, net network) {
	c := newClusterWith(t, lab.Options{Families: net.families})
	members := must[[]*lab.Etcd](t)(c.EtcdCluster(c.ctx, "etcd", 3))
	c.ok(members[0].Put(c.ctx, "config", net.config()))
	hosts := c.hosts(2)
	for _, h := range hosts {
		var urls []string
		for _, m := range members {
			urls = append(urls, m.URLFor(h))
		}
		d := must[*lab.Daemon](t)(h.Flanneld("-etcd-endpoints", strings.Join(urls, ",")))
		c.ok(d.Ready(c.ctx))
	}
	pods := c.pods(hosts...)
	c.reaches(pods[0].Namespace, pods[1], lab.PingOptions{})
	pings := c.pinged(pods[0], pods[1])
	for i, m := range members {
		m.Kill() // the leader among them, sooner or later
		other := members[(i+1)%3]
		key := c.keyOf(hosts[0])
		c.await(func() error { return other.Delete(c.ctx, "subnets/"+key) })
		c.within(noticed, func() error { return c.record(other, key, underlayOf(hosts[0])) })
		c.ok(m.Start(c.ctx))
	}
	c.nothingLost("restarted members", pings)
	for _, h := range hosts {
		c.ok(c.record(members[0], c.keyOf(h), underlayOf(h)))
	}
}

// TestAHostThatIsKilledKnowsThePeersThatHaveJustCome: the file of all peers is written now and then only, and a daemon
// that starts while the store is away removes what leads to peers that it does not know.
func TestAHostThatIsKilledKnowsThePeersThatHaveJustCome(t *testing.T) {
	t.Parallel()
	for _, backend := range []string{"vxlan", "host-gw"} {
		t.Run(backend, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, network{backend, lab.Dual}, 2)
			s.connected()
			late := s.host("late")
			s.start(late, s.store)
			h := s.hosts[0]
			s.await(func() error {
				routes, err := h.Output("ip -6 route show proto 70")
				if n := strings.Count(routes, "::/64 "); err == nil && n != 2 {
					err = fmt.Errorf("routes to %d subnets, want 2:\n%s", n, routes)
				}
				return err
			})
			s.daemons[0].Kill()
			s.store.Kill()
			before := s.look(h)
			d := s.start(h, s.store)
			s.ok(d.Ready(s.ctx))
			if got := s.look(h); got != before {
				t.Errorf("kernel:\n%s\nbefore the daemon was killed:\n%s", got, before)
			}
		})
	}
}
