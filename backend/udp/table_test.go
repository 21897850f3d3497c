package udp_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"flanneld/backend/udp"
	"flanneld/subnet"
)

// naive is a table as one would write it first.
type naive struct {
	networks    []netip.Prefix
	self, peers []subnet.Lease
}

func (n naive) route(dst netip.Addr) netip.Addr {
	best := subnet.Lease{Subnet: netip.PrefixFrom(netip.Addr{}, -1)}
	for _, l := range n.peers {
		if l.Subnet.Contains(dst) && l.Subnet.Bits() > best.Subnet.Bits() {
			best = l
		}
	}
	return best.PublicIP
}

func (n naive) check(from, src, dst netip.Addr) string {
	known, ours, inside := false, false, false
	for _, l := range n.peers {
		known = known || l.PublicIP == from
	}
	for _, l := range n.self {
		ours = ours || l.Subnet.Contains(dst)
	}
	for _, p := range n.networks {
		inside = inside || p.Contains(src)
	}
	switch {
	case !known:
		return "dropped: sender is no peer"
	case !ours:
		return "dropped: destination is not ours"
	case inside && n.route(src) != from:
		return "dropped: source is not the sender's"
	}
	return ""
}

// somewhere returns a random address that is often inside the network.
func somewhere(r *rand.Rand) netip.Addr {
	var a [16]byte
	binary.BigEndian.PutUint64(a[8:], r.Uint64())
	switch r.IntN(4) {
	case 0:
		return netip.AddrFrom4([4]byte{10, 5, byte(r.IntN(64)), byte(r.IntN(256))})
	case 1:
		copy(a[:], []byte{0xfd, 0, 0, 5, 0, 0, 0, byte(r.IntN(64))})
		return netip.AddrFrom16(a)
	case 2:
		return netip.AddrFrom4([4]byte(a[8:12]))
	}
	binary.BigEndian.PutUint64(a[:], r.Uint64())
	return netip.AddrFrom16(a)
}

func TestTableAgreesWithANaiveOne(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	for range 50 {
		n := naive{networks: prefixes("10.5.0.0/16", "fd00:5::/48")}
		n.self = []subnet.Lease{lease("10.5.1.0/24", "192.0.2.250"), lease("fd00:5:0:1::/64", "2001:db8::250")}
		used := map[netip.Prefix]bool{}
		for range r.IntN(80) {
			host := r.IntN(40)
			l := lease(fmt.Sprintf("10.5.%d.0/%d", r.IntN(64), 24+r.IntN(2)), fmt.Sprintf("192.0.2.%d", host))
			if r.IntN(2) == 0 {
				l = lease(fmt.Sprintf("fd00:5:0:%x::/64", r.IntN(64)), fmt.Sprintf("2001:db8::%x", host))
			}
			if !used[l.Subnet] {
				used[l.Subnet] = true
				n.peers = append(n.peers, l)
			}
		}
		table := udp.NewTable(n.networks, n.self, n.peers)
		for range 2000 {
			src, dst := somewhere(r), somewhere(r)
			from := netip.AddrFrom4([4]byte{192, 0, 2, byte(r.IntN(42))})
			if got, want := table.Route(dst), n.route(dst); got != want {
				t.Fatalf("seed %d: route to %s: got %s, want %s", seed, dst, got, want)
			}
			if got, want := table.Check(from, src, dst), n.check(from, src, dst); got != want {
				t.Fatalf("seed %d: %s to %s from %s: got %q, want %q", seed, src, dst, from, got, want)
			}
		}
	}
}

func TestWhoSendsAndForWhom(t *testing.T) {
	translated := lease("10.5.2.0/24", "203.0.113.2")
	translated.Underlay = netip.MustParseAddr("192.0.2.2")
	table := udp.NewTable(prefixes("10.5.0.0/16"), []subnet.Lease{lease("10.5.1.0/24", "192.0.2.1")}, []subnet.Lease{translated})
	table.Local(netip.MustParseAddr("192.0.2.1"))
	for _, tt := range []struct{ name, from, src, want string }{
		{"a peer's pod", "203.0.113.2", "10.5.2.7", ""},
		{"a peer behind a translation, by its own address", "192.0.2.2", "10.5.2.7", ""},
		{"a stranger", "192.0.2.3", "10.5.2.7", "dropped: sender is no peer"},
		{"a pod of this host", "203.0.113.2", "10.5.1.7", "dropped: source is not the sender's"},
		{"this host, which only we may be", "203.0.113.2", "192.0.2.1", "dropped: source is not the sender's"},
		{"somebody outside, whom a peer routes for", "203.0.113.2", "198.51.100.1", ""},
	} {
		if got := table.Check(netip.MustParseAddr(tt.from), netip.MustParseAddr(tt.src), netip.MustParseAddr("10.5.1.9")); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}

func manyPeers(n int) []subnet.Lease {
	peers := make([]subnet.Lease, 0, 2*n)
	for i := range n {
		peers = append(peers,
			subnet.Lease{Subnet: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24), Attrs: subnet.Attrs{PublicIP: netip.AddrFrom4([4]byte{172, 16, byte(i >> 8), byte(i)})}},
			subnet.Lease{Subnet: netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, 6: byte(i >> 8), 7: byte(i)}), 64), Attrs: subnet.Attrs{PublicIP: netip.AddrFrom16([16]byte{0x20, 1, 14: byte(i >> 8), 15: byte(i)})}})
	}
	return peers
}

// BenchmarkLookup finds the peer of an address among 10,000.
func BenchmarkLookup(b *testing.B) {
	peers := manyPeers(10000)
	table := udp.NewTable(prefixes("10.0.0.0/8", "fd00::/16"), nil, peers)
	for i, name := range []string{"IPv4", "IPv6"} {
		var addrs []netip.Addr
		for j := i; j < len(peers); j += 2 {
			addrs = append(addrs, peers[j].Subnet.Addr().Next())
		}
		rand.Shuffle(len(addrs), func(i, j int) { addrs[i], addrs[j] = addrs[j], addrs[i] })
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for n := range b.N {
				if !table.Route(addrs[n%len(addrs)]).IsValid() {
					b.Fatal("no route")
				}
			}
		})
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
	table := udp.NewTable([]netip.Prefix{netip.MustParsePrefix("10.5.0.0/16")}, []subnet.Lease{lease("10.5.1.0/24", "192.0.2.1", "")}, []subnet.Lease{
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
		{"a stranger", "192.0.2.5", "10.5.2.9", "dropped: sender is no peer"},
	} {
		if got := table.Check(a(tt.from), a(tt.src), a("10.5.1.9")); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}
