package lab_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"flanneld/lab"
)

// cases hold for every backend in every family, or for those that are named. Each leaves the two hosts and their pods
// as they were.
var cases = []struct {
	name     string
	backends string // empty: all
	run      func(s *site)
}{
	{"the own record is that of flannel", "", ownRecordIsThatOfFlannel},
	{"pods reach pods and hosts with full packets", "vxlan host-gw udp wireguard ipip extension", podsReachPodsAndHosts},
	{"a restart is invisible to traffic and keeps the subnets", "", restartIsInvisible},
	{"a host that joins later is reached, and forgotten with its record", "", laterHostIsReachedAndForgotten},
	{"packets on the wire are those of flannel", "vxlan host-gw udp wireguard ipip", wireFormIsThatOfFlannel},
	{"packets that are too big come back", "vxlan udp wireguard ipip", tooBigPacketsComeBack},
	{"tampering is healed under traffic", "vxlan host-gw udp wireguard ipip", tamperingIsHealed},
	{"a start cleans up and leaves others alone", "vxlan host-gw udp wireguard ipip", startCleansUp},
	{"an own key that is deleted or expires is taken again without a lost packet", "", ownKeyIsTakenAgain},
	{"without a store traffic flows, and a daemon that starts serves within two seconds", "", storeIsNotNeeded},
	{"a wiped and a restored store are filled again without a lost packet", "", lostStoreIsFilledAgain},
	{"the underlay is followed live", "", underlayIsFollowed},
}

// Slow: each network goes through up to twelve cases, and some forty kinds of tampering and leftovers, one after the
// other on one cluster.
func TestEveryBackendInEveryFamily(t *testing.T) {
	t.Parallel()
	for _, net := range networks() {
		t.Run(net.String(), func(t *testing.T) {
			t.Parallel()
			s := newSite(t, net, 2)
			for _, c := range cases {
				if c.backends == "" || strings.Contains(c.backends, net.backend) {
					t.Run(c.name, func(t *testing.T) { c.run(s.in(t)) })
				}
			}
		})
	}
}

// site is a cluster that runs one network.
type site struct {
	*cluster
	network
	store   *lab.Etcd
	hosts   []*lab.Host
	daemons []*lab.Daemon
	pods    []*lab.Pod
}

func newSite(t *testing.T, net network, n int) *site {
	t.Helper()
	return newSiteWith(t, net, net.config(), n)
}

// newSiteWith returns one with a network configuration that says more than the network's own.
func newSiteWith(t *testing.T, net network, config string, n int) *site {
	t.Helper()
	s := &site{cluster: newClusterWith(t, lab.Options{Families: net.families}), network: net}
	s.store = s.etcd(config)
	s.hosts = s.cluster.hosts(n)
	s.daemons = s.startAll(s.hosts, s.store)
	s.pods = s.cluster.pods(s.hosts...)
	return s
}

// in returns the site for a subtest, which has a time of its own.
func (s site) in(t *testing.T) *site {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	s.cluster = &cluster{s.Lab, t, ctx}
	return &s
}

// sub runs a subtest of a case.
func (s *site) sub(name string, f func(s *site)) {
	s.t.(*testing.T).Run(name, func(t *testing.T) { f(s.in(t)) })
}

// connected wants the pods to reach each other; where the backend carries nothing, that nothing stands in the kernel.
func (s *site) connected() {
	s.t.Helper()
	if !s.carries() {
		s.ok(s.nothingStands(s.hosts[0]))
		return
	}
	for i, from := range s.pods {
		s.reaches(from.Namespace, s.pods[1-i], lab.PingOptions{})
	}
}

func (s *site) nothingStands(h *lab.Host) error {
	for _, command := range []string{"ip route show proto 70", "ip -6 route show proto 70", "ip -br link show type vxlan",
		"ip -br link show type tun"} {
		if out, err := h.Output(command); err != nil || out != "" {
			return errors.Join(err, fmt.Errorf("%s: %s", command, out))
		}
	}
	return nil
}

