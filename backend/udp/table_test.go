package udp_test

import (
	"net/netip"
	"testing"

	"flanneld/backend/udp"
	"flanneld/subnet"
)

func TestWhoSendsAndForWhom(t *testing.T) {
	translated := lease("10.5.2.0/24", "203.0.113.2")
	translated.Underlay = netip.MustParseAddr("192.0.2.2")
	table := udp.NewTables(prefixes("10.5.0.0/16")).Next(
		[]subnet.Lease{lease("10.5.1.0/24", "192.0.2.1")}, []netip.Addr{netip.MustParseAddr("192.0.2.1")},
		subnet.PeersOf(translated))
	for _, tt := range []struct{ name, from, src, want string }{
		{"a peer's pod", "203.0.113.2", "10.5.2.7", ""},
		{"a peer behind a translation, by its own address", "192.0.2.2", "10.5.2.7", ""},
		{"an outsider", "192.0.2.3", "10.5.2.7", "dropped: sender is no peer"},
		{"a pod of this host", "203.0.113.2", "10.5.1.7", "dropped: source is not the sender's"},
		{"this host, which only we may be", "203.0.113.2", "192.0.2.1", "dropped: source is not the sender's"},
		{"somebody outside, whom a peer routes for", "203.0.113.2", "198.51.100.1", ""},
	} {
		if got := table.Check(netip.MustParseAddr(tt.from), netip.MustParseAddr(tt.src),
			netip.MustParseAddr("10.5.1.9")); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestAPeerMaySendFromItsOwnAddressBehindAPublicOne(t *testing.T) {
	lease := func(prefix, public, own string) subnet.Lease {
		l := subnet.Lease{Subnet: netip.MustParsePrefix(prefix), Attrs: subnet.Attrs{PublicIP: netip.MustParseAddr(public)}}
		if own != "" {
			l.Underlay = netip.MustParseAddr(own)
		}
		return l
	}
	a := netip.MustParseAddr
	table := udp.NewTable([]netip.Prefix{netip.MustParsePrefix("10.5.0.0/16")},
		[]subnet.Lease{lease("10.5.1.0/24", "192.0.2.1", "")}, []subnet.Lease{
			lease("10.5.2.0/24", "203.0.113.2", "192.0.2.2"),
			lease("10.5.3.0/24", "192.0.2.3", ""),
			lease("10.5.4.0/24", "203.0.113.4", "192.0.2.3"), // claims what is another's
		})
	for _, tt := range []struct{ name, from, src, want string }{
		{"from the public address", "203.0.113.2", "10.5.2.9", ""},
		{"from its own", "192.0.2.2", "10.5.2.9", ""},
		{"with a source that is another's", "192.0.2.2", "10.5.3.9", "dropped: source is not the sender's"},
		{"the owner of a public address", "192.0.2.3", "10.5.3.9", ""},
		{"one who claims it", "192.0.2.3", "10.5.4.9", "dropped: source is not the sender's"},
		{"an outsider", "192.0.2.5", "10.5.2.9", "dropped: sender is no peer"},
	} {
		if got := table.Check(a(tt.from), a(tt.src), a("10.5.1.9")); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}
