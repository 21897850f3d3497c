package subnet

import (
	"cmp"
	"iter"
	"maps"
	"slices"

	"flanneld/sorted"
)

// roster is a set of records by their keys, with indexes of the identities, subnets and public addresses in them. No record changes
// while it is in there.
type roster struct {
	byKey                          map[string]*Entry
	identities, subnets, addresses *sorted.Set[ref]
}

func newRoster() *roster {
	within := func(compare func(a, b ref) int) *sorted.Set[ref] {
		return sorted.New(func(a, b ref) int {
			return cmp.Or(compare(a, b), cmp.Compare(a.from.Key, b.from.Key), cmp.Compare(a.at, b.at))
		})
	}
	return &roster{map[string]*Entry{}, within(byIdentity), within(bySubnet), within(byAddress)}
}

func byIdentity(a, b ref) int { return cmp.Compare(a.from.Identity, b.from.Identity) }

func byAddress(a, b ref) int { return a.lease().PublicIP.Compare(b.lease().PublicIP) }

// put adds a record under a key that is free.
func (r *roster) put(e *Entry) {
	r.byKey[e.Key] = e
	if e.Identity != "" {
		r.identities.Put(ref{from: e})
	}
	for l := range refs(e, false) {
		r.subnets.Put(l)
		r.addresses.Put(l)
	}
}

// take removes the record at a key and returns it; nil: there was none.
func (r *roster) take(key string) *Entry {
	e := r.byKey[key]
	if e == nil {
		return nil
	}
	delete(r.byKey, key)
	r.identities.Delete(ref{from: e})
	for l := range refs(e, false) {
		r.subnets.Delete(l)
		r.addresses.Delete(l)
	}
	return e
}

// kin returns the records that have the identity, a subnet or a public address of the given one.
func (r *roster) kin(e *Entry) []*Entry {
	var out []*Entry
	add := func(index *sorted.Set[ref], compare func(a, b ref) int, like ref) {
		// The index goes on with the key: an empty one is before all others.
		from := Entry{Record: like.from.Record}
		for found := range index.From(ref{from: &from, at: like.at}) {
			if compare(found, like) != 0 {
				return
			}
			if !slices.Contains(out, found.from) {
				out = append(out, found.from)
			}
		}
	}
	if e.Identity != "" {
		add(r.identities, byIdentity, ref{from: e})
	}
	for l := range refs(e, false) {
		add(r.subnets, bySubnet, l)
		add(r.addresses, byAddress, l)
	}
	return out
}

// byAge returns the records from the oldest on.
func (r *roster) byAge() []*Entry {
	return slices.SortedFunc(maps.Values(r.byKey), func(a, b *Entry) int { return byAge(ref{from: a}, ref{from: b}) })
}

// all returns the records in no order.
func (r *roster) all() iter.Seq[*Entry] { return maps.Values(r.byKey) }
