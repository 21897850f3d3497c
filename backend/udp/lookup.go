package udp

import (
	"cmp"
	"encoding/binary"
	"math/bits"
	"net/netip"
	"slices"
)

// destination is a prefix and the way to it.
type destination struct {
	prefix netip.Prefix
	to     *path
}

// lookup finds the longest prefix of one family, among those of each length in turn. In a network all leases have the same
// length, so that one probe of a hash table decides.
type lookup []*sameLength

func newLookup(all []destination) lookup {
	byLength := map[int][]destination{}
	for _, d := range all {
		byLength[d.prefix.Bits()] = append(byLength[d.prefix.Bits()], d)
	}
	l := make(lookup, 0, len(byLength))
	for _, same := range byLength {
		l = append(l, newSameLength(same))
	}
	slices.SortFunc(l, func(a, b *sameLength) int { return cmp.Compare(b.length, a.length) })
	return l
}

// find returns the way to an address; nil if there is none.
func (l lookup) find(a netip.Addr) *path {
	for _, s := range l {
		if to := s.find(keyOf(a)); to != nil {
			return to
		}
	}
	return nil
}

// key is an address of either family as a number of 128 bits.
type key struct{ high, low uint64 }

func keyOf(a netip.Addr) key {
	b := a.As16()
	return key{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}
}

// sameLength is a hash table of prefixes of one length, with open addressing and at most half full, so that a probe touches
// little memory. A map of the language takes twice the time.
type sameLength struct {
	length int
	mask   key
	shift  uint // of a hash, to get a slot
	slots  []slotOf
}

type slotOf struct {
	key key
	to  *path // nil: free
}

func newSameLength(all []destination) *sameLength {
	size := bits.Len(uint(2*len(all) - 1))
	p := all[0].prefix
	length := p.Bits() + 128 - p.Addr().BitLen()
	s := &sameLength{length: length, shift: uint(64 - size), slots: make([]slotOf, 1<<size)}
	s.mask = key{^uint64(0) << max(0, 64-length), ^uint64(0) << min(64, 128-length)}
	for _, d := range all {
		s.add(keyOf(d.prefix.Masked().Addr()), d.to)
	}
	return s
}

// slot is where the search for a key begins (Fibonacci hashing).
func (s *sameLength) slot(k key) uint64 {
	const golden = 0x9e3779b97f4a7c15 // 2^64 divided by the golden ratio
	return (k.low ^ bits.RotateLeft64(k.high, 29)) * golden >> (s.shift & 63)
}

func (s *sameLength) add(k key, to *path) {
	last := uint64(len(s.slots) - 1)
	i := s.slot(k)
	for s.slots[i].to != nil && s.slots[i].key != k {
		i = (i + 1) & last
	}
	s.slots[i] = slotOf{k, to}
}

func (s *sameLength) find(k key) *path {
	k.high &= s.mask.high
	k.low &= s.mask.low
	last := uint64(len(s.slots) - 1)
	for i := s.slot(k); s.slots[i].to != nil; i = (i + 1) & last {
		if s.slots[i].key == k {
			return s.slots[i].to
		}
	}
	return nil
}
