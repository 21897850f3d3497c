package ip_test

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"flanneld/ip"
	"flanneld/ip/iptest"
)

func kernel(t testing.TB) *ip.LinuxKernel {
	t.Helper()
	k, err := ip.NewKernel(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	return k
}

var vxlanLink = ip.Link{
	Name: "flannel.1", Type: "vxlan", MAC: ip.MAC{2, 0, 0, 0, 0, 1}, MTU: 1450, Up: true,
	VXLAN: ip.VXLAN{VNI: 1, Port: 8472, Local: netip.MustParseAddr("192.0.2.1"), Underlay: "eth0"},
}

var network = netip.MustParsePrefix("10.0.0.0/8")

// cluster returns what n peers need, as the vxlan backend wants it.
func cluster(n int) ip.State {
	s := ip.State{Links: []ip.Link{vxlanLink},
		Addrs: []ip.Addr{{Link: "flannel.1", Prefix: netip.MustParsePrefix("10.0.0.0/32")}}}
	for i := 1; i <= n; i++ {
		first := netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0})
		mac := ip.MAC{2, 1, 0, 0, byte(i >> 8), byte(i)}
		s.FDB = append(s.FDB, ip.FDB{Link: "flannel.1", MAC: mac,
			Dst: netip.AddrFrom4([4]byte{192, 0, byte(i >> 8), byte(i)})})
		s.Neighs = append(s.Neighs, ip.Neigh{Link: "flannel.1", IP: first, MAC: mac})
		s.Routes = append(s.Routes, ip.Route{Dst: netip.PrefixFrom(first, 24), Via: first, Link: "flannel.1", Onlink: true,
			Protocol: ip.Protocol})
	}
	return s
}

// desired returns the state that a backend would keep.
func desired(s ip.State) *ip.Desired {
	d := ip.NewDesired()
	for _, l := range s.Links {
		d.Put(l)
	}
	for _, a := range s.Addrs {
		d.Put(a)
	}
	for _, f := range s.FDB {
		d.Put(f)
	}
	for _, n := range s.Neighs {
		d.Put(n)
	}
	for _, r := range s.Routes {
		d.Put(r)
	}
	return d
}

var scope = ip.Scope{Links: []string{"flannel.1"}, Networks: []netip.Prefix{network}}

func apply(t testing.TB, k ip.Kernel, want ip.State) {
	t.Helper()
	have, err := k.Dump(scope)
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Apply(ip.Diff(have.Snapshot(), want.Snapshot())); err != nil {
		t.Fatal(err)
	}
}

func wantState(t testing.TB, k ip.Kernel, want ip.State) {
	t.Helper()
	got, err := k.Dump(scope)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(got.String(), want.String()); diff != "" {
		t.Errorf("kernel state (-got +want):\n%s", diff)
	}
}

func TestTheKernelHoldsWhatWasApplied(t *testing.T) {
	iptest.Namespace(t)
	iptest.Underlay(t, "eth0", "192.0.2.1/24")
	k := kernel(t)
	want := cluster(3)
	apply(t, k, want)
	wantState(t, k, want)
	for command, text := range map[string]string{
		"ip -d link show flannel.1":                "vxlan id 1 local 192.0.2.1 dev eth0 srcport 0 0 dstport 8472 nolearning",
		"ip -o -d link show flannel.1":             "addrgenmode none",
		"ip addr show flannel.1":                   "inet 10.0.0.0/32 scope global flannel.1",
		"ip route show proto 70":                   "10.0.1.0/24 via 10.0.1.0 dev flannel.1 onlink",
		"ip neigh show dev flannel.1":              "10.0.2.0 lladdr 02:01:00:00:00:02 PERMANENT",
		"bridge fdb show dev flannel.1":            "02:01:00:00:00:03 dst 192.0.0.3 self permanent",
		"ip -o link show flannel.1":                "mtu 1450",
		"ip -o link show dev flannel.1":            "02:00:00:00:00:01",
		"sysctl net.ipv6.conf.flannel/1.accept_ra": "= 0",
	} {
		if got := iptest.Run(t, command); !strings.Contains(got, text) {
			t.Errorf("%s: got %q, want %q", command, got, text)
		}
	}
	apply(t, k, cluster(1))
	wantState(t, k, cluster(1))
	apply(t, k, ip.State{})
	wantState(t, k, ip.State{})
}

