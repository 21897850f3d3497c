package vxlan_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"flanneld/backend"
	"flanneld/backend/vxlan"
	"flanneld/ip"
	"flanneld/ip/iptest"
	"flanneld/subnet"
)

// rig is a host with a kernel in memory.
type rig struct {
	t        *testing.T
	kernel   *iptest.Kernel
	underlay ip.Underlay
	host     ip.Host
	log      *bytes.Buffer
}

func newRig(t *testing.T, f iptest.Faults) *rig {
	r := &rig{t: t, kernel: iptest.NewKernel(f), log: &bytes.Buffer{}}
	r.kernel.Underlay("eth0", "192.0.2.1/24")
	r.underlay = ip.Underlay{
		Link: "eth0", MTU: 1500,
		Addrs:       []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")},
		PublicAddrs: []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")},
	}
	r.host = ip.Host{
		Kernel: r.kernel, Log: slog.New(slog.NewTextHandler(r.log, nil)), Identity: "me",
		Underlay: func() ip.Underlay { return r.underlay },
		MACs:     map[string]ip.MAC{"flannel.1": {2, 0, 0, 0, 0, 1}, "flannel-v6.1": {2, 0, 0, 0, 0, 6}},
	}
	return r
}

func (r *rig) backend(config string) *backend.Applier {
	r.t.Helper()
	c, err := subnet.ParseConfig([]byte(config))
	if err != nil {
		r.t.Fatal(err)
	}
	b, err := vxlan.New(c, r.host)
	if err != nil {
		r.t.Fatal(err)
	}
	return backend.NewApplier(b, r.host, c.Networks())
}

const (
	plain  = `{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}`
	direct = `{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan","DirectRouting":true}}`
	dual   = `{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:5::/48","Backend":{"Type":"vxlan"}}`
)

// lease is that of a peer whose MAC ends in number.
func lease(prefix, public string, number byte) subnet.Lease {
	return subnet.Lease{Subnet: netip.MustParsePrefix(prefix), Attrs: subnet.Attrs{
		PublicIP: netip.MustParseAddr(public), BackendType: "vxlan",
		BackendData: fmt.Sprintf(`{"VNI":1,"VtepMAC":"02:00:00:00:01:%02x"}`, number),
	}}
}

func own(prefixes ...string) []subnet.Lease {
	var out []subnet.Lease
	for _, p := range prefixes {
		out = append(out, subnet.Lease{Subnet: netip.MustParsePrefix(p), Attrs: subnet.Attrs{BackendType: "vxlan"}})
	}
	return out
}

// wantKernel compares what the backend has put into the kernel.
func (r *rig) wantKernel(b *backend.Applier, want string) {
	r.t.Helper()
	got, err := r.kernel.Dump(b.Scope())
	if err != nil {
		r.t.Fatal(err)
	}
	if diff := cmp.Diff(got.String(), strings.TrimPrefix(want, "\n")); diff != "" {
		r.t.Errorf("kernel (-got +want):\n%s", diff)
	}
}

func set(t *testing.T, b *backend.Applier, self []subnet.Lease, peers ...subnet.Lease) {
	t.Helper()
	setPeers(t, b, self, subnet.PeersOf(peers...))
}

func setPeers(t *testing.T, b *backend.Applier, self []subnet.Lease, peers subnet.Peers) {
	t.Helper()
	if err := b.Set(self, peers); err != nil {
		t.Fatal(err)
	}
}

