package subnet_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"flanneld/subnet"
)

func TestPoolCountsAndIndexesItsSubnets(t *testing.T) {
	for _, tt := range []struct {
		pool subnet.Pool
		size uint64
		at   uint64
		want string
	}{
		{pool("10.5.0.0/16", 24, "10.5.1.0", "10.5.255.0"), 255, 33, "10.5.34.0/24"},
		{pool("10.5.0.0/16", 24, "10.5.7.0", "10.5.7.0"), 1, 0, "10.5.7.0/24"},
		{pool("0.0.0.0/0", 30, "0.0.0.4", "255.255.255.252"), 1<<30 - 1, 1<<30 - 2, "255.255.255.252/30"},
		{pool("fd00:5::/48", 64, "fd00:5:0:1::", "fd00:5:0:ffff::"), 65535, 0x21, "fd00:5:0:22::/64"},
		{pool("fd00::/16", 60, "fd00::10:0:0:0:0", "fd00:ffff:ffff:fff0::"), 1<<44 - 1, 1 << 20, "fd00:0:100:10::/60"},
		{pool("fd00::/8", 120, "fd00::100", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ff00"), 1<<63 - 1, 1 << 57,
			"fd00:0:0:2::100/120"},
	} {
		t.Run(tt.pool.String(), func(t *testing.T) {
			if got := tt.pool.Size(); got != tt.size {
				t.Errorf("size %d, want %d", got, tt.size)
			}
			if got := tt.pool.At(tt.at).String(); got != tt.want {
				t.Errorf("subnet %d is %s, want %s", tt.at, got, tt.want)
			}
		})
	}
}

func TestPoolHoldsOnlyItsOwnSubnets(t *testing.T) {
	p := pool("10.5.0.0/16", 24, "10.5.8.0", "10.5.15.0")
	for _, tt := range []struct {
		name          string
		prefix        string
		holds, leases bool
	}{
		{"inside the bounds", "10.5.8.0/24", true, true},
		{"the last one", "10.5.15.0/24", true, true},
		{"below the bounds", "10.5.7.0/24", true, false},
		{"above the bounds", "10.5.16.0/24", true, false},
		{"another length", "10.5.8.0/25", false, false},
		{"another network", "10.6.8.0/24", false, false},
		{"host bits", "10.5.8.1/24", false, false},
		{"another family", "fd00::/24", false, false},
		{"the network itself", "10.5.0.0/16", false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			prefix := netip.MustParsePrefix(tt.prefix)
			if got := p.Holds(prefix); got != tt.holds {
				t.Errorf("holds: %t, want %t", got, tt.holds)
			}
			if got := p.Leases(prefix); got != tt.leases {
				t.Errorf("leases: %t, want %t", got, tt.leases)
			}
		})
	}
}

// allBut returns the subnets of a pool without one.
func allBut(p subnet.Pool, one netip.Prefix) (out []netip.Prefix) {
	for i := range p.Size() {
		if s := p.At(i); s != one {
			out = append(out, s)
		}
	}
	return out
}

func TestChooseIsStableForOneSeedAndFindsTheLastFreeSubnet(t *testing.T) {
	p := pool("10.5.0.0/16", 24, "10.5.1.0", "10.5.255.0")
	first, ok := p.Choose("host", nil)
	if again, _ := p.Choose("host", nil); !ok || again != first {
		t.Fatalf("got %s, then %s", first, again)
	}
	for i := range p.Size() {
		last := p.At(i)
		if got, ok := p.Choose("host", allBut(p, last)); !ok || got != last {
			t.Errorf("got %s %t, want %s", got, ok, last)
		}
	}
	if got, ok := p.Choose("host", allBut(p, netip.Prefix{})); ok {
		t.Errorf("got %s from a full pool", got)
	}
}

// TestChooseIsWhatAWalkOverThePoolFinds compares with the subnet that a walk from the same point finds first.
func TestChooseIsWhatAWalkOverThePoolFinds(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	p := pool("10.5.0.0/22", 28, "10.5.0.32", "10.5.3.208")
	for range 2000 {
		var taken []netip.Prefix
		for range rng.IntN(40) {
			a := netip.AddrFrom4([4]byte{10, 5, byte(rng.IntN(5)), byte(rng.IntN(256))})
			taken = append(taken, netip.PrefixFrom(a, 24+rng.IntN(9)).Masked())
		}
		taken = append(taken, netip.MustParsePrefix("fd00::/8"))
		free := func(s netip.Prefix) bool { return !slices.ContainsFunc(taken, s.Overlaps) }
		start, _ := p.Choose("host", nil)
		var want netip.Prefix
		for i := range 2 * p.Size() {
			s := p.At(i % p.Size())
			if !want.IsValid() && (i >= p.Size() || !s.Addr().Less(start.Addr())) && free(s) {
				want = s
			}
		}
		if got, ok := p.Choose("host", taken); got != want || ok != want.IsValid() {
			t.Fatalf("got %s %t, want %s, taken %v", got, ok, want, taken)
		}
	}
}

// TestChooseDoesNotWalkOverALargePool takes nearly all of pools with more subnets than anybody can count.
func TestChooseDoesNotWalkOverALargePool(t *testing.T) {
	for _, tt := range []struct {
		pool  subnet.Pool
		taken []string
		want  string
	}{
		{pool("fd00::/16", 64, "fd00:0:0:1::", "fd00:ffff:ffff:ffff::"),
			[]string{"fd00::/17", "fd00:8000::/18", "fd00:c000::/19", "fd00:e000::/19"}, ""},
		{pool("fd00::/16", 64, "fd00:0:0:1::", "fd00:ffff:ffff:ffff::"),
			[]string{"fd00::/17", "fd00:8000::/18", "fd00:c000::/19", "fd00:e000::/20"}, "fd00:f000::/20"},
		{pool("fd00::/8", 120, "fd00::100", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ff00"), []string{"fd00::/9", "fd80::/9"}, ""},
		{pool("::/0", 126, "::4", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffc"), []string{"::/64"}, "::/0"},
	} {
		var taken []netip.Prefix
		for _, text := range tt.taken {
			taken = append(taken, netip.MustParsePrefix(text))
		}
		for i := range 100 {
			switch got, ok := tt.pool.Choose(fmt.Sprint("host", i), taken); {
			case ok != (tt.want != ""):
				t.Errorf("%s without %v: got %s %t", tt.pool, taken, got, ok)
			case ok && (!netip.MustParsePrefix(tt.want).Contains(got.Addr()) || slices.ContainsFunc(taken, got.Overlaps)):
				t.Errorf("%s without %v: got %s, want one of %s", tt.pool, taken, got, tt.want)
			}
		}
	}
}

func TestChooseSpreadsHostsOverThePool(t *testing.T) {
	p := pool("10.0.0.0/8", 24, "10.0.1.0", "10.255.255.0")
	seen := map[netip.Prefix]bool{}
	const hosts = 1000
	for i := range hosts {
		s, _ := p.Choose(fmt.Sprint("host", i), nil)
		seen[s] = true
	}
	// 1,000 of 65,535: the birthday problem leaves about 7.5 collisions.
	if len(seen) < hosts-30 {
		t.Errorf("%d hosts start at only %d places", hosts, len(seen))
	}
}

func BenchmarkChooseFromANearlyFullPool(b *testing.B) {
	p := pool("10.0.0.0/8", 24, "10.0.1.0", "10.255.255.0")
	taken := allBut(p, p.At(p.Size()-1))
	for b.Loop() {
		p.Choose("host", taken)
	}
}
