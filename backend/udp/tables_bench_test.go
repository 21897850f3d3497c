package udp_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"flanneld/backend/udp"
	"flanneld/subnet"
)

var peerCounts = []int{10, 1000, 10000}

// BenchmarkLookup finds the peer of an inner address, and of an underlay address, among as many.
func BenchmarkLookup(b *testing.B) {
	for _, n := range peerCounts {
		peers := manyPeers(n)
		table := udp.NewTable(prefixes("10.0.0.0/8", "fd00::/16"), nil, peers)
		for i, family := range []string{"IPv4", "IPv6"} {
			var inner, nobody, underlay []netip.Addr
			for j := i; j < len(peers); j += 2 {
				inner, underlay = append(inner, peers[j].Subnet.Addr().Next()), append(underlay, peers[j].PublicIP)
				nobody = append(nobody, elsewhere(peers[j].Subnet.Addr()))
			}
			find := func(what string, there bool, addrs []netip.Addr, find func(netip.Addr) netip.Addr) {
				rand.Shuffle(len(addrs), func(i, j int) { addrs[i], addrs[j] = addrs[j], addrs[i] })
				b.Run(fmt.Sprintf("%s %s/%d", family, what, n), func(b *testing.B) {
					b.ReportAllocs()
					at := 0
					for range b.N {
						if find(addrs[at]).IsValid() != there {
							b.Fatal("found is", !there)
						}
						if at++; at == len(addrs) {
							at = 0
						}
					}
				})
			}
			find("route", true, inner, table.Route)
			find("no route", false, nobody, table.Route)
			find("sender", true, underlay, table.Host)
		}
	}
}

// elsewhere returns an address of the network that is in no subnet of manyPeers.
func elsewhere(a netip.Addr) netip.Addr {
	b := a.AsSlice()
	if a.Is4() {
		b[1] |= 0x80
	} else {
		b[6] |= 0x80
	}
	other, _ := netip.AddrFromSlice(b)
	return other
}

// BenchmarkChange has one peer leave or come back, of as many.
func BenchmarkChange(b *testing.B) {
	for _, n := range peerCounts {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			peers := manyPeers(n)[:n]
			tables := udp.NewTables(prefixes("10.0.0.0/8", "fd00::/16"))
			tables.Next(nil, nil, subnet.PeersOf(peers...))
			for i := 0; b.Loop(); i++ {
				l := &peers[i/2*7919%n]
				if i&1 == 0 {
					tables.Change(l, nil)
				} else {
					tables.Change(nil, l)
				}
			}
		})
	}
}

// BenchmarkTable makes a table from nothing.
func BenchmarkTable(b *testing.B) {
	for _, n := range peerCounts {
		peers := subnet.PeersOf(manyPeers(n)[:n]...)
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				udp.NewTables(prefixes("10.0.0.0/8", "fd00::/16")).Next(nil, nil, peers)
			}
		})
	}
}
