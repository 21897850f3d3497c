package ipip_test

import (
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"flanneld/backend"
	"flanneld/backend/ipip"
	"flanneld/backend/ipip/options"
	"flanneld/ip"
	"flanneld/ip/iptest"
	"flanneld/subnet"
)

func host(k ip.Kernel) ip.Host {
	addrs := []netip.Addr{netip.MustParseAddr("192.0.2.1")}
	return ip.Host{Kernel: k, Log: slog.New(slog.DiscardHandler), Underlay: func() ip.Underlay {
		return ip.Underlay{Link: "eth0", MTU: 1500, Addrs: addrs, PublicAddrs: addrs}
	}}
}

func config(t *testing.T, options string) subnet.Config {
	t.Helper()
	c, err := subnet.ParseConfig([]byte(`{"Network":"10.5.0.0/16","Backend":{"Type":"ipip"` + options + `}}`))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func lease(prefix, public string) subnet.Lease {
	return subnet.Lease{Subnet: netip.MustParsePrefix(prefix),
		Attrs: subnet.Attrs{PublicIP: netip.MustParseAddr(public), BackendType: ipip.Type}}
}

// on returns the backend on a kernel that has eth0 and what flannel has left there.
func on(t *testing.T, h ip.Host, k *iptest.Kernel, options string) *backend.Applier {
	t.Helper()
	k.Underlay("eth0", "192.0.2.1/24")
	c := config(t, options)
	b, err := ipip.New(c, h)
	if err != nil {
		t.Fatal(err)
	}
	return backend.NewApplier(b, h, c.Networks())
}

const underlay = `link eth0 type veth mac 02:00:00:00:00:ee mtu 1500 up
link flannel.ipip type ipip mac 00:00:00:00:00:00 mtu 1480 up local 192.0.2.1
link lo type loopback mac 00:00:00:00:00:00 mtu 65536 up
addr 192.0.2.1/24 dev eth0
addr 10.5.34.0/32 dev flannel.ipip
addr 127.0.0.1/8 dev lo
`

func TestRoutesLeadToThePeersThroughTheTunnelOrDirectly(t *testing.T) {
	for _, tt := range []struct{ options, routes string }{
		{``, `route 10.5.35.0/24 via 192.0.2.2 dev flannel.ipip onlink
route 10.5.36.0/24 via 198.51.100.2 dev flannel.ipip onlink
`},
		{`,"directrouting":true`, `route 10.5.35.0/24 via 192.0.2.2 dev eth0
route 10.5.36.0/24 via 198.51.100.2 dev flannel.ipip onlink
`},
	} {
		k := iptest.NewKernel(iptest.Faults{})
		b := on(t, host(k), k, tt.options)
		k.Put( // a device of an earlier address, and a route to a peer that has gone
			ip.Link{Name: ipip.Device, Type: "ipip", MTU: 1480, Up: true,
				Tunnel: ip.Tunnel{Local: netip.MustParseAddr("192.0.2.77")}},
			ip.Route{Dst: netip.MustParsePrefix("10.5.37.0/24"), Via: netip.MustParseAddr("192.0.2.37"), Link: ipip.Device,
				Onlink: true, Protocol: 3},
		)
		peers := subnet.PeersOf(lease("10.5.35.0/24", "192.0.2.2"), lease("10.5.36.0/24", "198.51.100.2"))
		for range 2 {
			if err := b.Set([]subnet.Lease{lease("10.5.34.0/24", "192.0.2.1")}, peers); err != nil {
				t.Fatal(err)
			}
		}
		if diff := cmp.Diff(k.State().String(), underlay+tt.routes); diff != "" {
			t.Errorf("options %q, kernel (-got +want):\n%s", tt.options, diff)
		}
	}
}

func TestADirectRouteFollowsTheUnderlay(t *testing.T) {
	k := iptest.NewKernel(iptest.Faults{})
	b := on(t, host(k), k, `,"DirectRouting":true`)
	self, peers := []subnet.Lease{lease("10.5.34.0/24", "192.0.2.1")},
		subnet.PeersOf(lease("10.5.36.0/24", "198.51.100.2"))
	if err := b.Set(self, peers); err != nil {
		t.Fatal(err)
	}
	onLink := ip.Addr{Link: "eth0", Prefix: netip.MustParsePrefix("198.51.100.1/24")}
	k.Put(onLink)
	if !b.Observe(ip.Event{Object: onLink}) {
		t.Error("an address that puts a peer on the link asks for no pass")
	}
	if err := b.Set(self, peers); err != nil {
		t.Fatal(err)
	}
	if got := k.State().String(); !strings.Contains(got, "route 10.5.36.0/24 via 198.51.100.2 dev eth0\n") {
		t.Errorf("kernel:\n%s", got)
	}
}

func TestWhoCanBeAPeer(t *testing.T) {
	k := iptest.NewKernel(iptest.Faults{})
	b := on(t, host(k), k, "")
	if err := b.Valid(lease("10.5.35.0/24", "192.0.2.2")); err != nil {
		t.Error(err)
	}
	if b.Valid(lease("10.5.35.0/24", "2001:db8::2")) == nil || b.Valid(lease("fd00:5:0:23::/64", "192.0.2.2")) == nil {
		t.Error("a peer of IPv6 is valid")
	}
	if a := b.Attrs(netip.MustParsePrefix("10.5.34.0/24")); b.MTU() != 1480 ||
		a != lease("10.5.34.0/24", "192.0.2.1").Attrs {
		t.Errorf("MTU %d, %+v", b.MTU(), a)
	}
}

func TestAnUnderlayWithATinyMTUIsNamed(t *testing.T) {
	k := iptest.NewKernel(iptest.Faults{})
	h := host(k)
	u := h.Underlay()
	u.MTU = 80
	h.Underlay = func() ip.Underlay { return u }
	err := on(t, h, k, "").Set([]subnet.Lease{lease("10.5.34.0/24", "192.0.2.1")}, subnet.Peers{})
	if err == nil || !strings.Contains(err.Error(), "88 at least") {
		t.Errorf("got %v", err)
	}
}

func TestOptionsThatAreWrongAreNamed(t *testing.T) {
	if _, err := ipip.New(config(t, `,"DirectRouting":"yes"`), host(nil)); err == nil ||
		!strings.Contains(err.Error(), "DirectRouting") {
		t.Errorf("got %v", err)
	}
	c, err := subnet.ParseConfig([]byte(`{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:5::/48","Backend":{"Type":"ipip"}}`))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := options.Parse(c); err == nil || !strings.Contains(err.Error(), "IPv4 only") {
		t.Errorf("got %v", err)
	}
}