// TestRoutesHaveAnMTU gives routes of both families an MTU, another one, and none again, and takes other metrics away.
func TestRoutesHaveAnMTU(t *testing.T) {
	iptest.Namespace(t)
	iptest.Underlay(t, "eth0", "192.0.2.1/24")
	k := kernel(t)
	want, six := cluster(1), netip.MustParsePrefix("fd00:5::/64")
	want.Routes = append(want.Routes, ip.Route{Dst: six, Link: "flannel.1", Protocol: ip.Protocol})
	both := ip.Scope{Links: scope.Links, Networks: append(prefixes("fd00:5::/48"), network)}
	for _, mtu := range []uint32{0, 1400, 1300, 0} {
		for i := range want.Routes {
			want.Routes[i].MTU = mtu
		}
		for range 2 {
			have, err := k.Dump(both)
			if err != nil {
				t.Fatal(err)
			}
			if err := k.Apply(ip.Diff(have.Snapshot(), want.Snapshot())); err != nil {
				t.Fatal(err)
			}
			got, err := k.Dump(both)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(got.String(), want.String()); diff != "" {
				t.Errorf("MTU %d (-got +want):\n%s", mtu, diff)
			}
			iptest.Run(t, "ip route change 10.0.1.0/24 via 10.0.1.0 dev flannel.1 onlink proto 70 advmss 1000 mtu 1200")
		}
	}
}

func TestForeignObjectsAreInvisible(t *testing.T) {
	iptest.Namespace(t)
	iptest.Underlay(t, "eth0", "192.0.2.1/24")
	k := kernel(t)
	want := cluster(2)
	apply(t, k, want)
	iptest.Run(t, `ip link add flannel.2 type bridge
		ip link set flannel.2 up
		ip addr add 10.9.9.9/32 dev flannel.2
		ip route add 10.0.9.0/24 via 192.0.2.9
		ip route add 10.0.8.0/24 dev eth0 proto static
		ip route add 172.16.0.0/12 dev flannel.1
		ip route add 172.30.0.0/16 via 192.0.2.9 proto 70
		ip route add 10.0.1.0/24 via 192.0.2.9 metric 50
		ip route add 10.0.7.0/24 via 192.0.2.9 table 99 proto 70
		ip neigh add 192.0.2.77 lladdr 02:00:00:00:00:77 dev eth0`)
	wantState(t, k, want)
}

func TestLeftoversOfFlannelAreSeen(t *testing.T) {
	iptest.Namespace(t)
	iptest.Underlay(t, "eth0", "192.0.2.1/24")
	k := kernel(t)
	apply(t, k, cluster(0))
	iptest.Run(t, `ip route add 10.0.9.0/24 via 10.0.9.0 dev flannel.1 onlink
		ip route add 10.0.8.0/24 via 192.0.2.8`)
	got, err := k.Dump(ip.Scope{Links: []string{"flannel.1"}, Networks: []netip.Prefix{network}, BootGateways: true})
	if err != nil {
		t.Fatal(err)
	}
	want := []ip.Route{
		{Dst: netip.MustParsePrefix("10.0.8.0/24"), Via: netip.MustParseAddr("192.0.2.8"), Link: "eth0", Protocol: 3},
		{Dst: netip.MustParsePrefix("10.0.9.0/24"), Via: netip.MustParseAddr("10.0.9.0"), Link: "flannel.1", Onlink: true,
			Protocol: 3},
	}
	if diff := cmp.Diff(got.Routes, want, cmp.Comparer(func(a, b ip.Route) bool { return a == b })); diff != "" {
		t.Errorf("routes (-got +want):\n%s", diff)
	}
}

func TestADeviceIsChangedInPlaceWhereTheKernelCan(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*ip.Link)
		stays  bool
	}{
		{"hardware address", func(l *ip.Link) { l.MAC = ip.MAC{2, 0, 0, 0, 0, 9} }, true},
		{"MTU", func(l *ip.Link) { l.MTU = 1400 }, true},
		{"down", func(l *ip.Link) { l.Up = false }, true},
		{"router advertisements", func(l *ip.Link) { l.AcceptRA = true }, true},
		{"local address and underlay", func(l *ip.Link) {
			l.VXLAN.Local, l.VXLAN.Underlay = netip.MustParseAddr("198.51.100.1"), "eth1"
		}, true},
		{"learning", func(l *ip.Link) { l.VXLAN.Learning = true }, true},
		{"VNI", func(l *ip.Link) { l.VXLAN.VNI = 7 }, false},
		{"port", func(l *ip.Link) { l.VXLAN.Port = 4789 }, false},
		{"group policy", func(l *ip.Link) { l.VXLAN.GBP = true }, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			iptest.Namespace(t)
			iptest.Underlay(t, "eth0", "192.0.2.1/24")
			iptest.Underlay(t, "eth1", "198.51.100.1/24")
			k := kernel(t)
			apply(t, k, cluster(2))
			index := func() string {
				number, _, _ := strings.Cut(iptest.Run(t, "ip -o link show flannel.1"), ":")
				return number
			}
			before := index()
			want := cluster(2)
			tt.change(&want.Links[0])
			if tt.name == "down" {
				want.Routes, want.Neighs = nil, nil // the kernel flushes them
			}
			apply(t, k, want)
			wantState(t, k, want)
			if stayed := index() == before; stayed != tt.stays {
				t.Errorf("device stayed: %t, want %t", stayed, tt.stays)
			}
		})
	}
}

