package wireguard_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"flanneld/backend"
	"flanneld/backend/wireguard"
	"flanneld/ip"
	"flanneld/ip/iptest"
	"flanneld/subnet"
)

// rig is a host with a kernel in memory and WireGuard devices of the library.
type rig struct {
	t        *testing.T
	kernel   *iptest.Kernel
	tunnels  *wireguard.Tunnels
	underlay ip.Underlay
	log      *bytes.Buffer
	private  wgtypes.Key
	b        *wireguard.Backend
	all      *backend.Applier
}

func newRig(t *testing.T, config string, files ...string) *rig {
	t.Helper()
	r := &rig{t: t, kernel: iptest.NewKernel(iptest.Faults{}), tunnels: wireguard.NewTunnels(), log: &bytes.Buffer{},
		private: secret(200)}
	r.kernel.Underlay("eth0", "192.0.2.1/24")
	own := []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}
	r.underlay = ip.Underlay{Link: "eth0", MTU: 1500, Addrs: own, PublicAddrs: own}
	c, err := subnet.ParseConfig([]byte(config))
	if err != nil {
		t.Fatal(err)
	}
	h := ip.Host{Kernel: r.kernel, Log: slog.New(slog.NewTextHandler(r.log, nil)),
		Underlay: func() ip.Underlay { return r.underlay }}
	if r.b, err = wireguard.NewWith(c, h, r.private, r.tunnels, files...); err != nil {
		t.Fatal(err)
	}
	r.all = backend.NewApplier(r.b, h, c.Networks())
	t.Cleanup(r.b.Close)
	return r
}

// config4 and the others take no fixed port: tests run side by side.
var (
	config4 = `{"Network":"10.5.0.0/16","Backend":{"Type":"wireguard","ListenPort":` + freePort() +
		`,"PSK":"cHNrcHNrcHNrcHNrcHNrcHNrcHNrcHNrcHNrcHNrMTI="}}`
	dualWith  = `{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:5::/48","Backend":{"Type":"wireguard","ListenPort":%s,"ListenPortV6":%s,"Mode":%q}}`
	separate  = fmt.Sprintf(dualWith, freePort(), freePort(), "separate")
	selfDual  = []subnet.Lease{own("10.5.1.0/24"), own("fd00:5:0:1::/64")}
	selfAlone = []subnet.Lease{own("10.5.1.0/24")}
)

func freePort() string {
	c, err := net.ListenPacket("udp", ":0")
	if err != nil {
		panic(err)
	}
	defer c.Close()
	return fmt.Sprint(c.LocalAddr().(*net.UDPAddr).Port)
}

func secret(n byte) wgtypes.Key { return wgtypes.Key{8, n, 31: 64} }

func public(n byte) wgtypes.Key { return secret(n).PublicKey() }

func own(prefix string) subnet.Lease { return subnet.Lease{Subnet: netip.MustParsePrefix(prefix)} }

// lease is that of a peer with one of the test's keys.
func lease(prefix, public_ string, key byte) subnet.Lease {
	return subnet.Lease{Subnet: netip.MustParsePrefix(prefix), Attrs: subnet.Attrs{
		PublicIP: netip.MustParseAddr(public_), BackendType: "wireguard",
		BackendData: fmt.Sprintf(`{"PublicKey":%q,"Port":4500}`, public(key)),
	}}
}

func (r *rig) set(self []subnet.Lease, peers ...subnet.Lease) {
	r.t.Helper()
	if err := r.all.Set(self, subnet.PeersOf(peers...)); err != nil {
		r.t.Fatal(err)
	}
}

// peers renders the peers of a device: key, endpoint, allowed addresses.
func (r *rig) peers(device string) map[byte]string {
	r.t.Helper()
	d, err := r.tunnels.Open[device].Device()
	if err != nil {
		r.t.Fatal(err)
	}
	out := map[byte]string{}
	for _, p := range d.Peers {
		for n := range byte(250) {
			if public(n) == p.PublicKey {
				out[n] = fmt.Sprint(p.Endpoint, " ", p.AllowedIPs)
			}
		}
	}
	return out
}

func (r *rig) wantPeers(device string, want map[byte]string) {
	r.t.Helper()
	if diff := cmp.Diff(want, r.peers(device)); diff != "" {
		r.t.Errorf("peers of %s: (-want +got)\n%s", device, diff)
	}
}

