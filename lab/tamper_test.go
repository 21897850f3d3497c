package lab_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"flanneld/api"
	"flanneld/ip"
	"flanneld/lab"
)

// recovery is how long traffic may be away after somebody has tampered with the kernel.
var recovery = scaled(time.Second)

// tampering is what somebody does on a host to what is the daemon's. The words in capitals are those of placeholders.
type tampering struct {
	name     string
	backends string // that have it
	commands []string
	kind     string // of the drift that is counted
	say      string // what the log names
}

var tamperings = []tampering{
	{"device deleted", "vxlan ipip", []string{"ip link del DEV"}, "link", "missing"},
	// the datapath has opened another one before that is found
	{"device deleted", "udp wireguard", []string{"ip link del DEV"}, "link", "DEV"},
	{"device set down", "vxlan udp wireguard ipip", []string{"ip link set DEV down"}, "link", "DEV"},
	{"device renamed", "udp wireguard", []string{"ip link set DEV down name gone0", "ip link del gone0"}, "link", "DEV"},
	{"hardware address changed", "vxlan", []string{"ip link set DEV address 02:00:00:00:00:99"},
		"link", "02:00:00:00:00:99"},
	{"MTU changed", "vxlan udp wireguard ipip", []string{"ip link set DEV mtu 1300"}, "link", "mtu 1300"},
	{"address removed", "vxlan udp wireguard ipip", []string{"IP addr flush dev DEV scope global"}, "addr", "missing"},
	{"foreign address added", "vxlan udp wireguard ipip", []string{"ip addr add ADDR dev DEV"}, "addr", "ADDR"},
	{"routes flushed", "vxlan host-gw udp wireguard ipip", []string{"IP route flush dev DEV proto 70"}, "route", "NET"},
	{"route replaced by one with our number", "vxlan host-gw udp wireguard ipip",
		[]string{"ip route replace NET via OTHER dev eth0 proto 70"}, "route", "via OTHER dev eth0"},
	{"route with a tiny MTU", "vxlan host-gw udp wireguard ipip",
		[]string{"ip route replace NET ROUTE proto 70 mtu lock 68"}, "route", "odd"},
	{"route to nowhere", "vxlan host-gw udp wireguard ipip", []string{"ip route replace blackhole NET proto 70"},
		"route", "NET"},
	{"route to a subnet that nobody has", "vxlan host-gw udp wireguard ipip", []string{"ip route add FREE ROUTE proto 70"},
		"route", "FREE"},
	{"FDB flushed", "vxlan", []string{"bridge fdb del MAC dev DEV"}, "fdb", "missing"},
	{"FDB entry elsewhere", "vxlan", []string{"bridge fdb replace MAC dev DEV dst OTHER"}, "fdb", "dst OTHER"},
	{"FDB entry to another port", "vxlan", []string{"bridge fdb replace MAC dev DEV dst OTHER port 9"}, "fdb", "odd"},
	{"neighbours flushed", "vxlan", []string{"IP neigh flush dev DEV nud permanent"}, "neigh", "missing"},
	{"neighbour changed", "vxlan", []string{"ip neigh replace VIA lladdr 02:00:00:00:00:77 dev DEV nud permanent"},
		"neigh", "02:00:00:00:00:77"},
	{"local address changed", "ipip", []string{"ip tunnel change DEV mode ipip local OTHER"}, "link", "OTHER"},
	// the kernel gives no remote address to a device that stands without one
	{"path MTU discovery turned on", "ipip", []string{"ip tunnel change DEV mode ipip local OWN pmtudisc"}, "link", "DEV"},
	{"everything at once", "vxlan",
		[]string{"IP neigh flush dev DEV nud permanent", "IP route flush dev DEV proto 70", "ip link del DEV"},
		"neigh link", "missing"}, // the daemon may see the neighbours gone only with the device
}

