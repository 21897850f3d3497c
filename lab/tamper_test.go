package lab_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"flanneld/api"
	"flanneld/lab"
)

// recovery is how long traffic may be away after somebody has tampered with the kernel.
const recovery = time.Second

// tampering is what somebody does on a host to what is the daemon's. In the commands, DEV is its device, NET the peer's subnet and VIA
// its first address, MAC the peer's tunnel address, OTHER an underlay address where nobody lives, ADDR a foreign address.
type tampering struct {
	name     string
	commands []string
	kind     string // of the drift that is counted
	say      string // what the log names
}

var tamperings = []tampering{
	{"device deleted", []string{"ip link del DEV"}, "link", "missing"},
	{"device set down", []string{"ip link set DEV down"}, "link", "DEV"},
	{"hardware address changed", []string{"ip link set DEV address 02:00:00:00:00:99"}, "link", "02:00:00:00:00:99"},
	{"MTU changed", []string{"ip link set DEV mtu 1300"}, "link", "mtu 1300"},
	{"address removed", []string{"ip addr flush dev DEV"}, "addr", "missing"},
	{"foreign address added", []string{"ip addr add ADDR dev DEV"}, "addr", "ADDR"},
	{"routes flushed", []string{"IP route flush dev DEV proto 70"}, "route", "NET"},
	{"route replaced by one elsewhere", []string{"ip route replace NET via OTHER dev eth0"}, "route", "NET"},
	{"route replaced by one with our number", []string{"ip route replace NET via OTHER dev eth0 proto 70"}, "route", "via OTHER dev eth0"},
	{"route with a tiny MTU", []string{"ip route replace NET via VIA dev DEV onlink proto 70 mtu lock 68"}, "route", "odd"},
	{"route to nowhere", []string{"ip route replace blackhole NET"}, "route", "NET"},
	{"FDB flushed", []string{"bridge fdb del MAC dev DEV"}, "fdb", "missing"},
	{"FDB entry elsewhere", []string{"bridge fdb replace MAC dev DEV dst OTHER"}, "fdb", "dst OTHER"},
	{"FDB entry to another port", []string{"bridge fdb replace MAC dev DEV dst OTHER port 9"}, "fdb", "odd"},
	{"neighbours flushed", []string{"IP neigh flush dev DEV nud permanent"}, "neigh", "missing"},
	{"neighbour changed", []string{"ip neigh replace VIA lladdr 02:00:00:00:00:77 dev DEV nud permanent"}, "neigh", "02:00:00:00:00:77"},
	{"everything at once", []string{"IP neigh flush dev DEV nud permanent", "IP route flush dev DEV proto 70", "ip link del DEV"}, "neigh", "missing"},
}

// placeholders fills in the commands of a tampering on one host.
func placeholders(t *testing.T, c *cluster, n network, peer *lab.Host) func(string) string {
	t.Helper()
	subnet := c.subnets(peer)[0]
	dev, ip, other, foreign := n.devices()[0], "ip", "198.18.200.200", "169.254.12.34/16"
	if subnet.Addr().Is6() {
		ip, other, foreign = "ip -6", "fd00:18::c8c8", "fd00:99::34/64"
	}
	mac := strings.Fields(must[string](t)(peer.Output("ip -br link show " + dev)))[2]
	return strings.NewReplacer("DEV", dev, "IP", ip, "NET", subnet.String(), "VIA", subnet.Addr().String(), "MAC", mac, "OTHER", other, "ADDR", foreign).Replace
}

func TestTamperingIsHealedUnderTraffic(t *testing.T) { inEachFamily(t, tamperingIsHealed) }