func TestABatchIsOneSendAndOneReceive(t *testing.T) {
	iptest.Namespace(t)
	iptest.Underlay(t, "eth0", "192.0.2.1/24")
	k := kernel(t)
	want := cluster(10_000)
	apply(t, k, ip.State{Links: want.Links, Addrs: want.Addrs})
	var ops []ip.Op
	for _, r := range want.Routes {
		ops = append(ops, ip.Op{Object: r})
	}
	sends, receives := k.Calls()
	if err := k.Apply(ops); err != nil {
		t.Fatal(err)
	}
	s, r := k.Calls()
	if s -= sends; s != 1 {
		t.Errorf("%d sends for %d routes, want 1", s, len(ops))
	}
	if r -= receives; r != 1 {
		t.Errorf("%d receives for %d routes, want 1", r, len(ops))
	}
	wantState(t, k, ip.State{Links: want.Links, Addrs: want.Addrs, Routes: want.Routes})
}

func TestABatchReportsEachFailureAndTheRestStands(t *testing.T) {
	iptest.Namespace(t)
	iptest.Underlay(t, "eth0", "192.0.2.1/24")
	k := kernel(t)
	want := cluster(10_000)
	apply(t, k, ip.State{Links: want.Links, Addrs: want.Addrs})
	var ops []ip.Op
	good := ip.State{Links: want.Links, Addrs: want.Addrs}
	for i, r := range want.Routes {
		if i%3 == 0 {
			r.Link, r.Onlink = "eth0", false // the next hop is on no network of eth0
		} else {
			good.Routes = append(good.Routes, r)
		}
		ops = append(ops, ip.Op{Object: r})
	}
	failed := failures(t, k.Apply(ops))
	for i, op := range ops {
		err := failed[op]
		if bad := i%3 == 0; bad != errors.Is(err, unix.ENETUNREACH) {
			t.Fatalf("%s: %v", op, err)
		}
	}
	wantState(t, k, good)

	// As many failures as fit into one batch: the receive buffer holds them all.
	for i := range ops {
		r := ops[i].Object.(ip.Route)
		r.Link, r.Onlink = "eth0", false
		ops[i].Object = r
	}
	for len(ops) < 2*ip.BatchSize {
		ops = append(ops, ops...)
	}
	var all ip.OpErrors
	if err := k.Apply(ops); !errors.As(err, &all) || len(all) != len(ops) {
		t.Errorf("%d of %d failed, want all", len(all), len(ops))
	}
	wantState(t, k, good)
}

func TestWithoutTheDeviceNothingIsSentAndOnePutOfEachFails(t *testing.T) {
	iptest.Namespace(t)
	iptest.Underlay(t, "eth0", "192.0.2.1/24")
	k := kernel(t)
	want := cluster(100)
	lost := want.Links[0]
	lost.VXLAN.Underlay = "eth9"
	broken := ip.State{Links: []ip.Link{lost}, Addrs: want.Addrs, FDB: want.FDB, Neighs: want.Neighs, Routes: want.Routes}
	err := k.Apply(ip.Diff(ip.Snapshot{}, broken.Snapshot()))
	if failed := failures(t, err); len(failed) != 1 || !strings.Contains(err.Error(), "find device eth9") {
		t.Errorf("one cause, got %d errors: %v", len(failed), err)
	}
	// A device that vanishes before its entries are put: every put says so, and no route goes another way.
	var ops []ip.Op
	for _, r := range want.Routes {
		r.Onlink, r.Via = false, netip.MustParseAddr("192.0.2.2")
		ops = append(ops, ip.Op{Object: r})
	}
	if failed := failures(t, k.Apply(ops)); len(failed) != len(ops) {
		t.Errorf("%d of %d failed, want all", len(failed), len(ops))
	}
	if out := iptest.Run(t, "ip route show proto 70"); out != "" {
		t.Errorf("routes have gone another way: %s", out)
	}
}