func TestWhatStandsInTheKernel(t *testing.T) {
	for _, tt := range []struct {
		name, config string
		change       func(*rig)
		self         []subnet.Lease
		peers        []subnet.Lease
		want         string
	}{
		{"a device alone", plain, nil, own("10.5.34.0/24"), nil, `
link flannel.1 type vxlan mac 02:00:00:00:00:01 mtu 1450 up vni 1 port 8472 local 192.0.2.1 dev eth0
addr 10.5.34.0/32 dev flannel.1
`},
		{"two peers", plain, nil, own("10.5.34.0/24"),
			[]subnet.Lease{lease("10.5.35.0/24", "192.0.2.2", 2), lease("10.5.36.0/24", "198.51.100.3", 3)}, `
link flannel.1 type vxlan mac 02:00:00:00:00:01 mtu 1450 up vni 1 port 8472 local 192.0.2.1 dev eth0
addr 10.5.34.0/32 dev flannel.1
fdb 02:00:00:00:01:02 dst 192.0.2.2 dev flannel.1
fdb 02:00:00:00:01:03 dst 198.51.100.3 dev flannel.1
neigh 10.5.35.0 lladdr 02:00:00:00:01:02 dev flannel.1
neigh 10.5.36.0 lladdr 02:00:00:00:01:03 dev flannel.1
route 10.5.35.0/24 via 10.5.35.0 dev flannel.1 onlink
route 10.5.36.0/24 via 10.5.36.0 dev flannel.1 onlink
`},
		{"direct routing to the peer on the same link", direct, nil, own("10.5.34.0/24"),
			[]subnet.Lease{lease("10.5.35.0/24", "192.0.2.2", 2), lease("10.5.36.0/24", "198.51.100.3", 3)}, `
link flannel.1 type vxlan mac 02:00:00:00:00:01 mtu 1450 up vni 1 port 8472 local 192.0.2.1 dev eth0
addr 10.5.34.0/32 dev flannel.1
fdb 02:00:00:00:01:03 dst 198.51.100.3 dev flannel.1
neigh 10.5.36.0 lladdr 02:00:00:00:01:03 dev flannel.1
route 10.5.35.0/24 via 192.0.2.2 dev eth0
route 10.5.36.0/24 via 10.5.36.0 dev flannel.1 onlink
`},
		{"all options", `{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan","vni":77,"Port":4789,"MTU":1400,"GBP":true,"Learning":true}}`,
			func(r *rig) { r.host.MACs["flannel.77"] = ip.MAC{2, 7} }, own("10.5.34.0/24"), nil, `
link flannel.77 type vxlan mac 02:07:00:00:00:00 mtu 1350 up vni 77 port 4789 local 192.0.2.1 dev eth0 learning gbp
addr 10.5.34.0/32 dev flannel.77
`},
		{"the MTU of the underlay bounds the option", `{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan","MTU":9000}}`,
			nil, own("10.5.34.0/24"), nil, `
link flannel.1 type vxlan mac 02:00:00:00:00:01 mtu 1450 up vni 1 port 8472 local 192.0.2.1 dev eth0
addr 10.5.34.0/32 dev flannel.1
`},
		{"both families", dual, nil, own("10.5.34.0/24", "fd00:5:0:22::/64"),
			[]subnet.Lease{lease("10.5.35.0/24", "192.0.2.2", 2), lease("fd00:5:0:23::/64", "2001:db8::2", 2)}, `
link flannel-v6.1 type vxlan mac 02:00:00:00:00:06 mtu 1430 up vni 1 port 8472 local 2001:db8::1 dev eth0
link flannel.1 type vxlan mac 02:00:00:00:00:01 mtu 1450 up vni 1 port 8472 local 192.0.2.1 dev eth0
addr fd00:5:0:22::/128 dev flannel-v6.1
addr 10.5.34.0/32 dev flannel.1
fdb 02:00:00:00:01:02 dst 2001:db8::2 dev flannel-v6.1
fdb 02:00:00:00:01:02 dst 192.0.2.2 dev flannel.1
neigh fd00:5:0:23:: lladdr 02:00:00:00:01:02 dev flannel-v6.1
neigh 10.5.35.0 lladdr 02:00:00:00:01:02 dev flannel.1
route 10.5.35.0/24 via 10.5.35.0 dev flannel.1 onlink
route fd00:5:0:23::/64 via fd00:5:0:23:: dev flannel-v6.1 onlink
`},
		{"a blackhole for the own subnet", plain, func(r *rig) { r.host.Blackhole = true }, own("10.5.34.0/24"), nil, `
link flannel.1 type vxlan mac 02:00:00:00:00:01 mtu 1450 up vni 1 port 8472 local 192.0.2.1 dev eth0
addr 10.5.34.0/32 dev flannel.1
route blackhole 10.5.34.0/24 metric 4294967295
`},
		{"a MAC leads to one host only", plain, nil, own("10.5.34.0/24"), []subnet.Lease{
			lease("10.5.35.0/24", "192.0.2.2", 2), lease("10.5.36.0/24", "192.0.2.3", 2),
			{Subnet: netip.MustParsePrefix("10.5.37.0/24"),
				Attrs: subnet.Attrs{PublicIP: netip.MustParseAddr("192.0.2.4"), BackendType: "vxlan",
					BackendData: `{"VNI":1,"VtepMAC":"02:00:00:00:00:01"}`}},
		}, `
link flannel.1 type vxlan mac 02:00:00:00:00:01 mtu 1450 up vni 1 port 8472 local 192.0.2.1 dev eth0
addr 10.5.34.0/32 dev flannel.1
fdb 02:00:00:00:01:02 dst 192.0.2.2 dev flannel.1
neigh 10.5.35.0 lladdr 02:00:00:00:01:02 dev flannel.1
route 10.5.35.0/24 via 10.5.35.0 dev flannel.1 onlink
`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, iptest.Faults{})
			if tt.change != nil {
				tt.change(r)
			}
			b := r.backend(tt.config)
			set(t, b, tt.self, tt.peers...)
			r.wantKernel(b, tt.want)
		})
	}
}

