package subnet

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"math"
	"net/netip"
	"slices"
)

// Pool is the range that subnets of one family are leased from. It is comparable.
type Pool struct {
	Network   netip.Prefix
	SubnetLen int        // prefix length of every lease, in bits; 0: the store assigns subnets of any length
	Min, Max  netip.Addr // first addresses of the first and the last subnet that may be leased
}

func (p Pool) String() string {
	return fmt.Sprintf("%s to %s of %s in steps of /%d", p.Min, p.Max, p.Network, p.SubnetLen)
}

// Holds reports whether a lease of this prefix belongs to the network: inside its range, and of its length.
func (p Pool) Holds(prefix netip.Prefix) bool {
	if p.SubnetLen != 0 && prefix.Bits() != p.SubnetLen {
		return false
	}
	return prefix.Bits() > p.Network.Bits() && p.Network.Contains(prefix.Addr()) && prefix == prefix.Masked()
}

// Leases reports whether the prefix may be newly leased: it also lies between Min and Max.
func (p Pool) Leases(prefix netip.Prefix) bool {
	return p.Holds(prefix) && !prefix.Addr().Less(p.Min) && !p.Max.Less(prefix.Addr())
}

// Size returns how many subnets may be leased, at most 2^63-1.
func (p Pool) Size() uint64 {
	lowHi, lowLo := halves(p.Min)
	hiHi, hiLo := halves(p.Max)
	hi, lo := hiHi-lowHi, hiLo-lowLo
	if hiLo < lowLo {
		hi--
	}
	hi, lo = shiftRight(hi, lo, p.hostBits())
	if hi != 0 || lo >= math.MaxInt64 {
		return math.MaxInt64
	}
	return lo + 1
}

// At returns the i-th subnet from Min on; i is below Size.
func (p Pool) At(i uint64) netip.Prefix {
	addHi, addLo := shiftLeft(i, p.hostBits())
	hi, lo := halves(p.Min)
	sum := lo + addLo
	hi += addHi
	if sum < lo {
		hi++
	}
	return netip.PrefixFrom(join(hi, sum, p.Min.Is4()), p.SubnetLen)
}

// Choose returns a subnet that overlaps none of the taken prefixes, or false if there is none. It starts at a point
// derived from seed and goes on from there, so that two hosts rarely meet and one host tends to get the same subnet
// again. Its cost depends on the number of taken prefixes, not on their size nor on that of the pool.
func (p Pool) Choose(seed string, taken []netip.Prefix) (netip.Prefix, bool) {
	h := fnv.New64a()
	_, _ = h.Write([]byte(seed))
	size := p.Size()
	start := mix(h.Sum64()) % size
	spans := p.spans(taken)
	at := firstFree(spans, start)
	if at >= size {
		at = firstFree(spans, 0)
	}
	if at >= size {
		return netip.Prefix{}, false
	}
	return p.At(at), true
}

// span is a range of subnets by their index, both ends included.
type span struct{ first, last uint64 }

// spans returns the subnets of the pool that prefixes overlap, sorted by their first one.
func (p Pool) spans(prefixes []netip.Prefix) []span {
	end := lastAddr(netip.PrefixFrom(p.Max, p.SubnetLen))
	spans := make([]span, 0, len(prefixes))
	for _, q := range prefixes {
		first, last := q.Masked().Addr(), lastAddr(q)
		if first.BitLen() != p.Min.BitLen() || last.Less(p.Min) || end.Less(first) {
			continue
		}
		spans = append(spans, span{p.index(first), p.index(last)})
	}
	slices.SortFunc(spans, func(a, b span) int { return cmp.Compare(a.first, b.first) })
	return spans
}

// index returns the index of the subnet that an address lies in; that of the nearest one for an address outside.
func (p Pool) index(a netip.Addr) uint64 {
	if a.Less(p.Min) {
		return 0
	}
	lowHi, lowLo := halves(p.Min)
	hi, lo := halves(a)
	diffHi := hi - lowHi
	if lo < lowLo {
		diffHi--
	}
	hi, lo = shiftRight(diffHi, lo-lowLo, p.hostBits())
	if most := p.Size() - 1; hi != 0 || lo > most {
		return most
	}
	return lo
}

// firstFree returns the lowest index, not below at, that lies in none of the spans.
func firstFree(spans []span, at uint64) uint64 {
	for _, s := range spans {
		if s.first > at {
			break
		}
		if s.last >= at {
			at = s.last + 1
		}
	}
	return at
}

// mix is the finalizer of SplitMix64: FNV alone leaves the low bits of similar seeds correlated.
func mix(x uint64) uint64 {
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}

func (p Pool) hostBits() int { return p.Network.Addr().BitLen() - p.SubnetLen }

// halves returns an address as a 128-bit number; an IPv4 address fills the low 32 bits.
func halves(a netip.Addr) (hi, lo uint64) {
	if a.Is4() {
		b := a.As4()
		return 0, uint64(binary.BigEndian.Uint32(b[:]))
	}
	b := a.As16()
	return binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])
}

func join(hi, lo uint64, is4 bool) netip.Addr {
	if is4 {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], uint32(lo))
		return netip.AddrFrom4(b)
	}
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], hi)
	binary.BigEndian.PutUint64(b[8:], lo)
	return netip.AddrFrom16(b)
}

func shiftRight(hi, lo uint64, n int) (uint64, uint64) {
	if n >= 64 {
		return 0, hi >> (n - 64)
	}
	return hi >> n, lo>>n | hi<<(64-n)
}

func shiftLeft(x uint64, n int) (hi, lo uint64) {
	if n >= 64 {
		return x << (n - 64), 0
	}
	return x >> (64 - n), x << n
}

// lastAddr returns the address of a prefix in which all host bits are set.
func lastAddr(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	last, _ := netip.AddrFromSlice(b)
	return last
}
