package subnet

import (
	"fmt"
	"net/netip"
	"testing"
	"time"
)

// peerRecord returns the record of peer number i, for benchmarks.
func peerRecord(i int) Record {
	return Record{Identity: fmt.Sprint("peer", i), Leases: []Lease{{
		Subnet: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 1 + byte(i>>8), byte(i), 0}), 24),
		Attrs:  Attrs{PublicIP: netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}), BackendType: "vxlan"},
	}}}
}

// BenchmarkReset takes in a list after a break: of the same records, or of a store that was wiped.
func BenchmarkReset(b *testing.B) {
	for _, n := range []int{100, 1_000, 10_000} {
		var all []*Entry
		for i := range n {
			r := peerRecord(i)
			all = append(all, &Entry{Record: r, Key: r.Key(), Revision: int64(i + 1), Created: int64(i + 1)})
		}
		for name, s := range map[string]Snapshot{"same": {Entries: all}, "wiped": {}} {
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					b.StopTimer()
					t := newTable()
					t.reset(Snapshot{Entries: all}, time.Unix(1, 0))
					b.StartTimer()
					t.reset(s, time.Unix(2, 0))
				}
			})
		}
	}
}