func TestSeparateDevicesHaveThePeersOfTheirFamily(t *testing.T) {
	r := newRig(t, separate)
	r.set(selfDual, lease("10.5.2.0/24", "192.0.2.2", 2), lease("fd00:5:0:2::/64", "2001:db8::2", 2))
	r.wantPeers("flannel-wg", map[byte]string{2: "192.0.2.2:4500 [{10.5.2.0 ffffff00}]"})
	r.wantPeers("flannel-wg-v6", map[byte]string{
		2: "[2001:db8::2]:4500 [{fd00:5:0:2:: ffffffffffffffff0000000000000000}]",
	})
	want := `link flannel-wg type wireguard mac 00:00:00:00:00:00 mtu 1420 up
link flannel-wg-v6 type wireguard mac 00:00:00:00:00:00 mtu 1420 up
addr 10.5.1.0/32 dev flannel-wg
addr fd00:5:0:1::/128 dev flannel-wg-v6
route 10.5.0.0/16 dev flannel-wg
route fd00:5::/48 dev flannel-wg-v6
`
	s, err := r.kernel.Dump(r.all.Scope())
	if err != nil || s.String() != want {
		t.Errorf("kernel:\n%s%v, want:\n%s", s, err, want)
	}
}

func TestASingleDeviceChoosesTheEndpointByTheMode(t *testing.T) {
	const v4, v6 = "192.0.2.2", "2001:db8::2"
	for _, tt := range []struct{ mode, v4, v6, own6, want string }{
		{"ipv4", v4, v6, "2001:db8::1", v4},
		{"ipv6", v4, v6, "2001:db8::1", v6},
		{"auto", v4, v6, "2001:db8::1", v4},
		{"auto", "10.9.0.2", v6, "2001:db8::1", v6},
		{"auto", "10.9.0.2", v6, "fd00::1", "10.9.0.2"},
		{"auto", "10.9.0.2", "fd00::2", "2001:db8::1", "10.9.0.2"},
	} {
		r := newRig(t, fmt.Sprintf(dualWith, freePort(), freePort(), tt.mode))
		r.underlay.Addrs = []netip.Addr{r.underlay.Addrs[0], netip.MustParseAddr(tt.own6)}
		a, b := lease("10.5.2.0/24", tt.v4, 2), lease("fd00:5:0:2::/64", tt.v6, 2)
		if err := r.all.Set(selfDual, recordOf(t, a, b)); err != nil {
			t.Fatal(err)
		}
		want := netip.AddrPortFrom(netip.MustParseAddr(tt.want), 4500).String()
		if got := r.peers("flannel-wg")[2]; !strings.HasPrefix(got, want+" ") || !strings.Contains(got, "10.5.2.0") ||
			!strings.Contains(got, "fd00:5:0:2::") {
			t.Errorf("%+v: %s", tt, got)
		}
	}
}

// recordOf returns the peers of one record.
func recordOf(t *testing.T, leases ...subnet.Lease) subnet.Peers {
	c, err := subnet.ParseConfig([]byte(separate))
	if err != nil {
		t.Fatal(err)
	}
	table := subnet.NewPeerTable("me", func(subnet.Lease) error { return nil })
	r := subnet.Record{Leases: leases}
	table.Replace(subnet.Snapshot{Entries: []*subnet.Entry{{Record: r, Key: r.Key(), Revision: 1, Created: 1}}},
		time.Time{})
	peers, _, _ := table.Peers(c, selfDual)
	return peers
}