// placeholders fills in commands on a host, for the family of one subnet of a peer. DEV is the device that takes
// packets to the peer, NET and ROUTE the route of them, VIA the peer's first address, MAC that of its tunnel, FREE a
// subnet that nobody has and FIRST its first address, OTHER an underlay address where nobody lives, ADDR a foreign
// address, OWN the host's.
func (s *site) placeholders(h, peer *lab.Host, subnet netip.Prefix) func(string) string {
	s.t.Helper()
	via := subnet.Addr()
	dev, ip, other, foreign, free, network := s.device(via), "ip -4", "198.18.200.200", "169.254.12.34/16", "10.5.253.0",
		"10.5.0.0/16"
	if via.Is6() {
		ip, other, foreign, free, network = "ip -6", "fd00:18::c8c8", "fd00:99::34/64", "fd00:5:0:fd::", "fd00:5::/48"
	}
	net, route, mac := subnet.String(), fmt.Sprintf("via %s dev %s onlink", via, dev), ""
	switch s.backend {
	case "host-gw":
		route = fmt.Sprintf("via %s dev eth0", peer.AddrOf(via))
	case "udp", "wireguard":
		net, route = network, "dev "+dev
	case "ipip":
		route = fmt.Sprintf("via %s dev %s onlink", peer.Addr, dev)
	default:
		// Not from the peer itself, whose device may be tampered with at the same time.
		entry := must[string](s.t)(h.Output(fmt.Sprintf("%s neigh show %s dev %s", ip, via, dev)))
		_, rest, _ := strings.Cut(entry, "lladdr ")
		mac, _, _ = strings.Cut(rest, " ")
	}
	return strings.NewReplacer("DEV", dev, "IP", ip, "NET", net, "ROUTE", route, "VIA", via.String(), "MAC", mac, "OTHER",
		other, "ADDR", foreign,
		"FREE", fmt.Sprintf("%s/%d", free, subnet.Bits()), "FIRST", free, "OWN", h.AddrOf(via).String()).Replace
}

// eachFamily calls f with what fills in commands on the first host for each family of the network.
func (s *site) eachFamily(f func(name string, fill func(string) string)) {
	for _, subnet := range s.subnets(s.hosts[1]) {
		name := "IPv4"
		if subnet.Addr().Is6() {
			name = "IPv6"
		}
		f(name, s.placeholders(s.hosts[0], s.hosts[1], subnet))
	}
}

func tamperingIsHealed(s *site) {
	s.connected()
	before := s.look(s.hosts[0])
	s.eachFamily(func(family string, fill func(string) string) {
		s := s.in(s.t.(*testing.T))    // waits of their own: the other family may have taken all the time
		s.ok(s.daemons[0].Stop(s.ctx)) // a daemon holds back what it says too often
		s.daemons[0] = s.flanneld(s.hosts[0], s.store)
		for _, tt := range tamperings {
			if strings.Contains(tt.backends, s.backend) && (tt.name != "device renamed" || renamesLive(s.t)) {
				s.sub(family+", "+tt.name, func(s *site) { s.tamper(tt, fill, before) })
			}
		}
	})
}

// renamesLive reports whether the kernel renames devices that are up, as from 6.2 on. An older one does so only between
// two commands, and the daemon sets the device up before the second.
func renamesLive(t testing.TB) bool {
	t.Helper()
	var major, minor int
	release := must[[]byte](t)(os.ReadFile("/proc/sys/kernel/osrelease"))
	must[int](t)(fmt.Sscanf(string(release), "%d.%d", &major, &minor))
	return major > 6 || major == 6 && minor >= 2
}

// tamper does it, and wants traffic of all families back within the time, and the kernel as it was.
func (s *site) tamper(tt tampering, fill func(string) string, before string) {
	h, d := s.hosts[0], s.daemons[0]
	drifts := func() (n uint64) {
		for kind := range strings.FieldsSeq(tt.kind) {
			n += uint64(statusOf(s.t, s.cluster, d).Drift[kind])
		}
		return n
	}
	logged, drift := len(d.Log()), drifts()
	all := s.pinged(s.pods[0], s.pods[1])
	for _, pings := range all {
		answered(s.t, s.cluster, pings, 3)
	}
	for _, command := range tt.commands {
		s.ok(h.Run(fill(command)))
	}
	s.await(func() error {
		if drifts() == drift {
			return fmt.Errorf("no drift of kind %s was counted", tt.kind)
		}
		return nil
	})
	for _, pings := range all {
		answered(s.t, s.cluster, pings, 10)
		stats := pings.Cut()
		s.t.Logf("traffic is back after %s (%s)", stats.LongestGap.Round(time.Millisecond), stats)
		s.inTime("the gap in the traffic", stats.LongestGap, recovery)
	}
	s.await(func() error {
		if got := s.look(h); got != before {
			return fmt.Errorf("kernel:\n%s\nbefore:\n%s", got, before)
		}
		return nil
	})
	wantDriftLine(s.t, d.Log()[logged:], tt.kind, fill(tt.say))
}

