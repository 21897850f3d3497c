package firewall_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"flanneld/firewall"
	"flanneld/ip"
	"flanneld/subnet"
)

func underlayOf(own, public string) ip.Underlay {
	return ip.Underlay{Addrs: []netip.Addr{netip.MustParseAddr(own)},
		PublicAddrs: []netip.Addr{netip.MustParseAddr(public)}}
}

func peerOf(prefix, public, own string) subnet.Lease {
	l := subnet.Lease{Subnet: netip.MustParsePrefix(prefix), Attrs: subnet.Attrs{PublicIP: netip.MustParseAddr(public)}}
	if own != "" {
		l.Underlay = netip.MustParseAddr(own)
	}
	return l
}

func TestTheTunnelIsClosedOnlyWhereSourcesAreKnown(t *testing.T) {
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
		{"a peer behind a public address that tells nothing", plain, peerOf("10.5.9.0/24", "203.0.113.2", ""),
			"peer 203.0.113.2 has a public address, this host a private one"},
		{"both behind public addresses", behind, peerOf("10.5.9.0/24", "203.0.113.2", "192.168.0.2"), ""},
		{"this host behind one, the peer tells nothing", behind, peerOf("10.5.9.0/24", "192.168.0.2", ""),
			"this host's public address 203.0.113.1 is not its own, and peer 192.168.0.2"},
		{"public addresses all over", underlayOf("203.0.113.1", "203.0.113.1"), peerOf("10.5.9.0/24", "203.0.113.2", ""), ""},
		{"a peer of a family that this host has no underlay for", ip.Underlay{}, peerOf("10.5.9.0/24", "203.0.113.2", ""),
			""},
	} {
		_, got := new(firewall.Sources).Follow(tt.host,
			subnet.PeersOf(peerOf("10.5.8.0/24", "192.168.0.9", "192.168.0.9"), tt.peer))
		if (got == "") != (tt.want == "") || !strings.Contains(got, tt.want) {
			t.Errorf("%s: %q, want %q in it", tt.name, got, tt.want)
		}
	}
}

func TestPacketsOfAPeerMayComeFromEitherOfItsAddresses(t *testing.T) {
	synctest.Test(t, eitherAddress)
}

func eitherAddress(t *testing.T) {
	var s firewall.Sources
	host := underlayOf("192.168.0.1", "203.0.113.1")
	translated := peerOf("10.5.8.0/24", "203.0.113.2", "192.168.0.2")
	for _, tt := range []struct {
		name  string
		peers []subnet.Lease
		want  string
		open  bool
	}{
		{"one", []subnet.Lease{translated}, "[192.168.0.2 203.0.113.2]", false},
		{"one more with an address of the first",
			[]subnet.Lease{translated, peerOf("10.5.9.0/24", "192.168.0.3", "203.0.113.2")},
			"[192.168.0.2 192.168.0.3 203.0.113.2]", false},
		{"one whose address is not known", []subnet.Lease{translated, peerOf("10.5.9.0/24", "192.168.0.3", "")},
			"[192.168.0.2 192.168.0.3 203.0.113.2]", true},
		{"the first goes", []subnet.Lease{peerOf("10.5.9.0/24", "192.168.0.3", "192.168.0.3")}, "[192.168.0.3]", false},
		{"none", nil, "[]", false},
	} {
		time.Sleep(time.Minute) // former addresses are forgotten
		admitted, open := s.Follow(host, subnet.PeersOf(tt.peers...))
		if got := fmt.Sprint(slices.Collect(admitted.All())); got != tt.want || (open != "") != tt.open {
			t.Errorf("%s: %s, open %q, want %s", tt.name, got, open, tt.want)
		}
	}
	if _, open := s.Follow(underlayOf("192.168.0.1", "192.168.0.1"),
		subnet.PeersOf(peerOf("10.5.9.0/24", "203.0.113.3", ""))); open == "" {
		t.Error("another address of the host changes nothing")
	}
}

// The record of a peer changes before its kernel does.
func TestPacketsOfAPeerMayComeFromItsFormerAddressForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s firewall.Sources
		host := underlayOf("192.168.0.1", "192.168.0.1")
		want := func(when, want string, peers ...subnet.Lease) {
			t.Helper()
			admitted, _ := s.Follow(host, subnet.PeersOf(peers...))
			if got := fmt.Sprint(slices.Collect(admitted.All())); got != want {
				t.Errorf("%s: %s, want %s", when, got, want)
			}
		}
		before := peerOf("10.5.8.0/24", "192.168.0.3", "192.168.0.2")
		after := peerOf("10.5.8.0/24", "192.168.0.3", "192.168.0.3")
		want("before", "[192.168.0.2 192.168.0.3]", before)
		want("just changed", "[192.168.0.2 192.168.0.3]", after)
		host = underlayOf("192.168.0.9", "192.168.0.9")
		time.Sleep(9 * time.Second)
		want("when this host's own address has changed, too", "[192.168.0.2 192.168.0.3]", after)
		time.Sleep(2 * time.Second)
		want("after ten seconds", "[192.168.0.3]", after)
		want("the peer has left", "[]")
	})
}
