package subnet

import (
	"iter"

	"flanneld/sorted"
)

// Peer is one lease of a set of peers, with the record that it is of. It is comparable; the zero value is none.
type Peer struct{ ref }

// Valid reports whether there is one.
func (p Peer) Valid() bool { return p.from != nil }

// Lease returns the lease. Nobody may change it.
func (p Peer) Lease() *Lease { return p.lease() }

// CompareAge orders peers that want the same by who had it first: those that the store has before those that it has
// lost, then the older record.
func (p Peer) CompareAge(o Peer) int { return byAge(p.ref, o.ref) }

// Changes returns what differs between two sets like PeerChanges, and those peers as well whose record has another age.
// The zero value: none.
func Changes(before, after Peers) iter.Seq2[Peer, Peer] {
	return func(yield func(before, after Peer) bool) {
		for b, a := range sorted.Changes(before.set, after.set) {
			var from, to Peer
			if b != nil {
				from = Peer{*b}
			}
			if a != nil {
				to = Peer{*a}
			}
			if b != nil && a != nil && *from.Lease() == *to.Lease() && from.CompareAge(to) == 0 {
				continue // something else in the record has changed
			}
			if !yield(from, to) {
				return
			}
		}
	}
}

// PeersOfEntries returns the leases of records. Of two with one subnet the later one counts.
func PeersOfEntries(entries ...*Entry) Peers {
	set := sorted.New(bySubnet)
	for _, e := range entries {
		for r := range refs(e, false) {
			set.Put(r)
		}
	}
	return Peers{set.Freeze()}
}
