package vxlan_test

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"flanneld/backend"
	"flanneld/backend/vxlan"
	"flanneld/ip"
	"flanneld/ip/iptest"
	"flanneld/subnet"
)

// realSteps is how far the walk over the real kernel goes. The one over the kernel in memory, in package backend, goes
// further.
const realSteps = 150

// tamperings are what others do to the daemon's objects; P is a random peer's number, M another's.
var tamperings = []string{
	"ip link del flannel.1",
	"ip link set flannel.1 down",
	"ip link set flannel.1 mtu 1300",
	"ip link set flannel.1 address 02:00:00:00:00:99",
	"ip link set flannel.1 type vxlan learning",
	"ip addr flush dev flannel.1",
	"ip addr add 169.254.7.7/16 dev flannel.1",
	"ip addr add 10.5.10.0/24 dev flannel.1",
	"ip route flush dev flannel.1",
	"ip route del 10.5.P.0/24 dev flannel.1",
	"ip route replace 10.5.P.0/24 via 192.0.2.M dev eth0 proto 70",
	"ip route replace 10.5.P.0/24 via 10.5.M.0 dev flannel.1 onlink proto 70",
	"ip route replace 10.5.P.0/24 via 10.5.P.0 dev flannel.1 onlink proto 70 mtu 600",
	"ip route replace blackhole 10.5.P.0/24 proto 70",
	"ip route add 10.5.222.0/24 via 10.5.222.0 dev flannel.1 onlink proto 70",
	"bridge fdb del 02:00:00:00:01:P dev flannel.1 dst 192.0.2.P",
	"bridge fdb replace 02:00:00:00:01:P dev flannel.1 dst 192.0.2.M",
	"bridge fdb replace 02:00:00:00:01:P dev flannel.1 dst 192.0.2.P port 9999",
	"bridge fdb replace 02:00:00:00:01:P dev flannel.1 dst 192.0.2.P vni 9",
	"bridge fdb replace 02:00:00:00:01:P dev flannel.1 dst 192.0.2.P dynamic",
	"bridge fdb append 00:00:00:00:00:00 dev flannel.1 dst 192.0.2.M",
	"ip neigh flush dev flannel.1 nud permanent",
	"ip neigh del 10.5.P.0 dev flannel.1",
	"ip neigh replace 10.5.P.0 lladdr 02:00:00:00:01:M dev flannel.1 nud permanent",
	"ip neigh replace 10.5.P.0 lladdr 02:00:00:00:01:P dev flannel.1 nud reachable",
	"ip link set eth0 down",
	"ip link set eth0 up",
	"ip addr flush dev eth0",
}

// foreign are objects of others, as similar as it gets.
const foreign = `ip link add flannel.2 type vxlan id 2 dstport 8472 local 192.0.2.1 dev lo
	ip link add cni0 type bridge
	ip link set cni0 up
	ip addr add 10.5.10.1/24 dev cni0
	ip route add 10.5.200.0/24 dev cni0 proto static
	ip route add 10.6.0.0/24 dev cni0 proto 70
	ip route add 10.5.21.0/24 dev cni0 metric 300 proto 70
	ip route add 10.5.22.0/24 dev cni0 table 99 proto 70
	ip rule add from 10.5.0.0/16 lookup 99
	ip neigh add 10.5.10.9 lladdr 02:00:00:00:01:21 dev cni0`

const lookAtForeign = `ip link show flannel.2
	ip addr show cni0
	ip route show dev cni0
	ip route show table 99
	ip rule show
	ip neigh show dev cni0`

