package alloc_test

import (
	"log/slog"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"flanneld/backend"
	"flanneld/backend/alloc"
	"flanneld/ip"
	"flanneld/ip/iptest"
	"flanneld/subnet"
)

func TestLeftoversGoAndNothingComes(t *testing.T) {
	for _, tt := range []struct {
		name      string
		blackhole bool
		want      string
	}{
		{"nothing", false, ""},
		{"the blackhole that was asked for", true, "route blackhole 10.5.34.0/24 metric 4294967295\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			k := iptest.NewKernel(iptest.Faults{})
			k.Underlay("eth0", "192.0.2.1/24")
			before := k.State().String()
			// What the vxlan backend of the last run has left.
			k.Put(
				ip.Link{Name: "flannel.1", Type: "vxlan", MTU: 1450, Up: true, VXLAN: ip.VXLAN{VNI: 1, Underlay: "eth0"}},
				ip.Addr{Link: "flannel.1", Prefix: netip.MustParsePrefix("10.5.34.0/32")},
				ip.Route{Dst: netip.MustParsePrefix("10.5.35.0/24"), Link: "flannel.1", Onlink: true,
					Via: netip.MustParseAddr("10.5.35.0"), Protocol: ip.Protocol},
				ip.Route{Dst: netip.MustParsePrefix("10.5.36.0/24"), Link: "eth0", Via: netip.MustParseAddr("192.0.2.3"),
					Protocol: ip.Protocol},
			)
			c, err := subnet.ParseConfig([]byte(`{"Network":"10.5.0.0/16","Backend":{"Type":"alloc"}}`))
			if err != nil {
				t.Fatal(err)
			}
			addrs := []netip.Addr{netip.MustParseAddr("192.0.2.1")}
			h := ip.Host{
				Kernel: k, Log: slog.New(slog.DiscardHandler), Blackhole: tt.blackhole,
				Underlay:  func() ip.Underlay { return ip.Underlay{Link: "eth0", MTU: 1500, Addrs: addrs, PublicAddrs: addrs} },
				Leftovers: ip.Scope{Links: []string{"flannel.1"}, Networks: c.Networks()},
			}
			planner, err := alloc.New(c, h)
			if err != nil {
				t.Fatal(err)
			}
			b := backend.NewApplier(planner, h, c.Networks())
			self := []subnet.Lease{{Subnet: netip.MustParsePrefix("10.5.34.0/24"), Attrs: b.Attrs(netip.Prefix{})}}
			peers := []subnet.Lease{{Subnet: netip.MustParsePrefix("10.5.35.0/24"), Attrs: subnet.Attrs{BackendType: "alloc"}}}
			for range 2 {
				if err := b.Set(self, subnet.PeersOf(peers...)); err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(k.State().String(), before+tt.want); diff != "" {
					t.Errorf("kernel (-got +want):\n%s", diff)
				}
			}
			if got := b.Scope(); len(got.Links) != 0 || b.MTU() != 1500 {
				t.Errorf("scope %+v, MTU %d", got, b.MTU())
			}
		})
	}
}