// failures returns the errors of single operations, and fails the test if there are others.
func failures(t *testing.T, err error) map[ip.Op]error {
	t.Helper()
	out := map[ip.Op]error{}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		t.Fatalf("got %v, want joined errors", err)
	}
	for _, e := range joined.Unwrap() {
		var op *ip.OpError
		if !errors.As(e, &op) {
			t.Fatalf("not about one operation: %v", e)
		}
		out[op.Op] = op.Err
	}
	return out
}

func TestDeletingWhatIsGoneSucceeds(t *testing.T) {
	iptest.Namespace(t)
	iptest.Underlay(t, "eth0", "192.0.2.1/24")
	k := kernel(t)
	want := cluster(1)
	var deletes []ip.Op
	for _, o := range []ip.Object{want.Routes[0], want.Neighs[0], want.FDB[0], want.Addrs[0], want.Links[0]} {
		deletes = append(deletes, ip.Op{Delete: true, Object: o})
	}
	if err := k.Apply(deletes); err != nil {
		t.Errorf("without the device: %v", err)
	}
	apply(t, k, ip.State{Links: want.Links})
	if err := k.Apply(deletes); err != nil {
		t.Errorf("without anything on the device: %v", err)
	}
}

func TestAnErrorSaysWhatToDo(t *testing.T) {
	iptest.Namespace(t)
	iptest.Underlay(t, "eth0", "192.0.2.1/24")
	iptest.Run(t, "ip link add other type vxlan id 1 dstport 8472 local 192.0.2.1 dev eth0")
	err := kernel(t).Apply([]ip.Op{{Object: vxlanLink}})
	if err == nil || !strings.Contains(err.Error(), "another device has VNI 1 and port 8472") {
		t.Errorf("got %v", err)
	}
}

// The kernel reads a request for a route of IPv6 more strictly than one of IPv4.
func TestTheWayToAnIPv6AddressIsFound(t *testing.T) {
	iptest.Namespace(t)
	iptest.Underlay(t, "eth0", "192.0.2.1/24")
	k := kernel(t)
	iptest.Run(t, `ip addr add fd00:18::1/64 dev eth0 nodad
		ip route add default via fd00:18::fe dev eth0`)
	hop, err := k.RouteTo(netip.MustParseAddr("fd00:19::7"))
	want := ip.Hop{Link: "eth0", Via: netip.MustParseAddr("fd00:18::fe"), Src: netip.MustParseAddr("fd00:18::1")}
	if hop != want || err != nil {
		t.Errorf("IPv6 route %+v %v, want %+v", hop, err, want)
	}
}

func TestUnderlayQueries(t *testing.T) {
	iptest.Namespace(t)
	iptest.Underlay(t, "eth0", "192.0.2.1/24")
	iptest.Underlay(t, "eth1", "198.51.100.1/24")
	k := kernel(t)
	if _, ok, err := k.DefaultRoute(true); ok || err != nil {
		t.Errorf("default route %t %v, want none", ok, err)
	}
	iptest.Run(t, `ip route add default via 192.0.2.254 metric 100
		ip route add default via 198.51.100.254 metric 50`)
	hop, ok, err := k.DefaultRoute(true)
	if want := (ip.Hop{Link: "eth1", Via: netip.MustParseAddr("198.51.100.254")}); hop != want || !ok || err != nil {
		t.Errorf("default route %+v %t %v, want %+v", hop, ok, err, want)
	}
	hop, err = k.RouteTo(netip.MustParseAddr("192.0.2.7"))
	if want := (ip.Hop{Link: "eth0", Src: netip.MustParseAddr("192.0.2.1")}); hop != want || err != nil {
		t.Errorf("direct route %+v %v, want %+v", hop, err, want)
	}
	hop, err = k.RouteTo(netip.MustParseAddr("203.0.113.7"))
	if want := (ip.Hop{Link: "eth1", Via: netip.MustParseAddr("198.51.100.254"),
		Src: netip.MustParseAddr("198.51.100.1")}); hop != want || err != nil {
		t.Errorf("route %+v %v, want %+v", hop, err, want)
	}
	all, err := k.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	var text []string
	for _, i := range all {
		text = append(text, fmt.Sprintf("%s %v up=%t", i.Name, i.Addrs, i.Up))
	}
	want := []string{"lo [127.0.0.1/8 ::1/128] up=true", "eth0 [192.0.2.1/24] up=true", "eth1 [198.51.100.1/24] up=true"}
	if diff := cmp.Diff(text, want); diff != "" {
		t.Errorf("interfaces (-got +want):\n%s", diff)
	}
}
