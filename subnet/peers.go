package subnet

import (
	"cmp"
	"iter"
	"net/netip"

	"flanneld/sorted"
)

// Peers are leases, one for each subnet, sorted by subnet. The set never changes; the zero value is empty. Two of one
// manager share what has not changed between them, so that PeerChanges costs what has.
type Peers struct{ set sorted.Snapshot[ref] }

// PeersOf returns a set of leases. Of two with one subnet the later one counts.
func PeersOf(leases ...Lease) Peers {
	set := sorted.New(bySubnet)
	for _, l := range leases {
		set.Put(ref{from: &Entry{Record: Record{Leases: []Lease{l}}}})
	}
	return Peers{set.Freeze()}
}

// Len returns how many there are.
func (p Peers) Len() int { return p.set.Len() }

// All returns them in their order.
func (p Peers) All() iter.Seq[Lease] {
	return func(yield func(Lease) bool) {
		for r := range p.set.All() {
			if !yield(*r.lease()) {
				return
			}
		}
	}
}

// Find returns the lease of a subnet.
func (p Peers) Find(subnet netip.Prefix) (Lease, bool) {
	for r := range p.set.Like(func(r ref) int { return comparePrefix(subnet, r.lease().Subnet) }) {
		return *r.lease(), true
	}
	return Lease{}, false
}

// Without returns the leases but for those of some subnets. It shares with p what is the same in both.
func (p Peers) Without(gone func(subnet netip.Prefix) bool) Peers {
	return Peers{p.set.Without(func(r ref) bool { return gone(r.lease().Subnet) })}
}

// Same reports whether both sets are of the same records, none of which has changed.
func (p Peers) Same(o Peers) bool {
	for range sorted.Changes(p.set, o.set) {
		return false
	}
	return true
}

// Records returns them in their order, each with the record that it is of.
func (p Peers) Records() iter.Seq2[Lease, Record] {
	return func(yield func(Lease, Record) bool) {
		for r := range p.set.All() {
			if !yield(*r.lease(), r.from.Record) {
				return
			}
		}
	}
}

// PeerChanges returns what differs between two sets, the leases of each subnet that has another one, or none, before or
// after; nil: none. Nobody may change what is pointed at; it stays valid.
func PeerChanges(before, after Peers) iter.Seq2[*Lease, *Lease] {
	return func(yield func(before, after *Lease) bool) {
		for b, a := range sorted.Changes(before.set, after.set) {
			var from, to *Lease
			if b != nil {
				from = b.lease()
			}
			if a != nil {
				to = a.lease()
			}
			if from != nil && to != nil && *from == *to {
				continue // something else in the record has changed
			}
			if !yield(from, to) {
				return
			}
		}
	}
}

// ref is one lease of a record.
type ref struct {
	from  *Entry
	at    uint8 // in from.Leases
	stale bool  // of a record that the store does not have any more
}

func (r ref) lease() *Lease { return &r.from.Leases[r.at] }

// refs returns the leases of a record.
func refs(e *Entry, stale bool) iter.Seq[ref] {
	return func(yield func(ref) bool) {
		for i := range e.Leases {
			if !yield(ref{e, uint8(i), stale}) {
				return
			}
		}
	}
}

func bySubnet(a, b ref) int { return comparePrefix(a.lease().Subnet, b.lease().Subnet) }

func comparePrefix(a, b netip.Prefix) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
}

// byAge is the order in which records that want one subnet hold it: the living before the stale ones, then the older;
// the key decides between those of one revision.
func byAge(a, b ref) int {
	if a.stale != b.stale {
		if b.stale {
			return -1
		}
		return 1
	}
	return cmp.Or(cmp.Compare(a.from.Created, b.from.Created), cmp.Compare(a.from.Key, b.from.Key))
}
