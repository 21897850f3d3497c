package skip_test

import (
	"bytes"
	"log/slog"
	"maps"
	"net/netip"
	"strings"
	"testing"

	"flanneld/backend/skip"
	"flanneld/ip"
	"flanneld/subnet"
)

func lease(prefix, public string) subnet.Lease {
	return subnet.Lease{Subnet: netip.MustParsePrefix(prefix), Attrs: subnet.Attrs{PublicIP: netip.MustParseAddr(public)}}
}

func TestWhoIsLeftOut(t *testing.T) {
	networks := []netip.Prefix{netip.MustParsePrefix("10.5.0.0/16"), netip.MustParsePrefix("fd00:5::/48")}
	self := []subnet.Lease{lease("10.5.1.0/24", "192.0.2.1")}
	for _, tt := range []struct {
		name, link, address string
		peer                subnet.Lease
		want                string // in the reason; empty: not left out
	}{
		{"the underlay in the subnet of a peer", "eth0", "10.5.2.9/24", lease("10.5.2.0/24", "192.0.2.2"),
			"overlaps 10.5.2.0/24, which eth0 of this host"},
		{"a part of the subnet", "eth1", "10.5.2.129/25", lease("10.5.2.0/24", "192.0.2.2"), "overlaps 10.5.2.128/25"},
		{"the subnet is a part", "br0", "10.5.2.1/20", lease("10.5.9.0/24", "192.0.2.2"), "overlaps 10.5.0.0/20"},
		{"another subnet", "eth1", "10.5.3.1/24", lease("10.5.2.0/24", "192.0.2.2"), ""},
		{"pods on a bridge that is wider than their subnet", "docker0", "10.5.1.1/16", lease("10.5.2.0/24", "192.0.2.2"), ""},
		{"the underlay is no bridge of pods", "eth0", "10.5.1.1/16", lease("10.5.2.0/24", "192.0.2.2"),
			"overlaps 10.5.0.0/16"},
		{"the network of pods is cut out of that of hosts", "eth0", "10.1.2.3/8", lease("10.5.2.0/24", "10.1.2.4"), ""},
		{"and an address of this host is in a subnet", "eth0", "10.5.2.3/8", lease("10.5.2.0/24", "10.1.2.4"),
			"overlaps 10.5.2.3/32"},
		{"IPv6", "eth0", "fd00:5:0:2::1/64", lease("fd00:5:0:2::/64", "2001:db8::2"), "overlaps fd00:5:0:2::/64"},
		{"the store", "", "10.5.2.7/32", lease("10.5.2.0/24", "192.0.2.2"), "the store's address 10.5.2.7"},
		{"the address of a host", "eth1", "192.0.2.1/24", lease("10.5.2.0/24", "10.5.2.2"),
			"10.5.2.2, the public address of a host"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			links := []ip.Interface{{Name: tt.link, Addrs: []netip.Prefix{netip.MustParsePrefix(tt.address)}}}
			log := &bytes.Buffer{}
			h := ip.Host{
				Log: slog.New(slog.NewTextHandler(log, nil)), Underlay: func() ip.Underlay { return ip.Underlay{Link: "eth0"} },
				Connected: func() []ip.Connected { return ip.ConnectedIn(networks, links) },
			}
			f, peers := skip.New(h, networks), subnet.PeersOf(tt.peer)
			pass := func() subnet.Peers {
				routed := f.Begin(self, peers)
				f.End(nil, nil)
				return routed
			}
			if n := pass().Len(); (n == 0) != (tt.want != "") {
				t.Errorf("routes may lead to %d peers", n)
			}
			if got := f.Skipped()[tt.peer.Subnet]; !strings.Contains(got, tt.want) || (got == "") != (tt.want == "") {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			first := pass()
			for range subnet.PeerChanges(first, pass()) {
				t.Errorf("a second pass finds a change")
			}
			if n := strings.Count(log.String(), "peer skipped"); (n == 1) != (tt.want != "") {
				t.Errorf("said %d times:\n%s", n, log)
			}
			links, peers = nil, subnet.Peers{}
			pass()
			if len(f.Skipped()) > 0 {
				t.Errorf("left out when nothing is in the way: %v", f.Skipped())
			}
		})
	}
}

func TestRoutesOfOthersAndTheReasonsOfABackendAreNamed(t *testing.T) {
	h := ip.Host{Log: slog.New(slog.DiscardHandler)}
	a, b := lease("10.5.2.0/24", "192.0.2.2"), lease("10.5.3.0/24", "192.0.2.3")
	network := netip.MustParsePrefix("10.5.0.0/16")
	f := skip.New(h, []netip.Prefix{network})
	f.Begin(nil, subnet.PeersOf(a, b))
	in := func(p netip.Prefix) ip.Conflict {
		return ip.Conflict{Want: ip.Route{Dst: p}, Found: ip.Route{Dst: p, Link: "tun0", Protocol: 3}}
	}
	f.End(map[netip.Prefix]string{b.Subnet: "doubled"}, []ip.Conflict{in(a.Subnet), in(network)})
	want := map[netip.Prefix]string{a.Subnet: (&ip.Conflict{Found: in(a.Subnet).Found}).Error(), b.Subnet: "doubled"}
	if got := f.Skipped(); !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if p := f.Problems(); len(p) != 1 || !strings.Contains(p[0], "10.5.0.0/16") {
		t.Errorf("problems %q", p)
	}
}