// Slow: a walk of many steps, after each of which the kernel is dumped.
func TestRandomWalkOnTheRealKernel(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	iptest.Namespace(t)
	iptest.Underlay(t, "eth0", "192.0.2.1/24")
	iptest.Run(t, foreign)
	others := iptest.Run(t, lookAtForeign)
	k, err := ip.NewKernel(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	r := newRig(t, iptest.Faults{})
	r.host.Kernel, r.host.Blackhole = k, true
	b := r.backend(plain)
	steps := realSteps
	if testing.Short() {
		steps /= 10
	}
	for step := range steps {
		peers := randomPeers(rnd)
		var done []string
		for range 1 + rnd.IntN(3) {
			done = append(done, tamper(rnd))
		}
		if rnd.IntN(5) == 0 {
			b = r.backend(plain) // a restart
		}
		b.Observe(ip.Event{})
		_ = b.Set(own("10.5.10.0/24"), subnet.PeersOf(peers...)) // may fail while the underlay is down
		iptest.Run(t, "ip link set eth0 up\nip addr replace 192.0.2.1/24 dev eth0")
		b.Observe(ip.Event{})
		// To the daemon another program keeps changing all this.
		if err := b.Set(own("10.5.10.0/24"), subnet.PeersOf(peers...)); err != nil && !errors.Is(err, ip.ErrContention) {
			t.Fatal(err)
		}
		got, err := k.Dump(b.Scope())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(got.String(), inMemory(t, peers)); diff != "" {
			t.Fatalf("step %d, after %q: kernel (-got +want):\n%s", step, done, diff)
		}
		if diff := cmp.Diff(iptest.Run(t, lookAtForeign), others); diff != "" {
			t.Fatalf("step %d, after %q: others' objects (-got +want):\n%s", step, done, diff)
		}
	}
}

// randomPeers returns some of the peers 20 to 30.
func randomPeers(rnd *rand.Rand) []subnet.Lease {
	var out []subnet.Lease
	for i := 20; i <= 30; i++ {
		if rnd.IntN(2) == 0 {
			l := lease(fmt.Sprintf("10.5.%d.0/24", i), fmt.Sprintf("192.0.2.%d", i), 0)
			l.BackendData = fmt.Sprintf(`{"VNI":1,"VtepMAC":"02:00:00:00:01:%d"}`, i)
			out = append(out, l)
		}
	}
	return out
}

// tamper does one thing, which may be refused, and returns it.
func tamper(rnd *rand.Rand) string {
	command := tamperings[rnd.IntN(len(tamperings))]
	command = strings.ReplaceAll(command, "P", fmt.Sprint(20+rnd.IntN(11)))
	command = strings.ReplaceAll(command, "M", fmt.Sprint(20+rnd.IntN(11)))
	fields := strings.Fields(command)
	_ = exec.Command(fields[0], fields[1:]...).Run()
	return command
}

// inMemory returns what the backend puts into an empty kernel in memory.
func inMemory(t *testing.T, peers []subnet.Lease) string {
	t.Helper()
	r := newRig(t, iptest.Faults{})
	r.host.Blackhole = true
	b := r.backend(plain)
	set(t, b, own("10.5.10.0/24"), peers...)
	s, err := r.kernel.Dump(b.Scope())
	if err != nil {
		t.Fatal(err)
	}
	return s.String()
}

func TestAWrongDeviceOfOurNameIsMadeAnew(t *testing.T) {
	for _, command := range []string{
		"ip link add flannel.1 type vxlan id 7 dstport 8472 local 192.0.2.1 dev eth0",
		"ip link add flannel.1 type vxlan id 1 dstport 4789 local 192.0.2.1 dev eth0",
		"ip link add flannel.1 type bridge",
		"ip link add flannel.1 type veth peer name veth9",
		"ip link add flannel.1 type vxlan id 1 dstport 8472 local 2001:db8::1 dev eth0",
	} {
		t.Run(command, func(t *testing.T) {
			iptest.Namespace(t)
			iptest.Underlay(t, "eth0", "192.0.2.1/24")
			iptest.Run(t, command+"\nip addr add 10.5.10.0/32 dev flannel.1\nip link set flannel.1 up\n"+
				"ip route add 10.5.99.0/24 dev flannel.1")
			k, err := ip.NewKernel(slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			defer k.Close()
			r := newRig(t, iptest.Faults{})
			r.host.Kernel = k
			b := r.backend(plain)
			peer := lease("10.5.20.0/24", "192.0.2.2", 2)
			set(t, b, own("10.5.10.0/24"), peer)
			got, err := k.Dump(b.Scope())
			if err != nil {
				t.Fatal(err)
			}
			want := newRig(t, iptest.Faults{})
			wb := want.backend(plain)
			set(t, wb, own("10.5.10.0/24"), peer)
			ws, _ := want.kernel.Dump(wb.Scope())
			if diff := cmp.Diff(got.String(), ws.String()); diff != "" {
				t.Errorf("kernel (-got +want):\n%s", diff)
			}
		})
	}
}

func TestDirectRoutesOnTheRealKernel(t *testing.T) {
	iptest.Namespace(t)
	iptest.Underlay(t, "eth0", "192.0.2.1/24")
	iptest.Run(t, "ip route add 198.51.100.0/24 via 192.0.2.254 metric 500")
	k, err := ip.NewKernel(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	r := newRig(t, iptest.Faults{})
	r.host.Kernel = k
	b := r.backend(direct)
	peers := []subnet.Lease{lease("10.5.20.0/24", "192.0.2.2", 2), lease("10.5.21.0/24", "198.51.100.3", 3)}
	pass := func(want ...string) {
		t.Helper()
		b.Observe(ip.Event{})
		set(t, b, own("10.5.10.0/24"), peers...)
		s, err := k.Dump(b.Scope())
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, route := range s.Routes {
			got = append(got, route.String())
		}
		if diff := cmp.Diff(got, want); diff != "" {
			t.Errorf("routes (-got +want):\n%s", diff)
		}
	}
	const tunnel2, tunnel3 = "10.5.20.0/24 via 10.5.20.0 dev flannel.1 onlink", "10.5.21.0/24 via 10.5.21.0 dev " +
		"flannel.1 onlink"
	pass("10.5.20.0/24 via 192.0.2.2 dev eth0", tunnel3)
	iptest.Run(t, "ip addr add 198.51.100.1/24 dev eth0")
	pass("10.5.20.0/24 via 192.0.2.2 dev eth0", "10.5.21.0/24 via 198.51.100.3 dev eth0")
	iptest.Run(t, "ip addr del 198.51.100.1/24 dev eth0\nip route add 192.0.2.2/32 via 192.0.2.254 metric 5")
	pass(tunnel2, tunnel3)
}

func BenchmarkPass(b *testing.B) {
	for _, n := range []int{100, 1_000, 10_000} {
		var peers []subnet.Lease
		for i := range n {
			peers = append(peers, subnet.Lease{
				Subnet: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 1 + byte(i>>8), byte(i), 0}), 24),
				Attrs: subnet.Attrs{
					PublicIP: netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}), BackendType: "vxlan",
					BackendData: fmt.Sprintf(`{"VNI":1,"VtepMAC":"02:00:00:01:%02x:%02x"}`, i>>8, i&0xff),
				},
			})
		}
		for _, bb := range []struct {
			name, config string
			reread       bool
			without      int // number of peers that every second pass is without
		}{
			{"nothing to do", "", false, 0},
			{"read anew", "", true, 0},
			{"one peer comes or goes", "", false, 1},
			{"direct routing, routes changed", `,"DirectRouting":true`, true, 0},
		} {
			b.Run(fmt.Sprintf("%s/%d", bb.name, n),
				func(b *testing.B) { benchmarkPass(b, peers, bb.config, bb.reread, bb.without) })
		}
	}
}