// traffic starts to ping between the pods, both ways in each family; nothing where the backend carries nothing.
func (s *site) traffic() []*lab.Pings {
	s.t.Helper()
	if !s.carries() {
		return nil
	}
	return append(s.pinged(s.pods[0], s.pods[1]), s.pinged(s.pods[1], s.pods[0])...)
}

// underlayOf returns an address of a host on the underlay, IPv4 first.
func underlayOf(h *lab.Host) string {
	if h.Addr.IsValid() {
		return h.Addr.String()
	}
	return h.Addr6.String()
}

// subnets returns the host's subnets, IPv4 first.
func (c *cluster) subnets(h *lab.Host) []netip.Prefix {
	c.t.Helper()
	env, err := h.Env()
	c.ok(err)
	return env.Subnets
}

// keyOf returns the name of a host's record below PREFIX/subnets/.
func (c *cluster) keyOf(h *lab.Host) string {
	c.t.Helper()
	var parts []string
	for _, p := range c.subnets(h) {
		parts = append(parts, strings.ReplaceAll(p.String(), "/", "-"))
	}
	return strings.Join(parts, "&")
}

// reaches pings all addresses of a pod from somewhere.
func (c *cluster) reaches(from *lab.Namespace, to *lab.Pod, o lab.PingOptions) {
	c.t.Helper()
	for _, a := range to.Addrs {
		_, err := from.Ping(c.ctx, a, o)
		c.ok(err)
	}
}

func podsReachPodsAndHosts(s *site) {
	env, err := s.hosts[0].Env()
	s.ok(err)
	if env.MTU != s.mtu() {
		s.t.Errorf("MTU %d in subnet.env, want %d", env.MTU, s.mtu())
	}
	full := lab.PingOptions{Size: env.MTU, DontFragment: true}
	for i, from := range s.pods {
		to := s.pods[1-i]
		s.reaches(from.Namespace, to, lab.PingOptions{})
		s.reaches(from.Namespace, to, full)
		s.reaches(s.hosts[i].Namespace, to, lab.PingOptions{})
		for _, p := range s.subnets(to.Host) { // the other host, by its address on the pods' bridge
			_, err := from.Ping(s.ctx, p.Addr().Next(), lab.PingOptions{})
			s.ok(err)
		}
	}
}

func laterHostIsReachedAndForgotten(s *site) {
	late := s.host("late")
	d := s.flanneld(late, s.store)
	p := must[*lab.Pod](s.t)(late.Pod())
	for _, from := range s.pods {
		if s.carries() {
			s.reaches(from.Namespace, p, lab.PingOptions{})
		}
	}
	s.t.Logf("pinged from all %s after it was ready", time.Since(d.ReadyAt()).Round(time.Millisecond))

	// A host that ends for good: its record is deleted, and all that led to it goes away.
	s.ok(d.Stop(s.ctx))
	subnets, start := s.subnets(late), time.Now()
	s.ok(s.store.Delete(s.ctx, "subnets/"+s.keyOf(late)))
	for _, h := range s.hosts {
		s.await(func() error { return s.forgotten(h, late, subnets) })
	}
	s.t.Logf("a deleted lease was gone from all after %s", time.Since(start).Round(time.Millisecond))
}

// forgotten says what on a host still leads to another one.
func (s *site) forgotten(h, gone *lab.Host, subnets []netip.Prefix) error {
	commands := []string{"ip route show", "ip -6 route show"}
	for _, dev := range s.devices() {
		commands = append(commands, "ip neigh show dev "+dev, "ip -6 neigh show dev "+dev, "bridge fdb show dev "+dev)
	}
	for _, command := range commands {
		out, err := h.Output(command)
		if err != nil {
			return err
		}
		for _, subnet := range subnets {
			if words := strings.Fields(out); slices.Contains(words, subnet.String()) ||
				slices.Contains(words, subnet.Addr().String()) || s.leadsTo(words, gone) {
				return fmt.Errorf("%s: still there: %s", command, out)
			}
		}
	}
	return nil
}

