package main_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	main "flanneld/cmd/flanneld"
	"flanneld/ip"
	"flanneld/subnet"
)

func underlayOf(own, public string) ip.Underlay {
	return ip.Underlay{Addrs: []netip.Addr{netip.MustParseAddr(own)}, PublicAddrs: []netip.Addr{netip.MustParseAddr(public)}}
}

func peerOf(prefix, public, own string) subnet.Lease {
	l := subnet.Lease{Subnet: netip.MustParsePrefix(prefix), Attrs: subnet.Attrs{PublicIP: netip.MustParseAddr(public)}}
	if own != "" {
		l.Underlay = netip.MustParseAddr(own)
	}
	return l
}

func TestTheTunnelIsClosedOnlyWhereSendersAreKnown(t *testing.T) {
	plain := underlayOf("192.168.0.1", "192.168.0.1")
	behind := underlayOf("192.168.0.1", "203.0.113.1")
	for _, tt := range []struct {
		name string
		host ip.Underlay
		peer subnet.Lease
		want string // part of the reason, empty: closed
	}{
		{"all on one network", plain, peerOf("10.5.9.0/24", "192.168.0.2", ""), ""},
		{"private networks that are routed", plain, peerOf("10.5.9.0/24", "10.0.0.2", ""), ""},
		{"a peer behind a public address that tells its own", plain, peerOf("10.5.9.0/24", "203.0.113.2", "192.168.0.2"), ""},
		{"a peer behind a public address that tells nothing", plain, peerOf("10.5.9.0/24", "203.0.113.2", ""), "peer 203.0.113.2 has a public address, this host a private one"},
		{"both behind public addresses", behind, peerOf("10.5.9.0/24", "203.0.113.2", "192.168.0.2"), ""},
		{"this host behind one, the peer tells nothing", behind, peerOf("10.5.9.0/24", "192.168.0.2", ""), "this host's public address 203.0.113.1 is not its own, and peer 192.168.0.2"},
		{"public addresses all over", underlayOf("203.0.113.1", "203.0.113.1"), peerOf("10.5.9.0/24", "203.0.113.2", ""), ""},
		{"a peer of a family that this host has no underlay for", ip.Underlay{}, peerOf("10.5.9.0/24", "203.0.113.2", ""), ""},
	} {
		got := main.Translated(tt.host, subnet.PeersOf(peerOf("10.5.8.0/24", "192.168.0.9", "192.168.0.9"), tt.peer))
		if (got == "") != (tt.want == "") || !strings.Contains(got, tt.want) {
			t.Errorf("%s: %q, want %q in it", tt.name, got, tt.want)
		}
	}
}

func TestPacketsOfAPeerMayComeFromEitherOfItsAddresses(t *testing.T) {
	got := main.Senders(subnet.PeersOf(peerOf("10.5.8.0/24", "203.0.113.2", "192.168.0.2"), peerOf("10.5.9.0/24", "192.168.0.3", "")))
	want := []netip.Addr{netip.MustParseAddr("203.0.113.2"), netip.MustParseAddr("192.168.0.2"), netip.MustParseAddr("192.168.0.3")}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
