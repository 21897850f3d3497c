package ip_test

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"flanneld/ip"
	"flanneld/ip/iptest"
)

// vxlan6 is a device on an IPv6 underlay with one peer.
func vxlan6(local, peer string) ip.State {
	mac := ip.MAC{0xc6, 0, 0, 0, 0, 1}
	first := netip.MustParseAddr("fd00:5:0:22::")
	return ip.State{
		Links: []ip.Link{{
			Name: "flannel-v6.1", Type: "vxlan", MAC: ip.MAC{0xc6, 0, 0, 0, 0, 9}, MTU: 1430, Up: true,
			VXLAN: ip.VXLAN{VNI: 1, Port: 8472, Local: netip.MustParseAddr(local), Underlay: "eth0"},
		}},
		Addrs:  []ip.Addr{{Link: "flannel-v6.1", Prefix: netip.MustParsePrefix("fd00:5:0:1::/128")}},
		FDB:    []ip.FDB{{Link: "flannel-v6.1", MAC: mac, Dst: netip.MustParseAddr(peer)}},
		Neighs: []ip.Neigh{{Link: "flannel-v6.1", IP: first, MAC: mac}},
		Routes: []ip.Route{{Dst: netip.PrefixFrom(first, 64), Via: first, Link: "flannel-v6.1", Onlink: true,
			Protocol: ip.Protocol}},
	}
}

var scope6 = ip.Scope{Links: []string{"flannel-v6.1"}, Networks: prefixes("fd00:5::/48")}

func wantState6(t *testing.T, k *ip.LinuxKernel, want ip.State) {
	t.Helper()
	got, err := k.Dump(scope6)
	if err != nil {
		t.Fatal(err)
	}
	if ops := ip.Diff(got.Snapshot(), want.Snapshot()); len(ops) > 0 {
		t.Errorf("differs by %v, state is\n%s", ops, got)
	}
}

func prefixes(texts ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range texts {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func TestATunnelOnAnIPv6Underlay(t *testing.T) {
	for name, ends := range map[string][2]string{
		"global addresses":     {"fd00:18::1", "fd00:18::2"},
		"link-local addresses": {"fe80::1", "fe80::2%eth0"},
	} {
		t.Run(name, func(t *testing.T) {
			iptest.Namespace(t)
			iptest.Underlay(t, "eth0", "fd00:18::1/64")
			// A host that turns IPv6 off on whatever is new.
			if err := os.WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", []byte("1"), 0); err != nil {
				t.Fatal(err)
			}
			k := kernel(t)
			want := vxlan6(ends[0], ends[1])
			apply(t, k, want)
			wantState6(t, k, want)
			for _, l := range []string{"fe80::3", "fd00:18::3"} { // the local address moves while the device stands
				want.Links[0].VXLAN.Local = netip.MustParseAddr(l)
				apply(t, k, want)
				wantState6(t, k, want)
			}
			if err := k.Apply(ip.Diff(want.Snapshot(), ip.Snapshot{})); err != nil {
				t.Fatal(err)
			}
			wantState6(t, k, ip.State{})
		})
	}
}

func TestAnIPv6RouteReplacesWhatHidesItsNextHop(t *testing.T) {
	for name, other := range map[string]string{
		"a route elsewhere":   "ip -6 route add fd00:5:0:22::/64 via fd00:18::99 dev eth0 proto 70",
		"a route on the link": "ip -6 route add fd00:5:0:22::/64 dev eth0 proto 70",
		"a route to nowhere":  "ip -6 route add blackhole fd00:5:0:22::/64 proto 70",
		"a route by two hosts": "ip -6 route add fd00:5:0:22::/64 proto 70 nexthop via fd00:18::99 dev eth0 nexthop via " +
			"fd00:18::98 dev eth0",
	} {
		t.Run(name, func(t *testing.T) {
			iptest.Namespace(t)
			iptest.Underlay(t, "eth0", "fd00:18::1/64")
			iptest.Run(t, other)
			iptest.Run(t, "ip -6 route add fd00:5:0:99::/64 via fd00:18::99 dev eth0")
			k := kernel(t)
			want := vxlan6("fd00:18::1", "fd00:18::2")
			have, err := k.Dump(scope6)
			if err != nil {
				t.Fatal(err)
			}
			if err := k.Apply(ip.Diff(have.Snapshot(), want.Snapshot())); err != nil {
				t.Error(err)
			}
			wantState6(t, k, want)
			if got := iptest.Run(t, "ip -6 route show"); strings.Count(got, "fd00:5:0:22::/64") != 1 ||
				strings.Contains("\n"+got, "\nfd00:5:0:22:: ") || !strings.Contains(got, "fd00:5:0:99::/64 via fd00:18::99") {
				t.Errorf("routes are\n%s", got)
			}
		})
	}
}

func TestAnIPv6RouteStandsBesideOthersThatHideItsNextHop(t *testing.T) {
	for name, other := range map[string]string{
		"one of another metric":   "fd00:5:0:22::/64 via fd00:18::99 dev eth0 metric 7777",
		"one to a larger network": "fd00:5::/48 via fd00:18::99 dev eth0 metric 1024",
	} {
		t.Run(name, func(t *testing.T) {
			iptest.Namespace(t)
			iptest.Underlay(t, "eth0", "fd00:18::1/64")
			iptest.Run(t, "ip -6 route add "+other)
			k := kernel(t)
			want := vxlan6("fd00:18::1", "fd00:18::2")
			apply(t, k, want)
			wantState6(t, k, want)
			if got := iptest.Run(t, "ip -6 route show"); !strings.Contains(got, other) ||
				strings.Contains("\n"+got, "\nfd00:5:0:22:: ") {
				t.Errorf("routes are\n%s", got)
			}
		})
	}
}

func TestInterfacesTellWhichIPv6AddressesServe(t *testing.T) {
	iptest.Namespace(t)
	iptest.Run(t, `
		ip link add eth0 type veth peer name port0
		ip link set port0 up
		ip link set eth0 up
		ip addr add 2001:db8::5/64 dev eth0 nodad
		ip addr add 2001:db8::9/64 dev eth0 nodad preferred_lft 0
		ip link add tentative type veth peer name nobody
		ip addr add 2001:db8:1::5/64 dev tentative`) // down: the check for duplicates has not begun
	links, err := kernel(t).Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		got := fmt.Sprint(slices.DeleteFunc(l.Addrs, func(p netip.Prefix) bool { return p.Addr().IsLinkLocalUnicast() }),
			l.Deprecated)
		want := map[string]string{"eth0": "[2001:db8::5/64] [2001:db8::9/64]", "tentative": "[] []"}[l.Name]
		if want != "" && got != want {
			t.Errorf("%s has %s, want %s", l.Name, got, want)
		}
	}
}

