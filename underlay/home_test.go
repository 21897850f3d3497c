package underlay_test

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"flanneld/ip"
	"flanneld/underlay"
)

// keepalived and kube-vip add a virtual address to the interface and remove it; a DHCP client may take the host's own
// address away for a moment, after which the kernel lists it behind the virtual one.
func TestAVirtualAddressIsNotPreferred(t *testing.T) {
	using := func(a string) ip.Underlay { return ip.Underlay{Link: "eth0", Addrs: addrs(a)} }
	reach := netip.MustParseAddr("198.51.100.1")
	tests := []struct {
		name    string
		eth0    []string // addresses as the kernel lists them
		options underlay.Options
		src     string // that the kernel takes towards reach
		want    string // address that peers are told
	}{
		{name: "a /32 that was added first", eth0: []string{"192.0.2.100/32", "192.0.2.5/24"}, want: "192.0.2.5"},
		{name: "a /32 beside a link-local address", eth0: []string{"169.254.1.1/16", "192.0.2.100/32"}, want: "192.0.2.100"},
		{name: "a /32 that is the only address", eth0: []string{"192.0.2.5/32"}, want: "192.0.2.5"},
		{name: "a /32 in use is kept when a network is added", eth0: []string{"192.0.2.5/32", "10.9.0.1/24"},
			options: underlay.Options{Last: using("192.0.2.5"), Home: addrs("192.0.2.5")}, want: "192.0.2.5"},
		{name: "the own address was away, and a /32 is used", eth0: []string{"192.0.2.100/32"},
			options: underlay.Options{Last: using("192.0.2.5"), Home: addrs("192.0.2.5")}, want: "192.0.2.100"},
		{name: "the own address is back", eth0: []string{"192.0.2.100/32", "192.0.2.5/24"},
			options: underlay.Options{Last: using("192.0.2.100"), Home: addrs("192.0.2.5")}, want: "192.0.2.5"},
		{name: "the own address is back as a secondary one", eth0: []string{"192.0.2.100/24", "192.0.2.5/24"},
			options: underlay.Options{Last: using("192.0.2.100"), Home: addrs("192.0.2.5")}, want: "192.0.2.5"},
		{name: "another address in use is kept while the own one is away", eth0: []string{"10.9.0.1/24", "192.0.2.6/24"},
			options: underlay.Options{Last: using("192.0.2.6"), Home: addrs("192.0.2.5")}, want: "192.0.2.6"},
		{name: "a pattern that both match", eth0: []string{"192.0.2.100/24", "192.0.2.5/24"},
			options: underlay.Options{Regexes: patterns("^192"), Last: using("192.0.2.5"), Home: addrs("192.0.2.5")},
			want:    "192.0.2.5"},
		{name: "a /32 that the kernel takes towards others", eth0: []string{"192.0.2.100/32", "192.0.2.5/24"},
			src:     "192.0.2.100",
			options: underlay.Options{CanReach: reach}, want: "192.0.2.5"},
		{name: "a promoted address that the kernel takes towards others", eth0: []string{"192.0.2.100/24", "192.0.2.5/24"},
			src:     "192.0.2.100",
			options: underlay.Options{CanReach: reach, Last: using("192.0.2.100"), Home: addrs("192.0.2.5")}, want: "192.0.2.5"},
		{name: "the route's own source address at the first start", eth0: []string{"192.0.2.5/24", "10.9.0.1/24"},
			src:     "10.9.0.1",
			options: underlay.Options{CanReach: reach, Home: addrs("192.0.2.5")}, want: "10.9.0.1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := site()
			h.links[1] = link("eth0", tt.eth0...)
			if tt.src != "" {
				h.routes[reach.String()] = ip.Hop{Link: "eth0", Src: netip.MustParseAddr(tt.src)}
			}
			u, err := underlay.Choose(h, tt.options, only4)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(addrs(tt.want), u.PublicAddrs, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
				t.Errorf("public addresses (-want +got):\n%s", diff)
			}
		})
	}
}

func TestTheAddressesToReturnTo(t *testing.T) {
	eth0 := link("eth0", "192.0.2.5/24", "192.0.2.100/32", "2001:db8::5/64", "fe80::5/64")
	tests := []struct {
		name             string
		home, used, want []netip.Addr
	}{
		{"the first start", nil, addrs("192.0.2.5", "2001:db8::5"), addrs("192.0.2.5", "2001:db8::5")},
		{"the first start with a /32 only", nil, addrs("192.0.2.100"), addrs("192.0.2.100")},
		{"the host has moved", addrs("198.51.100.1"), addrs("192.0.2.5"), addrs("192.0.2.5")},
		{"a /32 came before the own address", addrs("192.0.2.5"), addrs("192.0.2.100"), addrs("192.0.2.5")},
		{"a link-local address came before the own one", addrs("192.0.2.5", "2001:db8::5"), addrs("192.0.2.5", "fe80::5"),
			addrs("192.0.2.5", "2001:db8::5")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := underlay.HomeAfter(tt.home, ip.Underlay{Link: "eth0", Addrs: tt.used}, []ip.Interface{eth0})
			if diff := cmp.Diff(tt.want, got, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
				t.Errorf("addresses (-want +got):\n%s", diff)
			}
		})
	}
}