func tamperingIsHealed(t *testing.T, n network) {
	s := newSite(t, n, 2)
	c, pods, h, d := s.cluster, s.pods, s.hosts[0], s.daemons[0]
	fill := placeholders(t, c, n, s.hosts[1])
	macOf := func() string { return s.macs(h)[0] }
	mac, before := macOf(), look(t, h, n)
	_, err := pods[0].Ping(c.ctx, pods[1].Addr(), lab.PingOptions{})
	c.ok(err)
	for _, tt := range tamperings {
		t.Run(tt.name, func(t *testing.T) {
			logged, drift := len(d.Log()), statusOf(t, c, d).Drift[tt.kind]
			pings := must[*lab.Pings](t)(pods[0].Pings(pods[1].Addr(), lab.PingOptions{}))
			answered(t, c, pings, 3)
			for _, command := range tt.commands {
				c.ok(h.Run(fill(command)))
			}
			c.await(func() error {
				if got := statusOf(t, c, d).Drift[tt.kind]; got == drift {
					return fmt.Errorf("no drift of kind %s was counted", tt.kind)
				}
				return nil
			})
			answered(t, c, pings, 10)
			stats := pings.Stop()
			t.Logf("traffic is back after %s (%s)", stats.LongestGap.Round(time.Millisecond), stats)
			if stats.LongestGap > recovery {
				t.Errorf("no traffic for %s", stats.LongestGap)
			}
			if got := macOf(); got != mac {
				t.Errorf("hardware address %s, before %s", got, mac)
			}
			c.await(func() error {
				if got := look(t, h, n); got != before {
					return fmt.Errorf("kernel:\n%s\nbefore:\n%s", got, before)
				}
				return nil
			})
			wantDriftLine(t, d.Log()[logged:], tt.kind, fill(tt.say))
		})
	}
}

// wantDriftLine looks for exactly one line about a kind of drift, that names the object.
func wantDriftLine(t *testing.T, log, kind, say string) {
	t.Helper()
	var lines []string
	for line := range strings.Lines(log) {
		if strings.Contains(line, "drift found") && strings.Contains(line, "kind="+kind) {
			lines = append(lines, line)
		}
	}
	if len(lines) == 0 || !strings.Contains(strings.Join(lines, ""), say) {
		t.Errorf("want a line about drift of kind %s with %q in it, got:\n%s", kind, say, log)
	}
}

// answered waits until so many more pings have been answered.
func answered(t *testing.T, c *cluster, p *lab.Pings, more int) {
	t.Helper()
	before := p.Stats().Received
	c.await(func() error {
		if p.Stats().Received < before+more {
			return errors.New("pings are not answered")
		}
		return nil
	})
}

// look returns all that the daemon has put into the kernel of a host, without numbers that the kernel gives.
func look(t *testing.T, h *lab.Host, n network) string {
	t.Helper()
	fill := strings.NewReplacer("DEV", n.devices()[0], "IP", map[bool]string{true: "ip -4", false: "ip -6"}[n.families == lab.IPv4]).Replace
	var out strings.Builder
	for _, command := range []string{
		"ip -br link show DEV", "ip -br addr show DEV", "IP route show dev DEV proto 70", "IP route show proto 70",
		"IP neigh show dev DEV nud permanent", "bridge fdb show dev DEV",
	} {
		text, err := h.Output(fill(command))
		if err != nil {
			text = err.Error()
		}
		out.WriteString(text)
	}
	return out.String()
}

