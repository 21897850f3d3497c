package subnet_test

import (
	"fmt"
	"net/netip"
	"testing"

	"flanneld/subnet"
)

func never(netip.Prefix) bool { return false }

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
		{pool("fd00::/8", 120, "fd00::100", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ff00"), 1<<63 - 1, 1 << 57, "fd00:0:0:2::100/120"},
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

func TestChooseIsStableForOneSeedAndFindsTheLastFreeSubnet(t *testing.T) {
	p := pool("10.5.0.0/16", 24, "10.5.1.0", "10.5.255.0")
	first, ok := p.Choose("host", never)
	if again, _ := p.Choose("host", never); !ok || again != first {
		t.Fatalf("got %s, then %s", first, again)
	}
	last := netip.MustParsePrefix("10.5.77.0/24")
	got, ok := p.Choose("host", func(s netip.Prefix) bool { return s != last })
	if !ok || got != last {
		t.Errorf("got %s %t, want %s", got, ok, last)
	}
	if got, ok := p.Choose("host", func(netip.Prefix) bool { return true }); ok {
		t.Errorf("got %s from a full pool", got)
	}
}

func TestChooseSpreadsHostsOverThePool(t *testing.T) {
	p := pool("10.0.0.0/8", 24, "10.0.1.0", "10.255.255.0")
	seen := map[netip.Prefix]bool{}
	const hosts = 1000
	for i := range hosts {
		s, _ := p.Choose(fmt.Sprint("host", i), never)
		seen[s] = true
	}
	// 1,000 of 65,535: the birthday problem leaves about 7.5 collisions.
	if len(seen) < hosts-30 {
		t.Errorf("%d hosts start at only %d places", hosts, len(seen))
	}
}

func BenchmarkChooseFromANearlyFullPool(b *testing.B) {
	p := pool("10.0.0.0/8", 24, "10.0.1.0", "10.255.255.0")
	taken := map[netip.Prefix]bool{}
	for i := range p.Size() - 1 {
		taken[p.At(i)] = true
	}
	for b.Loop() {
		p.Choose("host", func(s netip.Prefix) bool { return taken[s] })
	}
}