// leadsTo reports whether a forwarding entry names a host. A plain route may: that host is on the underlay still.
func (s *site) leadsTo(words []string, h *lab.Host) bool {
	i := slices.Index(words, "dst")
	return i >= 0 && (slices.Contains(words[i:], h.Addr.String()) || slices.Contains(words[i:], h.Addr6.String()))
}

func restartIsInvisible(s *site) {
	ends := []struct {
		name string
		end  func(ctx context.Context, d *lab.Daemon) error
	}{
		{"SIGTERM", func(ctx context.Context, d *lab.Daemon) error { return d.Stop(ctx) }},
		{"SIGINT", func(ctx context.Context, d *lab.Daemon) error {
			if err := d.Signal(syscall.SIGINT); err != nil {
				return err
			}
			_, err := d.Wait(ctx)
			return err
		}},
		{"SIGKILL", func(_ context.Context, d *lab.Daemon) error {
			d.Kill()
			return nil
		}},
	}
	before, macs := s.keyOf(s.hosts[0]), s.macs(s.hosts[0])
	s.connected()
	for _, way := range ends {
		pings := s.traffic()
		s.ok(way.end(s.ctx, s.daemons[0]))
		s.daemons[0] = s.flanneld(s.hosts[0], s.store)
		if way.name == "SIGKILL" && s.backend == "udp" {
			s.flowsAgain(pings) // what the process had in hand died with it
		} else {
			s.restarted(way.name, pings)
		}
		if got := s.keyOf(s.hosts[0]); got != before {
			s.t.Errorf("%s: subnets %s, before %s", way.name, got, before)
		}
		if got := s.macs(s.hosts[0]); !slices.Equal(got, macs) {
			s.t.Errorf("%s: MACs %s, before %s", way.name, got, macs)
		}
	}
}

// pinged starts to ping all addresses of a pod from another one.
func (c *cluster) pinged(from, to *lab.Pod) []*lab.Pings {
	c.t.Helper()
	var out []*lab.Pings
	for _, a := range to.Addrs {
		out = append(out, must[*lab.Pings](c.t)(from.Pings(a, lab.PingOptions{})))
	}
	return out
}

// nothingLost lets some more pings be answered, and wants all of them to be.
func (c *cluster) nothingLost(what string, pings []*lab.Pings) {
	c.t.Helper()
	for _, st := range c.flowsAgain(pings) {
		if st.Lost() != 0 {
			c.t.Errorf("%s: %s", what, st)
		}
	}
}

// restarted wants pings to have survived a restart of the daemon; where it carries packets itself, to be away for a
// short time only.
func (s *site) restarted(what string, pings []*lab.Pings) {
	s.t.Helper()
	if s.survives() {
		s.nothingLost(what, pings)
		return
	}
	for _, st := range s.flowsAgain(pings) {
		s.inTime("the gap in the traffic after "+what, st.LongestGap, restartGap+scaled(slack))
	}
}

// flowsAgain lets some more pings be answered, and returns the outcome of all.
func (c *cluster) flowsAgain(pings []*lab.Pings) []lab.PingStats {
	c.t.Helper()
	var out []lab.PingStats
	for _, p := range pings {
		so := p.Stats().Received
		c.await(func() error {
			if p.Stats().Received < so+20 {
				return errors.New("waiting for answers")
			}
			return nil
		})
		out = append(out, p.Stop())
	}
	return out
}

// macs returns the hardware addresses of a host's tunnel devices.
func (s *site) macs(h *lab.Host) []string {
	s.t.Helper()
	var out []string
	for _, dev := range s.devices() {
		out = append(out, strings.Fields(must[string](s.t)(h.Output("ip -br link show " + dev)))[2])
	}
	return out
}
