package underlay_test

import (
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"flanneld/ip"
	"flanneld/ip/iptest"
	"flanneld/underlay"
)

func TestChooseOnKernel(t *testing.T) {
	iptest.Namespace(t)
	k, err := ip.NewKernel(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	if _, err := underlay.Choose(k, underlay.Options{}, only4); err == nil ||
		!strings.Contains(err.Error(), "there is no IPv4 default route") {
		t.Errorf("in an empty namespace the error is %v, want that the default route is missing", err)
	}
	iptest.Run(t, `
		ip link add eth0 type veth peer name port0
		ip link add eth1 type veth peer name port1
		ip link set eth0 mtu 1400 up
		ip link set port0 up
		ip link set eth1 up
		ip link set port1 up
		ip addr add 192.0.2.5/24 dev eth0
		ip addr add 192.0.2.6/24 dev eth0
		ip addr add 10.1.0.5/16 dev eth1
		ip addr add 2001:db8::5/64 dev eth0 nodad
		ip addr add 2001:db8::77/128 dev eth0 nodad
		ip addr add 2001:db8::99/64 dev eth0 nodad preferred_lft 0
		ip route add default via 10.1.0.1 dev eth1 metric 200
		ip route add default via 192.0.2.1 dev eth0 src 192.0.2.6 metric 100
		ip -6 route add default via fe80::1 dev eth0
		ip link add flannel.1 type bridge
		ip addr add 10.5.1.0/32 dev flannel.1
		ip link set flannel.1 up
		ip route add 10.5.0.0/16 dev flannel.1`)
	tests := []struct {
		name     string
		options  underlay.Options
		families underlay.Families
		want     ip.Underlay // without MAC; no link: an error
	}{
		{"the default route with the lowest metric decides, and its source is used", underlay.Options{}, only4,
			ip.Underlay{Link: "eth0", MTU: 1400, Addrs: addrs("192.0.2.6"), Reason: "default route via 192.0.2.1 dev eth0"}},
		{"of the IPv6 addresses the deprecated and the single one do not come first", underlay.Options{}, only6,
			ip.Underlay{Link: "eth0", MTU: 1400, Addrs: addrs("2001:db8::5"), Reason: "default route via fe80::1 dev eth0"}},
		{"both families come from one interface", underlay.Options{Ifaces: []string{"eth0"}}, dual,
			ip.Underlay{Link: "eth0", MTU: 1400, Addrs: addrs("192.0.2.5", "2001:db8::5"), Reason: "-iface eth0"}},
		{"the kernel is asked for the way", underlay.Options{CanReach: netip.MustParseAddr("10.1.2.3")}, only4,
			ip.Underlay{Link: "eth1", MTU: 1500, Addrs: addrs("10.1.0.5"), Reason: "-iface-can-reach 10.1.2.3: route dev eth1"}},
		{"the way to a pod is no underlay", underlay.Options{CanReach: netip.MustParseAddr("10.5.9.9")}, only4,
			ip.Underlay{}},
		{"the way to the host itself is no underlay", underlay.Options{CanReach: netip.MustParseAddr("10.1.0.5")}, only4,
			ip.Underlay{}},
		{"a pattern finds the address of the other interface, not that of the overlay",
			underlay.Options{Regexes: patterns(`^10\.`)}, only4,
			ip.Underlay{Link: "eth1", MTU: 1500, Addrs: addrs("10.1.0.5"),
				Reason: `-iface-regex ^10\., which 10.1.0.5 on eth1 matches`}},
	}
	for _, tt := range tests { // no subtests: they would run on threads outside the namespace
		got, err := underlay.Choose(k, tt.options, tt.families)
		if (err == nil) != (tt.want.Link != "") {
			t.Errorf("%s: got %v, %v", tt.name, got, err)
			continue
		}
		tt.want.PublicAddrs = tt.want.Addrs
		if diff := cmp.Diff(tt.want, got, cmpopts.EquateComparable(netip.Addr{}),
			cmpopts.IgnoreFields(ip.Underlay{}, "MAC")); diff != "" {
			t.Errorf("%s: underlay (-want +got):\n%s", tt.name, diff)
		}
		if err == nil && got.MAC == (ip.MAC{}) {
			t.Errorf("%s: no MAC", tt.name)
		}
	}
}
