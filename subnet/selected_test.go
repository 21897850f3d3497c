package subnet_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"flanneld/subnet"
)

// TestASelectionThatFollowsIsTheOneOfNothingButThePresentPeers changes peers at random.
func TestASelectionThatFollowsIsTheOneOfNothingButThePresentPeers(t *testing.T) {
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 3))
	choose := func(l subnet.Lease) (subnet.Lease, bool) {
		for _, way := range l.Ways() {
			if way.Type == "wireguard" {
				return l.By(way), true
			}
		}
		return l, false
	}
	entry := func(i int) *subnet.Entry {
		a := subnet.Attrs{PublicIP: netip.MustParseAddr("192.0.2.1")}
		a.BackendType = []string{"vxlan", "wireguard"}[rnd.IntN(2)]
		if rnd.IntN(2) == 0 {
			kind := []string{"wireguard", "udp"}[rnd.IntN(2)]
			a.Offers = subnet.OffersText([]subnet.Offer{{Type: kind, Data: fmt.Sprint(rnd.IntN(3))}})
		}
		r := subnet.Record{Identity: fmt.Sprint(i), Leases: []subnet.Lease{
			{Subnet: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 5, byte(i), 0}), 24), Attrs: a},
			{Subnet: netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, 5, 7: byte(i)}), 64), Attrs: a},
		}}
		return &subnet.Entry{Record: r, Key: r.Key(), Created: int64(rnd.IntN(100))}
	}
	const hosts = 20
	now := make([]*subnet.Entry, hosts)
	follows := subnet.NewSelected(choose)
	for step := range 500 {
		i := rnd.IntN(hosts)
		if now[i] = nil; rnd.IntN(3) > 0 {
			now[i] = entry(i)
		}
		gone := func(e *subnet.Entry) bool { return e == nil }
		peers := subnet.PeersOfEntries(slices.DeleteFunc(slices.Clone(now), gone)...)
		got, want := follows.Follow(peers), subnet.NewSelected(choose).Follow(peers)
		if g, w := describe(got), describe(want); !slices.Equal(g, w) {
			t.Fatalf("seed %d, step %d: got %q, want %q", seed, step, g, w)
		}
		for l := range got.All() {
			if l.BackendType != "wireguard" || l.Offers != "" {
				t.Fatalf("seed %d, step %d: selected %+v", seed, step, l)
			}
		}
	}
}

func describe(p subnet.Peers) (out []string) {
	for l, r := range p.Records() {
		out = append(out, fmt.Sprintf("%+v of %v", l, r.Prefixes()))
	}
	return out
}
