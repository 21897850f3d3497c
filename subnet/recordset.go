package subnet

import (
	"cmp"
	"iter"
	"net/netip"
	"slices"
	"strings"

	"flanneld/sorted"
)

// recordSet is a set of records, with indexes of the keys, identities, subnets and public addresses in them. No record
// changes while it is in there.
type recordSet struct {
	keys, identities *sorted.Set[*Entry]
	places           []place // the first for the first leases of the records, and so on
}

// place is what the recordSet knows of the leases that come at one place in their records.
type place struct{ subnets, addresses *sorted.Set[*Entry] }

func newRecordSet() *recordSet {
	return &recordSet{keys: indexBy(func(*Entry, *Entry) int { return 0 }), identities: indexBy(byIdentity)}
}

// indexBy returns an empty set in an order that goes on with the key.
func indexBy(compare func(a, b *Entry) int) *sorted.Set[*Entry] {
	return sorted.New(func(a, b *Entry) int {
		if c := compare(a, b); c != 0 {
			return c
		}
		return strings.Compare(a.Key, b.Key)
	})
}

func byIdentity(a, b *Entry) int { return strings.Compare(a.Identity, b.Identity) }

func newPlace(i int) place {
	return place{
		indexBy(func(a, b *Entry) int { return comparePrefix(a.Leases[i].Subnet, b.Leases[i].Subnet) }),
		indexBy(func(a, b *Entry) int { return a.Leases[i].PublicIP.Compare(b.Leases[i].PublicIP) }),
	}
}

// len returns the number of records.
func (r *recordSet) len() int { return r.keys.Len() }

// at returns the record at a key; nil: there is none.
func (r *recordSet) at(key string) *Entry {
	for e := range r.keys.Like(func(e *Entry) int { return strings.Compare(key, e.Key) }) {
		return e
	}
	return nil
}

// put adds a record under a key that is free.
func (r *recordSet) put(e *Entry) {
	r.keys.Put(e)
	if e.Identity != "" {
		r.identities.Put(e)
	}
	for i := range e.Leases {
		if i == len(r.places) {
			r.places = append(r.places, newPlace(i))
		}
		r.places[i].subnets.Put(e)
		r.places[i].addresses.Put(e)
	}
}

// take removes the record at a key and returns it; nil: there was none.
func (r *recordSet) take(key string) *Entry {
	e := r.at(key)
	if e == nil {
		return nil
	}
	r.keys.Delete(e)
	r.identities.Delete(e)
	for i := range e.Leases {
		r.places[i].subnets.Delete(e)
		r.places[i].addresses.Delete(e)
	}
	return e
}

// related returns the records that have the identity, a subnet or a public address of the given one.
func (r *recordSet) related(e *Entry) (out []*Entry) {
	add := func(index *sorted.Set[*Entry], to func(*Entry) int) {
		for found := range index.Like(to) {
			if !slices.Contains(out, found) {
				out = append(out, found)
			}
		}
	}
	if e.Identity != "" {
		add(r.identities, func(o *Entry) int { return byIdentity(e, o) })
	}
	for _, l := range e.Leases {
		for i, p := range r.places {
			add(p.subnets, func(o *Entry) int { return comparePrefix(l.Subnet, o.Leases[i].Subnet) })
			add(p.addresses, func(o *Entry) int { return l.PublicIP.Compare(o.Leases[i].PublicIP) })
		}
	}
	return out
}

// with returns the records that have a subnet.
func (r *recordSet) with(p netip.Prefix) (out []*Entry) {
	for i, place := range r.places {
		out = slices.AppendSeq(out, place.subnets.Like(func(o *Entry) int { return comparePrefix(p, o.Leases[i].Subnet) }))
	}
	return out
}

// byAge returns the records from the oldest on.
func (r *recordSet) byAge() []*Entry {
	return slices.SortedFunc(r.all(), func(a, b *Entry) int {
		return cmp.Or(cmp.Compare(a.Created, b.Created), strings.Compare(a.Key, b.Key))
	})
}

// all returns the records in the order of their keys. None may come or go meanwhile.
func (r *recordSet) all() iter.Seq[*Entry] { return r.keys.All() }