func benchmarkPass(b *testing.B, peers []subnet.Lease, config string, reread bool, without int) {
	iptest.Namespace(b)
	iptest.Underlay(b, "eth0", "192.0.2.1/24")
	k, err := ip.NewKernel(slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	defer k.Close()
	c, err := subnet.ParseConfig([]byte(`{"Network":"10.0.0.0/8","Backend":{"Type":"vxlan"` + config + `}}`))
	if err != nil {
		b.Fatal(err)
	}
	addrs := []netip.Addr{netip.MustParseAddr("192.0.2.1")}
	h := ip.Host{Kernel: k, Log: slog.New(slog.DiscardHandler), Underlay: func() ip.Underlay {
		return ip.Underlay{Link: "eth0", MTU: 1500, Addrs: addrs, PublicAddrs: addrs}
	}}
	planner, err := vxlan.New(c, h)
	if err != nil {
		b.Fatal(err)
	}
	back := backend.NewApplier(planner, h, c.Networks())
	self := own("10.0.1.0/24")
	all := subnet.PeersOf(peers...)
	sets := []subnet.Peers{all, subnet.PeersOf(peers[without:]...)}
	if err := back.Set(self, all); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if reread {
			back.Observe(ip.Event{})
		}
		if err := back.Set(self, sets[i%2]); err != nil {
			b.Fatal(err)
		}
	}
}
