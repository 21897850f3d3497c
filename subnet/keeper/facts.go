package keeper

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"flanneld/subnet"
)

// facts are all that a decision goes by. Only the outcomes of actions and the events of the store change them.
type facts struct {
	host
	policy  subnet.LostPolicy
	config  subnet.Config
	records *subnet.PeerTable
	inUse   []subnet.Lease   // pods may live on these subnets, whether or not the store has them
	lease   storeLease       // that this process keeps alive
	expired subnet.LeaseID   // a store lease that is known to be gone
	claims  map[string]claim // our own, by the key of the record that they are for
	blocked map[string]block // claims of others at the keys of ours
	seed    string           // of the choice of a subnet
	former  []netip.Prefix   // were in use until they were lost
	wanted  []netip.Prefix   // of the subnet file
	avoid   func() []netip.Prefix
	reserve func() []netip.Prefix
}

// storeLease is a lease of the store. The zero value is none.
type storeLease struct {
	id      subnet.LeaseID
	renewAt time.Time
	ends    time.Time // it has surely ended then if nobody renews it
}

// fresh reports whether the lease needs no renewal. One that nobody renews while there is no record may end at any moment.
func (l storeLease) fresh(now time.Time) bool { return l.id != 0 && now.Before(l.renewAt) }

// survey is what the records of the store mean to this host.
type survey struct {
	own       *subnet.Entry  // this host's record, which it keeps
	rival     *subnet.Entry  // an older record that has a subnet of own, under the policy hold
	outdated  *subnet.Entry  // a record of this host that cannot stay as it is, to be replaced; only if there is no own one
	contested []subnet.Entry // records at this host of other identities or names, whose owners may live
	leftovers []subnet.Entry // old records of this host, to be deleted
}

// survey looks at all records.
func (f *facts) survey() survey {
	var s survey
	rank, reserved := 0, f.reserve()
	for e := range f.records.All() {
		rel := f.relation(e.Record)
		if rel == Foreign {
			continue
		}
		if rel.contends() && !f.hasLeft(e) {
			s.contested = append(s.contested, *e)
		}
		fits := f.fits(e.Record, reserved)
		if f.isLeftover(e, rel, fits) {
			s.leftovers = append(s.leftovers, *e)
		}
		switch r := f.rank(e, rel); {
		case !rel.ours():
		case !fits:
			if f.outgrown(e.Record) && older(e, s.outdated) {
				s.outdated = e
			}
		case r < rank || r == 0 || r == rank && !older(e, s.own):
		default:
			rival := f.rival(e, reserved)
			switch {
			case rival == nil, f.policy == subnet.LostHold && f.uses(e):
				s.own, s.rival, rank = e, rival, r
			case older(e, s.outdated):
				s.outdated = e
			}
		}
	}
	for _, list := range [][]subnet.Entry{s.contested, s.leftovers} {
		slices.SortFunc(list, func(a, b subnet.Entry) int { return cmp.Compare(a.Key, b.Key) })
	}
	return s
}

// older reports whether a record is older than another one; none is the youngest.
func older(e, than *subnet.Entry) bool { return than == nil || e.Created < than.Created }