func TestDirectRoutesOfAFormerFlannelAreTakenOver(t *testing.T) {
	r := newRig(t, iptest.Faults{})
	b := r.backend(direct)
	left := ip.Route{Dst: netip.MustParsePrefix("10.5.35.0/24"), Via: netip.MustParseAddr("192.0.2.2"), Link: "eth0",
		Protocol: 3}
	gone := ip.Route{Dst: netip.MustParsePrefix("10.5.36.0/24"), Via: netip.MustParseAddr("192.0.2.3"), Link: "eth0",
		Protocol: 3}
	r.kernel.Put(left)
	r.kernel.Put(gone)
	set(t, b, own("10.5.34.0/24"), lease("10.5.35.0/24", "192.0.2.2", 2))
	s, err := r.kernel.Dump(b.Scope())
	if err != nil || len(s.Routes) != 1 || s.Routes[0].Dst != left.Dst || s.Routes[0].Protocol != ip.Protocol {
		t.Errorf("%v, %v, want one route with the protocol of the daemon", s.Routes, err)
	}
}

func TestDirectRoutesFollowTheRoutesOfTheHost(t *testing.T) {
	r := newRig(t, iptest.Faults{})
	b := r.backend(direct)
	self, near := own("10.5.34.0/24"), lease("10.5.35.0/24", "192.0.2.2", 2)
	set(t, b, self, near)
	routeOf := func() string {
		r.t.Helper()
		s, err := r.kernel.Dump(b.Scope())
		if err != nil || len(s.Routes) != 1 {
			t.Fatalf("%v %v", s.Routes, err)
		}
		return s.Routes[0].String()
	}
	const straight, tunnel = "10.5.35.0/24 via 192.0.2.2 dev eth0", "10.5.35.0/24 via 10.5.35.0 dev flannel.1 onlink"
	if got := routeOf(); got != straight {
		t.Errorf("at first: %s", got)
	}
	host := ip.Route{Dst: netip.MustParsePrefix("192.0.2.2/32"), Via: netip.MustParseAddr("192.0.2.254"), Link: "eth0",
		Protocol: 3}
	r.kernel.Put(host)
	if !b.Observe(ip.Event{Object: host}) {
		t.Error("a route to the peer wakes nobody")
	}
	set(t, b, self, near)
	if got := routeOf(); got != tunnel {
		t.Errorf("behind a router: %s", got)
	}
	r.kernel.Delete(host)
	for _, ev := range []ip.Event{
		{Object: ip.Route{Dst: netip.MustParsePrefix("10.5.34.0/24"), Link: "cni0", Protocol: 2}},
		{Object: ip.Addr{Link: "veth3", Prefix: netip.MustParsePrefix("10.1.1.1/24")}},
		{Object: ip.Link{Name: "veth3"}},
		{Object: ip.Neigh{Link: "eth0", IP: near.PublicIP}},
	} {
		if b.Observe(ev) {
			t.Errorf("%v wakes the daemon", ev.Object)
		}
	}
	if !b.Observe(ip.Event{}) { // lost notifications
		t.Error("lost notifications wake nobody")
	}
	set(t, b, self, near)
	if got := routeOf(); got != straight {
		t.Errorf("on the link again: %s", got)
	}
	// An event for both: the way to the peers, and our own state.
	if !b.Observe(ip.Event{Object: ip.Addr{Link: "flannel.1", Prefix: netip.MustParsePrefix("10.5.34.0/32")},
		Deleted: true}) {
		t.Error("the own address gone wakes nobody")
	}
}

