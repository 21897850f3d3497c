package udp

import (
	"cmp"
	"encoding/binary"
	"math/bits"
	"net/netip"
	"slices"
)

// lookup finds the longest prefix of one family, among those of each length in turn. In a network all leases have the
// same length, so that one probe of a hash table decides. That takes half the time of a balanced routing table
// (github.com/gaissmai/bart), which was measured beside it.
type lookup []sameLength

// sameLength has the prefixes of one length.
type sameLength struct {
	mask key
	index
}

// find returns the way to an address; nil if there is none.
func (l lookup) find(a netip.Addr) *path {
	k := keyOf(a)
	for i := range l {
		if to := l[i].find(k.and(l[i].mask)); to != nil {
			return to
		}
	}
	return nil
}

// key is an address of either family as a number of 128 bits.
type key struct{ high, low uint64 }

// keyOf returns the key of an address, IPv4 as in RFC 4291, section 2.5.5.2. As16 takes as long as the rest of a
// search: its two words are written one by one and then copied as one, for which the processor waits.
func keyOf(a netip.Addr) key {
	b := a.AsSlice()
	switch len(b) {
	case 4:
		return key{0, 0xffff<<32 | uint64(binary.BigEndian.Uint32(b))}
	case 16:
		return key{binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])}
	}
	return key{}
}

// addr4 returns the IPv4 address of its key.
func (k key) addr4() netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], uint32(k.low))
	return netip.AddrFrom4(b)
}

// maskOf returns the bits of a key that belong to a prefix of this length.
func maskOf(p netip.Prefix) key {
	length := p.Bits() + 128 - p.Addr().BitLen()
	return key{^uint64(0) << max(0, 64-length), ^uint64(0) << min(64, 128-length)}
}

func (k key) and(mask key) key { return key{k.high & mask.high, k.low & mask.low} }

// hash spreads keys, in its high bits best (Fibonacci hashing).
func (k key) hash() uint64 {
	const golden = 0x9e3779b97f4a7c15 // 2^64 divided by the golden ratio
	return (k.low ^ bits.RotateLeft64(k.high, 29)) * golden
}

// routes is a lookup in the making, the longest prefixes first.
type routes []*routesOf

// routesOf has the prefixes of one length.
type routesOf struct {
	bits int
	mask key
	draft
}

// at returns where the prefixes of a length are, or belong.
func (r routes) at(length int) (int, bool) {
	return slices.BinarySearchFunc(r, length, func(o *routesOf, length int) int { return cmp.Compare(length, o.bits) })
}

// put sets the way to a prefix and reports whether that is a change.
func (r *routes) put(p netip.Prefix, to *path) bool {
	i, found := r.at(p.Bits())
	if !found {
		*r = slices.Insert(*r, i, &routesOf{bits: p.Bits(), mask: maskOf(p)})
	}
	o := (*r)[i]
	return o.put(keyOf(p.Addr()).and(o.mask), to)
}

// delete takes a prefix away and reports whether it was there.
func (r *routes) delete(p netip.Prefix) bool {
	i, found := r.at(p.Bits())
	if !found {
		return false
	}
	o := (*r)[i]
	gone := o.delete(keyOf(p.Addr()).and(o.mask))
	if o.used == 0 {
		*r = slices.Delete(*r, i, i+1)
	}
	return gone
}

// freeze returns the lookup as it is now.
func (r routes) freeze() lookup {
	l := make(lookup, len(r))
	for i, o := range r {
		l[i] = sameLength{o.mask, o.freeze()}
	}
	return l
}