func TestForwarding(t *testing.T) {
	iptest.Namespace(t)
	iptest.Run(t, "ip link add eth0 type veth peer name port0")
	set := func(name, value string) {
		t.Helper()
		if err := os.WriteFile("/proc/sys/net/"+name, []byte(value), 0); err != nil {
			t.Fatal(err)
		}
	}
	get := func(name string) string {
		t.Helper()
		text, err := os.ReadFile("/proc/sys/net/" + name)
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(text))
	}
	both := prefixes("10.5.0.0/16", "fd00:5::/48")
	look := func(networks []netip.Prefix) ip.Forwarding {
		t.Helper()
		f, err := ip.ReadForwarding("eth0", networks)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	set("ipv4/ip_forward", "0")
	set("ipv6/conf/all/forwarding", "0")
	set("ipv6/conf/eth0/accept_ra", "1")
	if f := look(both); !f.TakesRA ||
		!slices.Equal(f.Off, []string{"net.ipv4.ip_forward = 1", "net.ipv6.conf.all.forwarding = 1"}) {
		t.Errorf("at first: %+v", f)
	}
	if f := look(both[:1]); f.TakesRA || len(f.Off) != 1 {
		t.Errorf("an IPv4 network: %+v", f)
	}
	if err := ip.KeepRA("eth0"); err != nil || get("ipv6/conf/eth0/accept_ra") != "2" {
		t.Errorf("%v, accept_ra is %s", err, get("ipv6/conf/eth0/accept_ra"))
	}
	if err := ip.TurnOnForwarding(both); err != nil || get("ipv4/ip_forward") != "1" ||
		get("ipv6/conf/all/forwarding") != "1" {
		t.Errorf("forwarding not turned on: %v", err)
	}
	if f := look(both); f.TakesRA || len(f.Off) > 0 {
		t.Errorf("at last: %+v", f)
	}
	links := []string{"eth0", "port0", "gone0"}
	if off := ip.NotForwarding(links); len(off) > 0 {
		t.Errorf("with forwarding on: %v", off)
	}
	set("ipv4/conf/port0/forwarding", "0")
	if off := ip.NotForwarding(links); !slices.Equal(off, []string{"port0"}) {
		t.Errorf("with forwarding off on port0: %v", off)
	}
	if err := ip.TurnOnLinkForwarding("port0"); err != nil || get("ipv4/conf/port0/forwarding") != "1" {
		t.Errorf("forwarding not turned on on port0: %v", err)
	}
	// A router that does not obey advertisements keeps not obeying them.
	set("ipv6/conf/eth0/accept_ra", "1")
	if f := look(both); f.TakesRA {
		t.Errorf("with forwarding on: %+v", f)
	}
}