func TestAPeerOnALinkWithoutNeighboursIsReachedThroughTheTunnel(t *testing.T) {
	r := newRig(t, iptest.Faults{})
	b := r.backend(direct)
	for _, alone := range []bool{false, true, false} {
		r.underlay.NoNeighbours = alone
		set(t, b, own("10.5.34.0/24"), lease("10.5.35.0/24", "192.0.2.2", 2))
		if got := strings.Contains(r.kernel.State().String(), "route 10.5.35.0/24 via 192.0.2.2 dev eth0"); got == alone {
			t.Errorf("no neighbours %t, a direct route %t", alone, got)
		}
	}
}

func TestLeftoversGoInTheFirstPassAndNothingElse(t *testing.T) {
	r := newRig(t, iptest.Faults{})
	foreign := []ip.Object{
		ip.Link{Name: "flannel.9", Type: "vxlan", MAC: ip.MAC{2, 9}, MTU: 1450, Up: true,
			VXLAN: ip.VXLAN{VNI: 9, Port: 8472, Underlay: "eth0"}},
		ip.Route{Dst: netip.MustParsePrefix("10.5.200.0/24"), Via: netip.MustParseAddr("192.0.2.9"), Link: "eth0",
			Protocol: 4},
		ip.Route{Dst: netip.MustParsePrefix("10.9.0.0/16"), Via: netip.MustParseAddr("192.0.2.9"), Link: "eth0",
			Protocol: ip.Protocol},
	}
	r.kernel.Put(foreign...)
	before := r.kernel.State().String()
	// The last run had another VNI, another network, and peers that are gone.
	old := r.backend(`{"Network":"10.7.0.0/16","Backend":{"Type":"vxlan","VNI":7}}`)
	set(t, old, own("10.7.1.0/24"), lease("10.7.2.0/24", "192.0.2.2", 2))
	r.host.Leftovers = old.Scope()
	b := r.backend(plain)
	if got := b.Scope(); len(got.Links) != 2 || len(got.Networks) != 2 {
		t.Errorf("until the first clean pass the leftovers are remembered, got %+v", got)
	}
	set(t, b, own("10.5.34.0/24"), lease("10.5.35.0/24", "192.0.2.2", 2))
	if got := b.Scope(); len(got.Links) != 1 {
		t.Errorf("still remembered: %+v", got)
	}
	if got := r.kernel.Foreign(b.Scope()).String(); got != before {
		t.Errorf("others' objects (-got +want):\n%s", cmp.Diff(got, before))
	}
}

func TestTheMACIsStable(t *testing.T) {
	r := newRig(t, iptest.Faults{})
	r.host.MACs = nil
	derived := r.backend(plain).MACs()["flannel.1"]
	if derived != r.backend(plain).MACs()["flannel.1"] || derived[0]&3 != 2 {
		t.Errorf("derived MAC %s", derived)
	}
	r.host.Identity = "another"
	if other := r.backend(plain).MACs()["flannel.1"]; other == derived {
		t.Error("two hosts with one MAC")
	}
	standing := ip.MAC{0xc6, 1, 2, 3, 4, 5}
	r.kernel.Put(ip.Link{Name: "flannel.1", Type: "vxlan", MAC: standing, MTU: 1450,
		VXLAN: ip.VXLAN{VNI: 1, Port: 8472, Underlay: "eth0"}})
	if got := r.backend(plain).MACs()["flannel.1"]; got != standing {
		t.Errorf("the standing device has %s, got %s", standing, got)
	}
	r.host.MACs = map[string]ip.MAC{"flannel.1": {2, 1}}
	b := r.backend(plain)
	if got := b.MACs()["flannel.1"]; got != (ip.MAC{2, 1}) {
		t.Errorf("the remembered MAC does not count: %s", got)
	}
	set(t, b, own("10.5.34.0/24"))
	r.kernel.Delete(ip.Link{Name: "flannel.1"})
	b.Observe(ip.Event{})
	set(t, b, own("10.5.34.0/24"))
	if got, _ := r.kernel.Dump(b.Scope()); got.Links[0].MAC != (ip.MAC{2, 1}) {
		t.Errorf("made anew as %s", got.Links[0])
	}
}

func TestWhatIsPublished(t *testing.T) {
	r := newRig(t, iptest.Faults{})
	b := r.backend(dual)
	got := b.Attrs(netip.MustParsePrefix("10.5.34.0/24"))
	want := subnet.Attrs{PublicIP: netip.MustParseAddr("192.0.2.1"), BackendType: "vxlan",
		BackendData: `{"VNI":1,"VtepMAC":"02:00:00:00:00:01"}`}
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if mtu := b.MTU(); mtu != 1430 {
		t.Errorf("MTU %d of both families", mtu)
	}
	if mtu := r.backend(plain).MTU(); mtu != 1450 {
		t.Errorf("MTU %d", mtu)
	}
}

