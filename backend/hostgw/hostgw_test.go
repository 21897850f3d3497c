package hostgw_test

import (
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"flanneld/backend"
	"flanneld/backend/hostgw"
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

func config(t *testing.T) subnet.Config {
	t.Helper()
	c, err := subnet.ParseConfig([]byte(`{"Network":"10.5.0.0/16","Backend":{"Type":"host-gw"}}`))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func lease(prefix, public string) subnet.Lease {
	return subnet.Lease{Subnet: netip.MustParsePrefix(prefix),
		Attrs: subnet.Attrs{PublicIP: netip.MustParseAddr(public), BackendType: hostgw.Type}}
}

func on(t *testing.T, h ip.Host) *backend.Applier {
	t.Helper()
	c := config(t)
	b, err := hostgw.New(c, h)
	if err != nil {
		t.Fatal(err)
	}
	return backend.NewApplier(b, h, c.Networks())
}

func TestRoutesLeadToThePeersAndNothingElseIsTouched(t *testing.T) {
	k := iptest.NewKernel(iptest.Faults{})
	k.Underlay("eth0", "192.0.2.1/24")
	route := func(dst, via string, protocol uint8) ip.Route {
		return ip.Route{Dst: netip.MustParsePrefix(dst), Via: netip.MustParseAddr(via), Link: "eth0", Protocol: protocol}
	}
	k.Put(
		route("10.9.0.0/16", "192.0.2.9", 3),   // outside the network
		route("10.5.99.0/24", "192.0.2.9", 4),  // an administrator's
		route("10.5.36.0/24", "192.0.2.33", 3), // flannel's, of a peer that has gone
		route("10.5.37.0/24", "192.0.2.37", 3), // flannel's, of a peer that lives
		route("10.5.38.0/24", "192.0.2.38", ip.Protocol),
	)
	h := host(k)
	h.Blackhole = true
	b := on(t, h)
	peers := []subnet.Lease{lease("10.5.35.0/24", "192.0.2.2"), lease("10.5.37.0/24", "192.0.2.37")}
	if err := b.Set([]subnet.Lease{lease("10.5.34.0/24", "192.0.2.1")}, subnet.PeersOf(peers...)); err != nil {
		t.Fatal(err)
	}
	want := `link eth0 type veth mac 02:00:00:00:00:ee mtu 1500 up
link lo type loopback mac 00:00:00:00:00:00 mtu 65536 up
addr 192.0.2.1/24 dev eth0
addr 127.0.0.1/8 dev lo
route blackhole 10.5.34.0/24 metric 4294967295
route 10.5.35.0/24 via 192.0.2.2 dev eth0
route 10.5.37.0/24 via 192.0.2.37 dev eth0
route 10.5.99.0/24 via 192.0.2.9 dev eth0 proto 4
route 10.9.0.0/16 via 192.0.2.9 dev eth0 proto 3
`
	if diff := cmp.Diff(k.State().String(), want); diff != "" {
		t.Errorf("kernel (-got +want):\n%s", diff)
	}
}

func TestAPeerBehindARouterHarmsNoOther(t *testing.T) {
	k := iptest.NewKernel(iptest.Faults{})
	k.Underlay("eth0", "192.0.2.1/24")
	b := on(t, host(k))
	err := b.Set(nil, subnet.PeersOf(lease("10.5.35.0/24", "198.51.100.2"), lease("10.5.36.0/24", "192.0.2.3")))
	if !ip.PeersOnly(err) || !strings.Contains(err.Error(), "10.5.35.0/24 via 198.51.100.2") {
		t.Errorf("got %v", err)
	}
	got, _ := k.Dump(b.Scope())
	if len(got.Routes) != 1 || got.Routes[0].Dst != netip.MustParsePrefix("10.5.36.0/24") {
		t.Errorf("routes %v", got.Routes)
	}
}

func TestAPublicAddressOfAnotherIsRefused(t *testing.T) {
	h := host(iptest.NewKernel(iptest.Faults{}))
	u := h.Underlay()
	u.PublicAddrs = []netip.Addr{netip.MustParseAddr("203.0.113.1")}
	h.Underlay = func() ip.Underlay { return u }
	if _, err := hostgw.New(config(t), h); err == nil || !strings.Contains(err.Error(), "remove -public-ip") {
		t.Errorf("got %v", err)
	}
}

func TestWhoCanBeAPeer(t *testing.T) {
	b, err := hostgw.New(config(t), host(iptest.NewKernel(iptest.Faults{})))
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Valid(lease("10.5.35.0/24", "192.0.2.2")); err != nil {
		t.Error(err)
	}
	if err := b.Valid(lease("10.5.35.0/24", "2001:db8::2")); err == nil {
		t.Error("a peer of the other family is valid")
	}
	if b.MTU() != 1500 || b.Attrs(netip.MustParsePrefix("10.5.34.0/24")).PublicIP != netip.MustParseAddr("192.0.2.1") {
		t.Errorf("MTU %d, %+v", b.MTU(), b.Attrs(netip.MustParsePrefix("10.5.34.0/24")))
	}
}