func statusOf(t testing.TB, c *cluster, d *lab.Daemon) api.Status {
	t.Helper()
	var s api.Status
	_, text, err := d.Get(c.ctx, "/status")
	if err == nil {
		err = json.Unmarshal([]byte(text), &s)
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// firstThree returns the first three bytes of a host's subnet.
func firstThree(h *lab.Host) (string, error) {
	env, err := h.Env()
	if err != nil {
		return "", err
	}
	a := env.Subnets[0].Addr().As4()
	return fmt.Sprintf("%d.%d.%d", a[0], a[1], a[2]), nil
}

func TestStartCleansUpAndLeavesOthersAlone(t *testing.T) {
	only4 := network{"vxlan", lab.IPv4}
	c := newCluster(t)
	e := c.etcd(vxlanConfig)
	hosts := c.hosts(2)
	daemons := c.startAll(hosts, e)
	pods := c.pods(hosts...)
	h := hosts[0]
	peer, mac := must[string](t)(firstThree(hosts[1])), macOf(t, h)
	c.ok(h.Run(
		"ip link add flannel.2 type vxlan id 2 dstport 8472 local "+h.Addr.String()+" dev eth0",
		"ip route add 10.5.255.0/24 via 198.18.200.200 proto static",
		"ip route add 10.6.0.0/24 via 198.18.200.200 proto 70",
		"ip route add "+peer+".0/24 via 198.18.200.200 metric 77 proto 70",
		"ip rule add from 10.77.0.0/16 lookup 99",
		"ip route add 10.5.0.0/16 via 198.18.200.200 table 99 proto 70",
	))
	others := func() string {
		var out strings.Builder
		for _, command := range []string{"ip -br link show flannel.2", "ip route show dev eth0", "ip route show table 99", "ip rule show", "ip addr show dev cni0"} {
			out.WriteString(must[string](t)(h.Output(command)))
		}
		return out.String()
	}
	before, ours := others(), look(t, h, only4)
	for _, tt := range []struct {
		name     string
		commands []string
	}{
		{"leftovers of peers that are gone", []string{
			"ip route add 10.5.254.0/24 via 10.5.254.0 dev flannel.1 onlink proto 70", "ip neigh add 10.5.254.0 lladdr 02:00:00:00:00:77 dev flannel.1 nud permanent",
			"bridge fdb add 02:00:00:00:00:77 dev flannel.1 dst 198.18.200.200", "ip route add 10.5.253.0/24 via 198.18.200.200 proto 70"}},
		{"leftovers of flannel, without a protocol of its own", []string{"ip route add 10.5.254.0/24 via 10.5.254.0 dev flannel.1 onlink"}},
		{"a device with another VNI", []string{"ip link del flannel.1", "ip link add flannel.1 type vxlan id 7 dstport 8472 local " + h.Addr.String() + " dev eth0"}},
		{"a device with another port", []string{"ip link del flannel.1", "ip link add flannel.1 type vxlan id 1 dstport 4789 local " + h.Addr.String() + " dev eth0"}},
		{"a device of another type", []string{"ip link del flannel.1", "ip link add flannel.1 type bridge", "ip link set flannel.1 up", "ip addr add 10.5.77.1/24 dev flannel.1"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			daemons[0].Kill()
			c.ok(h.Run(tt.commands...))
			daemons[0] = c.flanneld(h, e)
			_, err := pods[0].Ping(c.ctx, pods[1].Addr(), lab.PingOptions{})
			c.ok(err)
			if got := look(t, h, only4); got != ours {
				t.Errorf("kernel:\n%s\nbefore:\n%s", got, ours)
			}
			if got := others(); got != before {
				t.Errorf("others' objects:\n%s\nbefore:\n%s", got, before)
			}
			if got := macOf(t, h); got != mac {
				t.Errorf("hardware address %s, before %s", got, mac)
			}
		})
	}
}

func TestANetworkManagerIsNamedAndNotFoughtAtFullSpeed(t *testing.T) {
	c := newCluster(t)
	e := c.etcd(vxlanConfig)
	h := c.host("host1")
	d := c.flanneld(h, e)
	manager := must[*lab.Process](t)(h.Start("manager", "ip", "monitor", "link")) // a process that stays, to show that it is not blamed
	defer manager.Kill()
	c.await(func() error {
		c.ok(h.Run("ip link set flannel.1 mtu 1300"))
		if !strings.Contains(d.Log(), "something keeps changing our objects") {
			return errors.New("the fight is not named")
		}
		return nil
	})
	log := d.Log()
	for _, want := range []string{"object=\"flannel.1 type vxlan", "mtu 1300", "times=11"} {
		if !strings.Contains(log, want) {
			t.Errorf("%q is not in the log:\n%s", want, log)
		}
	}
	if reason := statusOf(t, c, d).Reason; !strings.Contains(reason, "something keeps changing") {
		t.Errorf("status says %q", reason)
	}
	before := statusOf(t, c, d).Passes.Count
	start := time.Now()
	for time.Since(start) < 2*time.Second {
		c.ok(h.Run("ip link set flannel.1 mtu 1300"))
	}
	if passes := statusOf(t, c, d).Passes.Count - before; passes > 15 {
		t.Errorf("%d passes in two seconds of a fight", passes)
	}
	c.await(func() error { // put right in the end
		if out := must[string](t)(h.Output("ip link show flannel.1")); !strings.Contains(out, "mtu 1450") {
			return errors.New(out)
		}
		return nil
	})
}

// macOf returns the hardware address of a host's tunnel device.
func macOf(t *testing.T, h *lab.Host) string {
	t.Helper()
	return strings.Fields(must[string](t)(h.Output("ip -br link show flannel.1")))[2]
}