func TestOnlyWhatDiffersIsConfigured(t *testing.T) {
	r := newRig(t, config4)
	a, b := lease("10.5.2.0/24", "192.0.2.2", 2), lease("10.5.3.0/24", "192.0.2.3", 3)
	r.set(selfAlone, a, b)
	first := len(r.tunnels.Changes["flannel-wg"])
	r.set(selfAlone, a, b)
	if got := r.tunnels.Changes["flannel-wg"][first:]; len(got) != 0 {
		t.Fatalf("changes without a reason: %v", got)
	}
	moved := lease("10.5.3.0/24", "192.0.2.4", 3)
	r.set(selfAlone, a, moved, lease("10.5.4.0/24", "192.0.2.5", 4))
	got := r.tunnels.Changes["flannel-wg"][first:]
	if len(got) != 1 || len(got[0].Peers) != 2 || got[0].ReplacePeers || got[0].PrivateKey != nil ||
		got[0].ListenPort != nil {
		t.Fatalf("changes: %+v", got)
	}
	for _, p := range got[0].Peers {
		if p.PublicKey == public(3) &&
			(p.PresharedKey != nil || p.AllowedIPs != nil || p.ReplaceAllowedIPs || p.Endpoint.String() != "192.0.2.4:4500") {
			t.Errorf("change of the peer that has moved: %+v", p)
		}
	}
	r.set(selfAlone, a)
	r.wantPeers("flannel-wg", map[byte]string{2: "192.0.2.2:4500 [{10.5.2.0 ffffff00}]"})
}

func TestASubnetMovesFromOneHostToAnother(t *testing.T) {
	r := newRig(t, config4)
	r.set(selfAlone, lease("10.5.2.0/24", "192.0.2.2", 2), lease("10.5.3.0/24", "192.0.2.3", 3))
	r.set(selfAlone, lease("10.5.2.0/24", "192.0.2.3", 3), lease("10.5.3.0/24", "192.0.2.2", 2))
	r.wantPeers("flannel-wg", map[byte]string{2: "192.0.2.2:4500 [{10.5.3.0 ffffff00}]",
		3: "192.0.2.3:4500 [{10.5.2.0 ffffff00}]"})
	if d := r.log.String(); strings.Contains(d, "drift") {
		t.Error(d)
	}
	r.b.Look()
	if d := r.log.String(); strings.Contains(d, "drift") {
		t.Error(d)
	}
}

func TestTamperingIsHealed(t *testing.T) {
	port, keepalive, mark, foreign, psk := 4999, 9*time.Second, 7, public(99), secret(5)
	other := net.IPNet{IP: net.IP{10, 5, 99, 0}, Mask: net.CIDRMask(24, 32)}
	key := secret(42)
	for name, c := range map[string]wgtypes.Config{
		"private key":   {PrivateKey: &key},
		"port":          {ListenPort: &port},
		"mark":          {FirewallMark: &mark},
		"foreign peer":  {Peers: []wgtypes.PeerConfig{{PublicKey: foreign, AllowedIPs: []net.IPNet{other}}}},
		"peer removed":  {Peers: []wgtypes.PeerConfig{{PublicKey: public(2), Remove: true}}},
		"preshared key": {Peers: []wgtypes.PeerConfig{{PublicKey: public(2), PresharedKey: &psk}}},
		"endpoint": {Peers: []wgtypes.PeerConfig{{PublicKey: public(2),
			Endpoint: &net.UDPAddr{IP: net.IP{192, 0, 2, 99}, Port: 9}}}},
		"keepalive":         {Peers: []wgtypes.PeerConfig{{PublicKey: public(2), PersistentKeepaliveInterval: &keepalive}}},
		"allowed IPs added": {Peers: []wgtypes.PeerConfig{{PublicKey: public(2), AllowedIPs: []net.IPNet{other}}}},
		"allowed IPs gone":  {Peers: []wgtypes.PeerConfig{{PublicKey: public(2), ReplaceAllowedIPs: true}}},
		"allowed IPs stolen": {Peers: []wgtypes.PeerConfig{{PublicKey: public(3),
			AllowedIPs: []net.IPNet{{IP: net.IP{10, 5, 2, 0}, Mask: net.CIDRMask(24, 32)}}}}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, config4)
			r.set(selfAlone, lease("10.5.2.0/24", "192.0.2.2", 2), lease("10.5.3.0/24", "192.0.2.3", 3))
			dev := r.tunnels.Open["flannel-wg"]
			before := r.device(dev)
			if err := dev.Configure(c); err != nil {
				t.Fatal(err)
			}
			r.b.Look()
			if diff := cmp.Diff(before, r.device(dev)); diff != "" {
				t.Errorf("not healed (-want +got):\n%s", diff)
			}
			if log := r.log.String(); strings.Count(log, "drift found") != 1 || strings.Contains(log, key.String()) ||
				strings.Contains(log, psk.String()) {
				t.Errorf("log: %s", log)
			}
			if n := r.b.Counters()["repaired: device settings"]; n == 0 {
				t.Error("nothing was counted")
			}
		})
	}
}

