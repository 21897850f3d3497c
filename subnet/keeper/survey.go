package keeper

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"flanneld/subnet"
)

// facts are all that a decision goes by. Only the outcomes of actions and the events of the store change them.
type facts struct {
	host
	policy   subnet.LostPolicy
	config   subnet.Config
	records  *subnet.PeerTable
	inUse    []subnet.Lease   // pods may live on these subnets, whether or not the store has them
	lease    storeLease       // that this process keeps alive
	expired  subnet.LeaseID   // a store lease that is known to be gone
	claims   map[string]claim // our own, by the key of the record that they are for
	recent   []recentClaim    // of others, also those that were answered at once
	seed     string           // of the choice of a subnet
	wanted   []netip.Prefix   // taken if they are free: of the subnet file, or in use until they were lost
	avoid    []netip.Prefix   // networks that no new subnet may overlap
	reserved []netip.Prefix   // networks that no subnet may overlap, old or new
}

// storeLease is a lease of the store. The zero value is none.
type storeLease struct {
	id      subnet.LeaseID
	renewAt time.Time
	ends    time.Time // it has surely ended then if nobody renews it
}

// fresh reports whether the lease needs no renewal. One that nobody renews while there is no record may end at any
// moment.
func (l storeLease) fresh(now time.Time) bool { return l.id != 0 && now.Before(l.renewAt) }

// survey is what the records of the store mean to this host.
type survey struct {
	own       *subnet.Entry  // this host's record; nil: none
	stays     bool           // own stays at its key; else it is to be replaced by one with other subnets
	contested []subnet.Entry // other records at this host, of other identities or names, whose owners may live
	leftovers []subnet.Entry // old records of this host beside own, to be deleted
}

// maxContested bounds how many owners of our address are asked before it is used. Each costs two requests, and more
// than a few records with one address are junk.
const maxContested = 8

// survey looks at all records. Of those that may stay the one of the highest rank is this host's, of those that may
// not the oldest.
func (f *facts) survey() survey {
	var s survey
	var outdated *subnet.Entry
	best := 0
	for e := range f.records.All() {
		rel := f.relation(e.Record)
		if rel == Foreign {
			continue
		}
		if rel.contends() && !f.hasLeft(e) {
			s.contested = append(s.contested, *e)
		}
		if f.isLeftover(e) {
			s.leftovers = append(s.leftovers, *e)
		}
		rank, fits := f.rank(e, rel), f.fits(e.Record)
		switch {
		case !rel.ours(), fits && rank == 0:
		case fits && !f.hasOlderRival(e):
			if rank > best || rank == best && older(e, s.own) {
				s.own, best = e, rank
			}
		case (fits || f.outgrown(e.Record)) && older(e, outdated):
			outdated = e
		}
	}
	if s.stays = s.own != nil; !s.stays {
		s.own = outdated
	}
	s.contested, s.leftovers = byKey(s.contested, s.own), byKey(s.leftovers, s.own)
	s.contested = s.contested[:min(len(s.contested), maxContested)]
	return s
}

// byKey sorts records, without the given one.
func byKey(records []subnet.Entry, except *subnet.Entry) []subnet.Entry {
	if except != nil {
		records = slices.DeleteFunc(records, func(e subnet.Entry) bool { return e.Key == except.Key })
	}
	slices.SortFunc(records, func(a, b subnet.Entry) int { return cmp.Compare(a.Key, b.Key) })
	return records
}

// older reports whether a record is older than another one; none is the youngest.
func older(e, than *subnet.Entry) bool { return than == nil || e.Created < than.Created }

// rank orders the records that may be this host's by how surely they are; 0: it is none. Pods live on the subnets in
// use: another record is no reason to leave them, unless it is a reservation that was made while we did not run.
func (f *facts) rank(e *subnet.Entry, rel Relation) int {
	used := slices.EqualFunc(e.Leases, f.inUse, func(a, b subnet.Lease) bool { return a.Subnet == b.Subnet })
	switch {
	case len(f.inUse) > 0 && !used && (f.published != nil || e.LeaseID != 0):
		return 0
	case rel == Unnamed:
		return 1
	case used:
		return 4
	case rel == OursElsewhere:
		return 2
	}
	return 3
}

// fits reports whether a record has one valid subnet for each family of the network.
func (f *facts) fits(r subnet.Record) bool {
	return slices.EqualFunc(r.Leases, f.config.Pools, func(l subnet.Lease, p subnet.Pool) bool {
		return p.Holds(l.Subnet) && !overlaps(l.Subnet, f.reserved)
	})
}

func overlaps(p netip.Prefix, with []netip.Prefix) bool { return slices.ContainsFunc(with, p.Overlaps) }

// outgrown reports whether a record that does not fit is from before the network got, or lost, the other family.
func (f *facts) outgrown(r subnet.Record) bool {
	return len(r.Leases) != len(f.config.Pools) && slices.ContainsFunc(r.Leases, func(l subnet.Lease) bool {
		p, ok := f.config.Pool(l.Subnet)
		return ok && p.Holds(l.Subnet)
	})
}

// isLeftover reports whether a record is to be deleted when this host has another one. Reservations stay.
func (f *facts) isLeftover(e *subnet.Entry) bool {
	if e.LeaseID == 0 {
		return false
	}
	rel := f.relation(e.Record)
	return rel == Ours || rel == OursChanged || rel == Unnamed && !f.fits(e.Record)
}

// hasLeft reports whether the host of a record has another address than ours now, by what it claims, or claimed a
// moment ago: hosts that swap addresses do not wait for each other. A claim to the record itself may be a clone's.
func (f *facts) hasLeft(e *subnet.Entry) bool {
	return e.Identity != f.identity && slices.ContainsFunc(f.recent, func(c recentClaim) bool {
		at, _ := f.addresses(c.Record)
		itself := subnet.Record{Leases: c.Leases}.Key() == e.Key
		return !at && !itself && c.Revision > e.Revision && c.Identity == e.Identity && c.Host == e.Host
	})
}

// hasOlderRival reports whether an older record has a subnet of a record of ours: all hosts go by the older one. Two
// such records are written by hosts that look for keys only: the keys of two pairs with one subnet in common differ.
func (f *facts) hasOlderRival(own *subnet.Entry) bool {
	return slices.ContainsFunc(own.Prefixes(), func(p netip.Prefix) bool {
		return slices.ContainsFunc(f.holders(p, own), func(e *subnet.Entry) bool { return e.Created < own.Created })
	})
}

// holders returns the records with a subnet, but for one of ours and those that are to be deleted.
func (f *facts) holders(p netip.Prefix, except *subnet.Entry) []*subnet.Entry {
	return slices.DeleteFunc(f.records.With(p), func(e *subnet.Entry) bool {
		return except != nil && e.Key == except.Key || f.isLeftover(e)
	})
}
