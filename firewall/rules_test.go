package firewall_test

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"flanneld/firewall"
)

var (
	net4, net6 = netip.MustParsePrefix("10.5.0.0/16"), netip.MustParsePrefix("fd00:5::/48")
	own4, own6 = netip.MustParsePrefix("10.5.34.0/24"), netip.MustParsePrefix("fd00:5:0:22::/64")
	peer4      = []netip.Addr{netip.MustParseAddr("192.0.2.3"), netip.MustParseAddr("192.0.2.2"),
		netip.MustParseAddr("192.0.2.3")}
	peer6 = []netip.Addr{netip.MustParseAddr("2001:db8::2")}
)

func ingress(peers firewall.Addrs, tunnels ...firewall.Tunnel) firewall.Ingress {
	return firewall.Ingress{Tunnels: tunnels, Peers: peers}
}

// cases are rules that stand for all there are.
var cases = map[string]firewall.Rules{
	"nothing": {},
	"only forwarding needs no table": {
		Networks: []netip.Prefix{net4}, Subnets: []netip.Prefix{own4}, Forward: true,
	},
	"masquerade": {
		Networks: []netip.Prefix{net4}, Subnets: []netip.Prefix{own4}, Masquerade: true, FullyRandom: true,
	},
	"masquerade of several networks, ports kept": {
		Networks:   []netip.Prefix{net4, netip.MustParsePrefix("10.5.128.0/17"), netip.MustParsePrefix("10.7.0.0/16"), net6},
		Masquerade: true,
	},
	"a network up to the end of all addresses": {
		Networks: []netip.Prefix{netip.MustParsePrefix("240.0.0.0/4")}, Masquerade: true,
	},
	"strict ingress of a tunnel in user space": {
		Networks: []netip.Prefix{net4}, Ingress: ingress(firewall.AddrsOf(peer4...), firewall.Tunnel{Port: 8285}),
	},
	"strict ingress with no peer yet": {
		Networks: []netip.Prefix{net4}, Ingress: ingress(firewall.Addrs{}, firewall.Tunnel{Port: 8472, VNI: 1}),
	},
	"strict ingress of two tunnels on one port": {
		Ingress: ingress(firewall.AddrsOf(peer4[0]), firewall.Tunnel{Port: 8472, VNI: 2},
			firewall.Tunnel{Port: 8472, VNI: 1}),
	},
	"strict ingress of two tunnels on two ports": {
		Ingress: ingress(firewall.AddrsOf(peer4[0]), firewall.Tunnel{Port: 8472, VNI: 2},
			firewall.Tunnel{Port: 4789, VNI: 1}),
	},
	"everything": {
		Networks: []netip.Prefix{net6, net4}, Subnets: []netip.Prefix{own4, own6}, Masquerade: true, FullyRandom: true,
		Forward: true,
		Ingress: ingress(firewall.AddrsOf(append(peer4, peer6...)...), firewall.Tunnel{Port: 8472, VNI: 0xabcdef}),
	},
}

var golden = map[string]string{
	"nothing":                        "",
	"only forwarding needs no table": "",
	"masquerade": `table inet flannel {
	set networks4 {
		type ipv4_addr
		flags interval
		elements = { 10.5.0.0/16 }
	}

	set subnets4 {
		type ipv4_addr
		flags interval
		elements = { 10.5.34.0/24 }
	}

	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		meta mark & 0x00004000 == 0x00004000 return
		ip saddr @networks4 ip daddr @networks4 return
		ip daddr @subnets4 return
		ip daddr @networks4 masquerade fully-random
		ip daddr 224.0.0.0/4 return
		ip saddr @networks4 masquerade fully-random
	}
}
`,
	"strict ingress of a tunnel in user space": `table inet flannel {
	set nonpeers4 {
		type ipv4_addr
		size 1024
		flags dynamic,timeout
		timeout 10m
	}

	set nonpeers6 {
		type ipv6_addr
		size 1024
		flags dynamic,timeout
		timeout 10m
	}

	set peers4 {
		type ipv4_addr
		elements = { 192.0.2.2, 192.0.2.3 }
	}

	set peers6 {
		type ipv6_addr
	}

	chain input {
		type filter hook input priority filter; policy accept;
		udp dport 8285 jump tunnel
	}

	chain tunnel {
		ip saddr @peers4 accept
		ip6 saddr @peers6 accept
		update @nonpeers4 { ip saddr counter }
		update @nonpeers6 { ip6 saddr counter }
		counter drop
	}
}
`,
}

func TestRulesAreRenderedAsText(t *testing.T) {
	for name, want := range golden {
		if diff := cmp.Diff(want, cases[name].String()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestTheOrderOfMembersChangesNothing(t *testing.T) {
	r := cases["everything"]
	turned := r
	turned.Networks = []netip.Prefix{net4, net6, net4}
	turned.Subnets = []netip.Prefix{own6, own4}
	turned.Ingress.Peers = firewall.AddrsOf(append(append([]netip.Addr{}, peer6...), peer4...)...)
	if diff := cmp.Diff(r.String(), turned.String()); diff != "" {
		t.Errorf("(-one way +the other):\n%s", diff)
	}
}