// wantDriftLine looks for exactly one line about a kind of drift, that names the object.
func wantDriftLine(t testing.TB, log, kind, say string) {
	t.Helper()
	var lines []string
	for line := range strings.Lines(log) {
		for k := range strings.FieldsSeq(kind) {
			if strings.Contains(line, "drift found") && strings.Contains(line, "kind="+k) {
				lines = append(lines, line)
			}
		}
	}
	if len(lines) == 0 || !strings.Contains(strings.Join(lines, ""), say) {
		t.Errorf("want a line about drift of kind %s with %q in it, got:\n%s", kind, say, log)
	}
}

// answered waits until so many more pings have been answered.
func answered(t testing.TB, c *cluster, p *lab.Pings, more int) {
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
func (s *site) look(h *lab.Host) string {
	s.t.Helper()
	var devices []string
	for _, p := range s.subnets(h) {
		if dev := s.device(p.Addr()); dev != "eth0" && !slices.Contains(devices, dev) {
			devices = append(devices, dev)
		}
	}
	return must[string](s.t)(h.Objects(ip.Protocol, devices...))
}

func statusOf(t testing.TB, c *cluster, d *lab.Daemon) api.Status {
	t.Helper()
	s, err := c.status(d)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// status returns what a daemon says of itself.
func (c *cluster) status(d *lab.Daemon) (s api.Status, err error) {
	_, text, err := d.Get(c.ctx, "/status")
	if err == nil {
		err = json.Unmarshal([]byte(text), &s)
	}
	return s, err
}

// TestANetworkManagerIsNamedAndNotFoughtAtFullSpeed has a process change the same thing again and again. Of addresses
// the kernel tells who has changed them, of devices it does not.
func TestANetworkManagerIsNamedAndNotFoughtAtFullSpeed(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, command string
		says          []string
		right         func(out string) bool // what "ip addr show dev flannel.1" prints is put right
	}{
		{"MTU", "link set dev flannel.1 mtu 1300", []string{"object=\"flannel.1 type vxlan", "mtu 1300", "by=unknown"},
			func(out string) bool { return strings.Contains(out, "mtu 1450") }},
		{"address", "addr add 169.254.7.7/16 dev flannel.1",
			[]string{"object=\"169.254.7.7/16 dev flannel.1\"", "found=foreign", "by=\"ip (pid MANAGER)\""},
			func(out string) bool { return !strings.Contains(out, "169.254.7.7") }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t)
			e := c.etcd(vxlanConfig)
			h := c.host("host1")
			d := c.flanneld(h, e)
			manager, meddle := c.manager(h, tt.command)
			c.await(func() error {
				meddle()
				if !strings.Contains(d.Log(), "another program keeps changing the network's objects") {
					return errors.New("the other program is not named")
				}
				if reason := statusOf(t, c, d).Reason; !strings.Contains(reason, "another program keeps changing") {
					return fmt.Errorf("status says %q", reason)
				}
				return nil
			})
			log := d.Log()
			for _, want := range append(tt.says, "times=11") {
				if want = strings.ReplaceAll(want, "MANAGER", fmt.Sprint(manager.Pid())); !strings.Contains(log, want) {
					t.Errorf("%q is not in the log:\n%s", want, log)
				}
			}
			before := statusOf(t, c, d).Passes.Count
			for start := time.Now(); time.Since(start) < 2*time.Second; time.Sleep(5 * time.Millisecond) {
				meddle()
			}
			if passes := statusOf(t, c, d).Passes.Count - before; passes > 15 {
				t.Errorf("%d passes in two seconds", passes)
			}
			c.await(func() error { // put right in the end
				if out := must[string](t)(h.Output("ip addr show dev flannel.1")); !tt.right(out) {
					return errors.New(out)
				}
				return nil
			})
		})
	}
}

// manager starts a process that lives on and has one socket, as a network manager does, and returns a function that has
// it carry out a command of ip.
func (c *cluster) manager(h *lab.Host, command string) (*lab.Process, func()) {
	pipe := filepath.Join(c.t.TempDir(), "commands")
	c.ok(syscall.Mkfifo(pipe, 0o600))
	p := must[*lab.Process](c.t)(h.Start("manager", "ip", "-force", "-batch", pipe))
	commands := must[*os.File](c.t)(os.OpenFile(pipe, os.O_RDWR, 0)) // waits for no reader
	c.t.Cleanup(func() {
		_ = commands.Close()
		p.Kill()
	})
	return p, func() { must[int](c.t)(commands.WriteString(command + "\n")) }
}