// device returns all settings of a device, the peers by key.
func (r *rig) device(d wireguard.Tunnel) any {
	r.t.Helper()
	got, err := d.Device()
	if err != nil {
		r.t.Fatal(err)
	}
	peers := map[string]wgtypes.Peer{}
	for _, p := range got.Peers {
		p.ReceiveBytes, p.TransmitBytes = 0, 0
		peers[p.PublicKey.String()] = p
	}
	got.Peers = nil
	return []any{got, peers}
}

func TestTheEndpointOfARoamingPeerIsLeftAlone(t *testing.T) {
	r := newRig(t, config4)
	peer := lease("10.5.2.0/24", "192.0.2.2", 2)
	r.set(selfAlone, peer)
	dev := r.tunnels.Open["flannel-wg"]
	roamed := &net.UDPAddr{IP: net.IP{203, 0, 113, 9}, Port: 999}
	handshake := time.Now()
	dev.See = func(p *wgtypes.Peer) { p.LastHandshakeTime = handshake }
	if err := dev.Configure(wgtypes.Config{Peers: []wgtypes.PeerConfig{{PublicKey: public(2),
		Endpoint: roamed}}}); err != nil {
		t.Fatal(err)
	}
	r.b.Look()
	r.b.Look()
	r.wantPeers("flannel-wg", map[byte]string{2: "203.0.113.9:999 [{10.5.2.0 ffffff00}]"})
	t.Run("unless the lease says another one", func(t *testing.T) {
		r.set(selfAlone, lease("10.5.2.0/24", "192.0.2.7", 2))
		r.wantPeers("flannel-wg", map[byte]string{2: "192.0.2.7:4500 [{10.5.2.0 ffffff00}]"})
	})
	t.Run("until its session has ended", func(t *testing.T) {
		if err := dev.Configure(wgtypes.Config{Peers: []wgtypes.PeerConfig{{PublicKey: public(2),
			Endpoint: roamed}}}); err != nil {
			t.Fatal(err)
		}
		handshake = time.Now().Add(-4 * time.Minute)
		r.b.Look()
		r.wantPeers("flannel-wg", map[byte]string{2: "192.0.2.7:4500 [{10.5.2.0 ffffff00}]"})
	})
}

func TestOfTwoHostsWithOneKeyTheFirstHasIt(t *testing.T) {
	r := newRig(t, config4)
	r.set(selfAlone, lease("10.5.2.0/24", "192.0.2.2", 2), lease("10.5.3.0/24", "192.0.2.3", 2),
		lease("10.5.4.0/24", "192.0.2.4", 200))
	r.wantPeers("flannel-wg", map[byte]string{2: "192.0.2.2:4500 [{10.5.2.0 ffffff00}]"})
	skipped := r.all.Skipped()
	if len(skipped) != 2 || !strings.Contains(skipped[netip.MustParsePrefix("10.5.3.0/24")], "same public key") ||
		!strings.Contains(skipped[netip.MustParsePrefix("10.5.4.0/24")], "that of this host") {
		t.Errorf("skipped: %v", skipped)
	}
}

func TestAFailedChangeIsTriedAgain(t *testing.T) {
	r := newRig(t, config4)
	r.tunnels.Fail = func() error { return errors.New("out of memory") }
	if err := r.all.Set(selfAlone, subnet.PeersOf(lease("10.5.2.0/24", "192.0.2.2", 2))); err == nil ||
		!strings.Contains(err.Error(), "out of memory") {
		t.Fatalf("got %v", err)
	}
	r.tunnels.Fail = func() error { return nil }
	r.set(selfAlone, lease("10.5.2.0/24", "192.0.2.2", 2))
	r.wantPeers("flannel-wg", map[byte]string{2: "192.0.2.2:4500 [{10.5.2.0 ffffff00}]"})
	if got := r.greeted(); len(got) != 1 || got[0] != public(2) {
		t.Errorf("greeted %v", got)
	}
}

// greeted returns the peers that were greeted since it was called last, at once or later.
func (r *rig) greeted() []wgtypes.Key {
	r.b.GreetLate()
	out := r.tunnels.Greeted
	r.tunnels.Greeted = nil
	return out
}