// rank orders the records that may be this host's by how surely they are; 0: it is none. Pods live on the subnets in use:
// another record is no reason to leave them, unless it is a reservation that was made while we did not run.
func (f *facts) rank(e *subnet.Entry, rel Relation) int {
	used := f.uses(e)
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

// uses reports whether a record has just the subnets in use.
func (f *facts) uses(e *subnet.Entry) bool {
	return slices.EqualFunc(e.Leases, f.inUse, func(a, b subnet.Lease) bool { return a.Subnet == b.Subnet })
}

// fits reports whether a record has one valid subnet for each family of the network.
func (f *facts) fits(r subnet.Record, reserved []netip.Prefix) bool {
	holds := func(l subnet.Lease, p subnet.Pool) bool { return p.Holds(l.Subnet) && !overlaps(l.Subnet, reserved) }
	return slices.EqualFunc(r.Leases, f.config.Pools, holds)
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
func (f *facts) isLeftover(e *subnet.Entry, rel Relation, fits bool) bool {
	return e.LeaseID != 0 && (rel == Ours || rel == OursChanged || rel == Unnamed && !fits)
}

// hasLeft reports whether the host of a record has another address than ours now, by what it claims: two hosts that swap
// addresses do not wait for each other. A claim to the record itself may be a clone's.
func (f *facts) hasLeft(e *subnet.Entry) bool {
	for _, c := range f.records.Claims() {
		own := subnet.Record{Leases: c.Leases}.Key() == e.Key
		if at, _ := f.addresses(c.Record); !at && !own && c.Identity == e.Identity && c.Host == e.Host {
			return e.Identity != f.identity
		}
	}
	return false
}

// rival returns an older record of another owner that has a subnet of a record of ours: all hosts go by the older one.
// Such a record is written by hosts that look for keys only; the keys of two pairs with one subnet in common differ.
func (f *facts) rival(own *subnet.Entry, reserved []netip.Prefix) *subnet.Entry {
	var oldest *subnet.Entry
	for _, l := range own.Leases {
		for _, e := range f.records.With(l.Subnet) {
			leftover := f.isLeftover(e, f.relation(e.Record), f.fits(e.Record, reserved))
			if e.Key != own.Key && e.Created < own.Created && !leftover && older(e, oldest) {
				oldest = e
			}
		}
	}
	return oldest
}

// takenBy returns who has one of the subnets in use, of which this host has no record; nil: nobody. Records that are to be
// deleted or replaced take nothing away.
func (f *facts) takenBy(s survey) *loss {
	reserved := f.reserve()
	for _, l := range f.inUse {
		for _, e := range f.records.With(l.Subnet) {
			replaced := s.outdated != nil && s.outdated.Key == e.Key
			if !replaced && !f.isLeftover(e, f.relation(e.Record), f.fits(e.Record, reserved)) {
				return &loss{l.Subnet, e.Record.String()}
			}
		}
		for _, key := range sortedKeys(f.records.Bad()) {
			prefixes, _ := subnet.ParseKey(strings.TrimPrefix(key, subnet.SubnetsFolder))
			if slices.Contains(prefixes, l.Subnet) {
				return &loss{l.Subnet, fmt.Sprintf("an invalid record (%v)", f.records.Bad()[key].Err)}
			}
		}
	}
	return nil
}

// choose returns the subnets to ask for, one of each family: those in use, else what may stay of the record that is
// replaced, else those of before, else free ones. The second value says why there are none.
func (f *facts) choose(outdated *subnet.Entry) ([]subnet.Lease, string) {
	key, before, reserved, inUse := "", f.former, f.reserve(), subnet.Record{Leases: f.inUse}.Prefixes()
	if outdated != nil {
		key, before = outdated.Key, append(outdated.Prefixes(), f.former...)
	}
	taken := f.records.Taken(f.config, key)
	free := func(p netip.Prefix) bool { return !overlaps(p, taken) && !overlaps(p, reserved) }
	find := func(in []netip.Prefix, may func(netip.Prefix) bool) netip.Prefix {
		if i := slices.IndexFunc(in, may); i >= 0 {
			return in[i]
		}
		return netip.Prefix{}
	}
	var chosen []subnet.Lease
	for _, pool := range f.config.Pools {
		p := cmp.Or(
			find(inUse, func(p netip.Prefix) bool { return pool.Holds(p) && !overlaps(p, reserved) }),
			find(before, func(p netip.Prefix) bool { return pool.Holds(p) && free(p) }),
			find(f.wanted, func(p netip.Prefix) bool { return pool.Leases(p) && free(p) }),
		)
		if !p.IsValid() {
			p, _ = pool.Choose(f.seed, slices.Concat(taken, f.avoid()))
		}
		if !p.IsValid() {
			leases, reservations := f.records.Counts(pool)
			const text = "no free subnet: %s holds %d, with %d leases and %d reservations; delete unused records or widen the range"
			return nil, fmt.Sprintf(text, pool, pool.Size(), leases, reservations)
		}
		chosen = append(chosen, subnet.Lease{Subnet: p})
	}
	return chosen, ""
}
