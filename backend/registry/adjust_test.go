package registry

import (
	"log/slog"
	"net/netip"
	"path/filepath"
	"testing"

	"flanneld/backend"
	"flanneld/backend/check"
	"flanneld/backend/vxlan"
	wgoptions "flanneld/backend/wireguard/options"
	"flanneld/devicelock"
	"flanneld/ip"
	"flanneld/ip/iptest"
	"flanneld/subnet"
)

// TestOptionsChangeWhileTheBackendRuns also changes them while there is a second backend.
func TestOptionsChangeWhileTheBackendRuns(t *testing.T) {
	own := netip.MustParsePrefix("10.5.1.0/24")
	for _, tt := range []struct {
		kind, device, options string
		before, after         int // MTU of the device
	}{
		{"vxlan", "flannel.1", `"MTU":1400`, 1450, 1350},
		{"udp", "flannel0", `"MTU":1400`, 1472, 1372},
		{"wireguard", "flannel-wg", `"MTU":1400,"PersistentKeepaliveInterval":25`, 1420, 1320},
	} {
		t.Run(tt.kind, func(t *testing.T) {
			text := func(rest string) subnet.Config {
				c, err := check.Network([]byte(`{"Network":"10.5.0.0/16","Backend":{"Type":"` + tt.kind + `"` + rest + `}`))
				if err != nil {
					t.Fatal(err)
				}
				return c
			}
			s := severalOf(t, text("}"))
			device := func() int {
				t.Helper()
				plan, err := s.Planners()[0].Plan([]subnet.Lease{{Subnet: own}}, subnet.Peers{})
				if err != nil {
					t.Fatal(err)
				}
				l, _ := plan.Links.Find(ip.Link{Name: tt.device})
				return l.MTU
			}
			if got := device(); got != tt.before || s.MTU() != tt.before {
				t.Errorf("before: device %d, pods %d, want %d", got, s.MTU(), tt.before)
			}
			mac := s.MACs()[tt.device]
			now := text("}")
			for _, next := range []string{"," + tt.options + "}", "," + tt.options + `},"Next":{"Type":"host-gw"}`} {
				then := text(next)
				if !check.Adjusts(now, then) && !then.FollowedFrom(now) {
					t.Errorf("%s: it is not followed to", next)
				}
				if err := s.Follow(t.Context(), then); err != nil {
					t.Fatal(err)
				}
				if tt.kind == vxlan.Type { // of the others it is the same planner, and its datapath is none for this test
					if err := s.Set([]subnet.Lease{{Subnet: own}}, subnet.Peers{}); err != nil {
						t.Fatal(err)
					}
				}
				if got := device(); got != tt.after || s.MTU() != tt.after || s.MACs()[tt.device] != mac {
					t.Errorf("%s: device %d, pods %d, want %d; MAC %s, before %s", next, got, s.MTU(), tt.after,
						s.MACs()[tt.device], mac)
				}
				if len(s.made) != len(then.Settings()) {
					t.Errorf("%s: %d backends are made", next, len(s.made))
				}
				now = then
			}
		})
	}
}

// severalOf returns the backends of a network on a kernel in memory.
func severalOf(t *testing.T, c subnet.Config) *Several {
	t.Helper()
	k, a := iptest.NewKernel(iptest.Faults{}), netip.MustParseAddr("192.0.2.1")
	k.Underlay("eth0", "192.0.2.1/24")
	dir := t.TempDir()
	e := Env{
		Config: c, Files: noFiles{}, Keys: wgoptions.KeyFiles{filepath.Join(dir, "key")},
		Host: ip.Host{
			Kernel: k, Log: slog.New(slog.DiscardHandler), Identity: "me",
			Underlay: func() ip.Underlay {
				return ip.Underlay{Link: "eth0", MTU: underlayMTU, Addrs: []netip.Addr{a}, PublicAddrs: []netip.Addr{a}}
			},
		},
	}
	main, err := New(t.Context(), e)
	if err != nil {
		t.Fatal(err)
	}
	return &Several{
		Applier: backend.NewApplier(main, e.Host, c.Networks()), config: c, create: New, folder: dir,
		network: Network{Env: e, Holder: "me", Drop: func(...string) {}},
		made:    []made{{c.Main(), main, devicelock.New(dir, "me"), nil}},
	}
}