// TestNewPeersAreGreeted has a device whose sessions outlive the process, until it is made anew.
func TestNewPeersAreGreeted(t *testing.T) {
	r := newRig(t, config4)
	r.tunnels.Lasts = true
	a, b := lease("10.5.2.0/24", "192.0.2.2", 2), lease("10.5.3.0/24", "192.0.2.3", 3)
	r.set(selfAlone, a)
	if got := r.greeted(); len(got) != 1 || got[0] != public(2) {
		t.Errorf("greeted %v, want the first peer", got)
	}
	r.set(selfAlone, a, b)
	if got := r.greeted(); len(got) != 1 || got[0] != public(3) {
		t.Errorf("greeted %v, want the new peer", got)
	}
	a.PublicIP = netip.MustParseAddr("192.0.2.9")
	r.set(selfAlone, a, b)
	if got := r.greeted(); len(got) != 0 {
		t.Errorf("greeted %v, want nobody: the session lives on with another address", got)
	}
	none := wgtypes.Config{Peers: []wgtypes.PeerConfig{{PublicKey: public(2), Remove: true},
		{PublicKey: public(3), Remove: true}}}
	if err := r.tunnels.Open["flannel-wg"].Configure(none); err != nil {
		t.Fatal(err)
	}
	r.b.Look()
	if got := r.greeted(); len(got) != 2 {
		t.Errorf("greeted %v, want both peers of the device that is new", got)
	}
}

// TestOfTwoHostsOneGreetsFirst: of two handshakes that cross, both fail.
func TestOfTwoHostsOneGreetsFirst(t *testing.T) {
	r := newRig(t, config4)
	own := r.private.PublicKey()
	var peers []subnet.Lease
	first := 0
	for i := byte(2); i < 12; i++ {
		peers = append(peers, lease(fmt.Sprintf("10.5.%d.0/24", i), fmt.Sprintf("192.0.2.%d", i), i))
		if key := public(i); bytes.Compare(own[:], key[:]) < 0 {
			first++
		}
	}
	r.set(selfAlone, peers...)
	for _, key := range r.tunnels.Greeted {
		if bytes.Compare(own[:], key[:]) > 0 {
			t.Errorf("%s is greeted at once, which greets this host at once", key)
		}
	}
	if n := len(r.tunnels.Greeted); n != first {
		t.Errorf("%d are greeted at once, want %d", n, first)
	}
	if n := len(r.greeted()); n != len(peers) {
		t.Errorf("%d are greeted in all, want %d", n, len(peers))
	}
}

func TestWhatALeaseCarries(t *testing.T) {
	r := newRig(t, fmt.Sprintf(dualWith, "4001", "4002", "separate"))
	for prefix, port := range map[string]int{"10.5.1.0/24": 4001, "fd00:5:0:1::/64": 4002} {
		a := r.b.Attrs(netip.MustParsePrefix(prefix))
		if want := fmt.Sprintf(`{"PublicKey":%q,"Port":%d}`, r.private.PublicKey(), port); a.BackendData != want ||
			a.BackendType != "wireguard" {
			t.Errorf("%s: %+v, want %s", prefix, a, want)
		}
	}
	for text, want := range map[string]string{
		`{"PublicKey":"` + public(2).String() + `"}`: "", `{}`: "no PublicKey", `{"PublicKey":"AAAA"}`: "32 bytes",
		`[]`: "backend data",
		`{"PublicKey":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}`: "no key", ``: "backend data",
	} {
		l := lease("10.5.2.0/24", "192.0.2.2", 2)
		l.BackendData = text
		if err := r.b.Valid(l); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
	if err := r.b.Valid(lease("10.5.2.0/24", "10.5.9.9", 2)); err == nil {
		t.Error("a host inside the network is accepted")
	}
}

func FuzzParseData(f *testing.F) {
	f.Add(`{"PublicKey":"` + public(2).String() + `","Port":4500}`)
	f.Fuzz(func(t *testing.T, text string) {
		if key, _, err := wireguard.ParseData(text); err == nil && key == (wgtypes.Key{}) {
			t.Errorf("%s: a key of zeros", text)
		}
	})
}
