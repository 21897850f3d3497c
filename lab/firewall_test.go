package lab_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"flanneld/api"
	"flanneld/lab"
)

// silence is how long nothing must arrive to count as not arriving; what arrives takes far less.
const silence = 500 * time.Millisecond

// arrival sends datagrams from one namespace to an address that another one listens on, and returns the source that
// arrives; the zero value if none does within the time. dst is what the sender addresses, at is where the listener is.
type arrival struct {
	from   inNamespace
	source netip.Addr     // to send from; the zero value: the kernel's choice
	dst    netip.AddrPort // to send to; the zero value: at
	to     inNamespace
	at     netip.AddrPort
	within time.Duration
}

func (a arrival) see(t testing.TB) netip.Addr {
	t.Helper()
	if !a.dst.IsValid() {
		a.dst = a.at
	}
	in := listen(t, a.to, a.at)
	defer in.Close()
	var out net.Conn
	err := a.from.Do(func() (err error) {
		d := net.Dialer{}
		if a.source.IsValid() {
			d.LocalAddr = net.UDPAddrFromAddrPort(netip.AddrPortFrom(a.source, 0))
		}
		out, err = d.Dial("udp", a.dst.String())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	buf := make([]byte, 100)
	for deadline := time.Now().Add(a.within); time.Now().Before(deadline); {
		if _, err := out.Write([]byte("who am I?")); err != nil && !errors.Is(err, os.ErrPermission) {
			continue // an ICMP error that came back
		}
		_ = in.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		if _, from, err := in.ReadFrom(buf); err == nil {
			return from.(*net.UDPAddr).AddrPort().Addr().Unmap()
		}
	}
	return netip.Addr{}
}

// listen returns a socket in a network namespace. One that was closed a moment ago may be in use still: a process that
// was being started meanwhile has it until it runs its program.
func listen(t testing.TB, where inNamespace, address netip.AddrPort) (in net.PacketConn) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	err := lab.Await(ctx, func() error {
		return where.Do(func() (err error) {
			in, err = net.ListenPacket("udp", address.String())
			return err
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	return in
}

// firewallSite is two hosts with two pods each, and a host that is no member.
type firewallSite struct {
	*cluster
	etcd     *lab.Etcd
	hosts    []*lab.Host
	pods     [][]*lab.Pod // of each host
	daemons  []*lab.Daemon
	outsider *lab.Host
}

func newFirewallSite(t *testing.T, n network, args ...string) *firewallSite {
	t.Helper()
	c := newClusterWith(t, lab.Options{Families: n.families})
	s := &firewallSite{cluster: c, etcd: c.etcd(n.config()), hosts: c.hosts(2), outsider: c.host("outsider")}
	s.daemons = c.startAll(s.hosts, s.etcd, args...)
	for _, h := range s.hosts {
		s.pods = append(s.pods, []*lab.Pod{must[*lab.Pod](t)(h.Pod()), must[*lab.Pod](t)(h.Pod())})
	}
	return s
}

// restart ends the daemon of a host and starts it with other flags.
func (s *firewallSite) restart(i int, args ...string) {
	s.t.Helper()
	s.ok(s.daemons[i].Stop(s.ctx))
	s.daemons[i] = s.flanneld(s.hosts[i], s.etcd, args...)
}

// tunnelAddr returns the address of the host's own device.
func (s *firewallSite) tunnelAddr(i, family int) netip.Addr {
	return s.subnets(s.hosts[i])[family].Addr()
}

// publish makes the host's port lead to a pod, as docker and portmap do.
func (s *firewallSite) publish(h *lab.Host, port uint16, to netip.AddrPort) {
	s.t.Helper()
	program := "iptables-nft"
	if to.Addr().Is6() {
		program = "ip6tables-nft"
	}
	s.ok(h.Run(fmt.Sprintf("%s -t nat -A PREROUTING -p udp -d %s --dport %d -j DNAT --to-destination %s", program,
		h.AddrOf(to.Addr()), port, to)))
}

func at(a netip.Addr, port uint16) netip.AddrPort { return netip.AddrPortFrom(a, port) }

// status asks a daemon.
func (s *firewallSite) status(d *lab.Daemon) api.Status {
	s.t.Helper()
	_, text, err := d.Get(s.ctx, "/status")
	s.ok(err)
	var out api.Status
	s.ok(json.Unmarshal([]byte(text), &out))
	return out
}

func TestTheRightSourceArrives(t *testing.T) {
	t.Parallel()
	s := newFirewallSite(t, network{"vxlan", lab.Dual}, "-ip-masq")
	for family := range 2 {
		for _, h := range s.hosts {
			for j, p := range s.pods {
				s.publish(h, uint16(8000+100*family+j), at(p[0].Addrs[family], 9000))
			}
		}
	}
	for _, masq := range []bool{true, false} {
		flag := fmt.Sprintf("-ip-masq=%t", masq)
		if !masq {
			s.restart(0, flag)
			s.restart(1, flag)
		}
		for family, name := range []string{"IPv4", "IPv6"} {
			for _, c := range s.paths(family, masq) {
				t.Run(fmt.Sprintf("%s, %s, %s", flag, name, c.name), func(t *testing.T) {
					c.way.within = 5 * time.Second
					if got := c.way.see(t); got != c.want {
						t.Errorf("%s arrives, want %s", got, c.want)
					}
				})
			}
		}
	}
}

// path is one way through the network, and the source that is to arrive at its end.
type path struct {
	name string
	way  arrival
	want netip.Addr
}

func (s *firewallSite) paths(family int, masq bool) []path {
	h1, h2 := s.hosts[0], s.hosts[1]
	near, beside, far := s.pods[0][0], s.pods[0][1], s.pods[1][0]
	a, b, c := near.Addrs[family], beside.Addrs[family], far.Addrs[family]
	hidden := func(by, plain netip.Addr) netip.Addr {
		if masq {
			return by
		}
		return plain
	}
	u1, u2, out := h1.AddrOf(a), h2.AddrOf(a), s.outsider.AddrOf(a)
	t1 := s.tunnelAddr(0, family)
	gateway := s.subnets(h1)[family].Addr().Next()
	port := func(host netip.Addr, pod int) netip.AddrPort { return at(host, uint16(8000+100*family+pod)) }
	paths := []path{
		{"pod to pod of another host", arrival{from: near.Namespace, to: far.Namespace, at: at(c, 9000)}, a},
		{"pod to pod of the same host", arrival{from: near.Namespace, to: beside.Namespace, at: at(b, 9000)}, a},
		{"pod to another host", arrival{from: near.Namespace, to: h2.Namespace, at: at(u2, 9000)}, hidden(u1, a)},
		{"pod to its own host", arrival{from: near.Namespace, to: h1.Namespace, at: at(u1, 9000)}, a},
		{"pod to the outside", arrival{from: near.Namespace, to: s.outsider.Namespace, at: at(out, 9000)}, hidden(u1, a)},
		{"host to its own pod", arrival{from: h1.Namespace, to: near.Namespace, at: at(a, 9000)}, gateway},
		{"host to a pod of another host", arrival{from: h1.Namespace, to: far.Namespace, at: at(c, 9000)}, t1},
		{"host by its underlay address to a pod of another host",
			arrival{from: h1.Namespace, source: u1, to: far.Namespace, at: at(c, 9000)}, hidden(t1, u1)},
		{"outside to a pod of the published host",
			arrival{from: s.outsider.Namespace, dst: port(u1, 0), to: near.Namespace, at: at(a, 9000)}, out},
		{"pod to a published port of another host",
			arrival{from: near.Namespace, dst: port(u2, 1), to: far.Namespace, at: at(c, 9000)}, hidden(u1, a)},
	}
	if masq { // else the answer could not find its way back through the host
		paths = append(paths, path{"outside to a pod of another host than the published one",
			arrival{from: s.outsider.Namespace, dst: port(u1, 1), to: far.Namespace, at: at(c, 9000)}, t1})
	}
	return paths
}

func TestMarkedPacketsAreLeftToKubeProxy(t *testing.T) {
	t.Parallel()
	s := newFirewallSite(t, network{"vxlan", lab.IPv4}, "-ip-masq")
	h, pod := s.hosts[0], s.pods[0][0]
	out := arrival{from: pod.Namespace, to: s.outsider.Namespace, at: at(s.outsider.Addr, 9000), within: 5 * time.Second}
	s.ok(h.Run("iptables-nft -t mangle -A PREROUTING -s 10.5.0.0/16 -j MARK --or-mark 0x4000"))
	if got := out.see(t); got != pod.Addr() {
		t.Errorf("a marked packet arrives from %s, want it untouched from %s", got, pod.Addr())
	}
	for _, command := range []string{"-I", "-A"} { // kube-proxy before and after us
		s.ok(h.Run("iptables-nft -t nat " + command + " POSTROUTING -m mark --mark 0x4000/0x4000 -j MASQUERADE"))
		if got := out.see(t); got != h.Addr {
			t.Errorf("kube-proxy masquerades, and the packet arrives from %s, want %s", got, h.Addr)
		}
		s.ok(h.Run("iptables-nft -t nat -F POSTROUTING"))
		s.ok(h.Run("nft delete table inet flannel")) // is written anew: now behind the chain of iptables
		s.ok(lab.Await(s.ctx, func() error { return h.Run("nft list table inet flannel") }))
	}
}

func TestForwardingPassesWhateverThePolicyIs(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"nft", "legacy"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			s := newFirewallSite(t, network{"vxlan", lab.Dual})
			for _, h := range s.hosts {
				s.ok(h.Run("iptables-"+kind+" -w -P FORWARD DROP", "ip6tables-"+kind+" -w -P FORWARD DROP"))
			}
			passes := func(family int, within time.Duration) bool {
				from, to := s.pods[0][0], s.pods[1][0]
				return arrival{from: from.Namespace, to: to.Namespace, at: at(to.Addrs[family], 9000),
					within: within}.see(t).IsValid()
			}
			for family := range 2 {
				if !passes(family, patience) {
					t.Errorf("family %d: nothing passes", family)
				}
			}
			for i := range s.hosts {
				s.restart(i, "-iptables-forward-rules=false")
			}
			for family := range 2 {
				s.ok(lab.Await(s.ctx, func() error { // the rules go in the background
					if passes(family, silence) {
						return errors.New("packets pass although the policy drops and no rules of ours are wanted")
					}
					return nil
				}))
			}
		})
	}
}

// forge makes a tunnel on a host that is no member, to a pod of a host. What it returns sends through it.
func (s *firewallSite) forge(h *lab.Host, pod *lab.Pod) arrival {
	s.t.Helper()
	a := pod.Addr()
	real, inner, via := "flannel.1", "10.5.250.1/32", "10.5.0.0"
	if a.Is6() {
		real, inner, via = "flannel-v6.1", "fd00:5:0:fa::1/128", "fd00:5::"
	}
	_, mac, _ := strings.Cut(must[string](s.t)(h.Output("ip -o link show "+real)), "link/ether ")
	mac, _, _ = strings.Cut(mac, " ")
	s.ok(s.outsider.Run(
		fmt.Sprintf("ip link add forged type vxlan id 1 dstport 8472 local %s dev eth0 nolearning", s.outsider.AddrOf(a)),
		"ip link set forged up",
		fmt.Sprintf("ip addr add %s dev forged", inner),
		fmt.Sprintf("bridge fdb append %s dev forged dst %s", mac, h.AddrOf(a)),
		fmt.Sprintf("ip route replace %s via %s dev forged onlink", a, via),
		fmt.Sprintf("ip neigh replace %s lladdr %s dev forged nud permanent", via, mac),
	))
	return arrival{from: s.outsider.Namespace, to: pod.Namespace, at: at(a, 9000), within: silence}
}

// inEachFamily runs a test on a vxlan network of each.
func inEachFamily(t *testing.T, f func(t *testing.T, n network)) {
	for _, families := range []lab.Families{lab.IPv4, lab.IPv6} {
		n := network{"vxlan", families}
		t.Run(n.String(), func(t *testing.T) {
			t.Parallel()
			f(t, n)
		})
	}
}

func TestAForgedTunnelPacketIsDroppedAndCounted(t *testing.T) {
	t.Parallel()
	inEachFamily(t, forgedPacketIsDroppedAndCounted)
}

func forgedPacketIsDroppedAndCounted(t *testing.T, n network) {
	s := newFirewallSite(t, n)
	h, pod := s.hosts[0], s.pods[0][0]
	forged := s.forge(h, pod)
	if got := forged.see(t); got.IsValid() {
		t.Errorf("an outsider's packet reached a pod, from %s", got)
	}
	s.ok(lab.Await(s.ctx, func() error {
		f := s.status(s.daemons[0]).Firewall
		if f == nil || !f.StrictIngress || f.Dropped == 0 || len(f.NonPeers) != 1 ||
			f.NonPeers[0].Address != s.outsider.AddrOf(pod.Addr()) || f.NonPeers[0].Packets != f.Dropped {
			return fmt.Errorf("the status shows %+v", f)
		}
		return nil
	}))
	s.ok(lab.Await(s.ctx, func() error {
		if !strings.Contains(s.daemons[0].Log(), "dropped tunnel packets from hosts that are not peers") {
			return errors.New("the log names no outsider")
		}
		return nil
	}))
	if lines := strings.Count(s.daemons[0].Log(), "dropped tunnel packets from hosts that are not peers"); lines != 1 {
		t.Errorf("%d lines about outsiders, want one a minute", lines)
	}
	// What follows shows that the packet was a good one.
	s.restart(0, "-strict-ingress=false")
	forged.within = patience
	if got := forged.see(t); !got.IsValid() {
		t.Error("the outsider's packet does not arrive with -strict-ingress=false either")
	}
	if f := s.status(s.daemons[0]).Firewall; f.StrictIngress || f.Open != "-strict-ingress=false" {
		t.Errorf("the status shows %+v", f)
	}
}

func TestAPeerThatComesIsAdmittedAtOnce(t *testing.T) {
	t.Parallel()
	inEachFamily(t, peerThatComesIsAdmittedAtOnce)
}

func peerThatComesIsAdmittedAtOnce(t *testing.T, n network) {
	s := newFirewallSite(t, n)
	h3 := s.host("host3")
	s.flanneld(h3, s.etcd)
	pod := must[*lab.Pod](t)(h3.Pod())
	for i, pods := range s.pods {
		start := time.Now()
		got := arrival{from: pod.Namespace, to: pods[0].Namespace, at: at(pods[0].Addr(), 9000), within: time.Second}.see(t)
		if got != pod.Addr() {
			t.Errorf("host%d: the new host's packets do not arrive within a second", i+1)
		}
		t.Logf("host%d: first packet after %s", i+1, time.Since(start))
	}
}

func TestPublicAddressesThatAreTranslated(t *testing.T) {
	t.Parallel()
	inEachFamily(t, publicAddressesAreTranslated)
}

func publicAddressesAreTranslated(t *testing.T, n network) {
	c := newClusterWith(t, lab.Options{Families: n.families})
	e := c.etcd(n.config())
	h1, h2 := c.host("host1"), c.host("host2")
	flag, public := "-public-ip", "203.0.113.2"
	if n.families == lab.IPv6 {
		flag, public = "-public-ipv6", "2001:db8::2"
	}
	s := &firewallSite{cluster: c}
	peers := func(h *lab.Host) string { return must[string](t)(h.Output("nft list ruleset")) }
	d1 := c.flanneld(h1, e)
	d2 := c.flanneld(h2, e, flag, public)
	c.ok(c.record(e, c.keyOf(h2), `"`+public+`"`))
	c.ok(lab.Await(c.ctx, func() error {
		if text := peers(h1); !strings.Contains(text, underlayOf(h2)) || !strings.Contains(text, public) {
			return fmt.Errorf("host1 does not admit both addresses of host2:\n%s", text)
		}
		return nil
	}))
	if f := s.status(d1).Firewall; !f.StrictIngress {
		t.Errorf("host1 is open: %+v", f)
	}
	c.ok(lab.Await(c.ctx, func() error { // host1 publishes no address beside its public one, because it has no other
		f := s.status(d2).Firewall
		if f.StrictIngress || !strings.Contains(f.Open, underlayOf(h1)) {
			return fmt.Errorf("host2 shows %+v", f)
		}
		return nil
	}))
	if !strings.Contains(d2.Log(), "tunnel packets are accepted from any host") {
		t.Error("the log does not say that the tunnel is open")
	}
	if strings.Contains(peers(h2), "8472") {
		t.Error("host2 drops tunnel packets although it cannot know their senders")
	}
}

func TestAFlushUnderTrafficIsHealedWithinASecond(t *testing.T) {
	t.Parallel()
	inEachFamily(t, flushIsHealed)
}

func flushIsHealed(t *testing.T, n network) {
	s := newFirewallSite(t, n, "-ip-masq")
	h, pod := s.hosts[0], s.pods[0][0]
	iptables := "iptables"
	if pod.Addr().Is6() {
		iptables = "ip6tables"
	}
	s.ok(h.Run(iptables+"-nft -P FORWARD DROP", iptables+"-legacy -w -P FORWARD ACCEPT"))
	out := arrival{from: pod.Namespace, to: s.outsider.Namespace, at: at(s.outsider.AddrOf(pod.Addr()), 9000),
		within: time.Second}
	healed := func() error {
		if got := out.see(t); got != h.AddrOf(pod.Addr()) {
			return fmt.Errorf("a pod's packet arrives outside from %s", got)
		}
		return nil
	}
	s.ok(lab.Await(s.ctx, healed))
	pings := must[*lab.Pings](t)(pod.Pings(s.pods[1][0].Addr(), lab.PingOptions{Interval: 10 * time.Millisecond}))
	var took []time.Duration
	for _, damage := range []string{
		"nft delete table inet flannel",
		"nft flush ruleset",
		"nft flush chain inet flannel postrouting",
		`printf '*filter\n:INPUT ACCEPT\n:FORWARD DROP\n:OUTPUT ACCEPT\nCOMMIT\n' | ` + iptables + `-nft-restore`,
	} {
		_, err := h.Exec(s.ctx, "sh", "-c", damage)
		s.ok(err)
		start := time.Now()
		s.await(healed)
		took = append(took, time.Since(start))
	}
	stats := pings.Stop()
	t.Logf("repairs took %s; pings from pod to pod meanwhile: %s", took, stats)
	slices.Sort(took)
	s.inTime("half of the repairs", took[len(took)/2], time.Second)
	if d := s.status(s.daemons[0]).Drift["firewall"]; d < 3 {
		t.Errorf("%d changes by others counted, want one for each", d)
	}
}