func TestWhoCanBeAPeer(t *testing.T) {
	const high = `{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan","VNI":70000}}`
	for _, tt := range []struct{ config, data, want string }{
		{plain, `{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:44"}`, ""},
		{plain, `{"VNI":2,"VtepMAC":"c6:d2:32:6f:8f:44"}`, "its VNI is 2, the network's is 1"},
		{plain, `{"VtepMAC":"c6:d2:32:6f:8f:44"}`, ""},
		{high, `{"VNI":70000,"VtepMAC":"c6:d2:32:6f:8f:44"}`, ""},
		{high, `{"VNI":4464,"VtepMAC":"c6:d2:32:6f:8f:44"}`, ""}, // its lower 16 bits
		{high, `{"VNI":4465,"VtepMAC":"c6:d2:32:6f:8f:44"}`, "its VNI is 4465, the network's is 70000"},
		{plain, `{"VNI":65537,"VtepMAC":"c6:d2:32:6f:8f:44"}`, "its VNI is 65537, the network's is 1"},
		{plain, `{"VNI":1}`, "no VtepMAC"},
		{plain, `{"VNI":1,"VtepMAC":"c7:d2:32:6f:8f:44"}`, "multicast"},
		{plain, `{"VNI":1,"VtepMAC":"c6:d2"}`, "invalid MAC address"},
		{plain, ``, "unexpected end"},
		{plain, `[]`, "cannot unmarshal"},
	} {
		l := lease("10.5.35.0/24", "192.0.2.2", 2)
		l.BackendData = tt.data
		err := newRig(t, iptest.Faults{}).backend(tt.config).Valid(l)
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: %v, want %q", tt.data, err, tt.want)
		}
	}
}

func TestTheDeviceOfEachVNIHasANameThatTheKernelTakes(t *testing.T) {
	for vni, want := range map[int][]string{
		1:        {"flannel.1", "flannel-v6.1"},
		9999:     {"flannel.9999", "flannel-v6.9999"},
		10000:    {"flannel.10000", "flannel-6002710"},
		9999999:  {"flannel.9999999", "flannel-698967f"},
		10000000: {"flannel-4989680", "flannel-6989680"},
		16777215: {"flannel-4ffffff", "flannel-6ffffff"},
	} {
		b := newRig(t, iptest.Faults{}).backend(strings.Replace(dual, `"vxlan"`, fmt.Sprintf(`"vxlan","VNI":%d`, vni), 1))
		got := slices.Sorted(slices.Values(b.Scope().Links))
		if slices.Sort(want); !slices.Equal(got, want) {
			t.Errorf("VNI %d: %v, want %v", vni, got, want)
		}
		for _, name := range got {
			if len(name) > ip.MaxLinkName {
				t.Errorf("VNI %d: %s has %d bytes", vni, name, len(name))
			}
		}
	}
}

func TestParseOptions(t *testing.T) {
	usual := vxlan.Options{VNI: 1, Port: 8472}
	for _, tt := range []struct {
		text string
		want vxlan.Options
		errs []string
	}{
		{``, usual, nil},
		{`{"Type":"vxlan"}`, usual, nil},
		{`{"VNI":16777215,"Port":65535,"MTU":1500}`, vxlan.Options{VNI: 1<<24 - 1, Port: 65535, MTU: 1500}, nil},
		{`{"vni":5,"directrouting":true,"gbp":true,"LEARNING":true}`,
			vxlan.Options{VNI: 5, Port: 8472, GBP: true, Learning: true, DirectRouting: true}, nil},
		{`{"Port":0}`, usual, nil},
		{`{"VNI":0,"Port":70000,"MTU":100}`, vxlan.Options{},
			[]string{"VNI is 0, want 1 to 16777215", "Port is 70000", "MTU is 100"}},
		{`{"VNI":"1"}`, vxlan.Options{}, []string{"VNI is of the type string, want a whole number"}},
	} {
		got, err := vxlan.ParseOptions([]byte(tt.text))
		if got != tt.want || (err == nil) != (len(tt.errs) == 0) {
			t.Errorf("%s: got %+v %v", tt.text, got, err)
		}
		for _, want := range tt.errs {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, want %q in it", tt.text, err, want)
			}
		}
	}
}
