package keeper

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"flanneld/subnet"
)

// loss is a subnet that this host uses and another record has.
type loss struct {
	subnet netip.Prefix
	holder string
}

func (l loss) String() string { return fmt.Sprintf("subnet %s was taken by %s", l.subnet, l.holder) }

// findLoss returns who has one of the subnets in use, which the record of this host does not hold; nil: nobody.
func (f *facts) findLoss(own *subnet.Entry) *loss {
	for _, l := range f.inUse {
		if holders := f.holders(l.Subnet, own); len(holders) > 0 {
			return &loss{l.Subnet, holders[0].Record.String()}
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
// replaced, else those that are wanted, else free ones. The second value says why there are none.
func (f *facts) choose(outdated *subnet.Entry) ([]subnet.Lease, string) {
	var key string
	var before []netip.Prefix
	if outdated != nil {
		key, before = outdated.Key, outdated.Prefixes()
	}
	taken := f.records.Taken(f.config, key)
	free := func(p netip.Prefix) bool { return !overlaps(p, taken) && !overlaps(p, f.reserved) }
	var chosen []subnet.Lease
	for _, pool := range f.config.Pools {
		p := cmp.Or(
			first(subnet.Record{Leases: f.inUse}.Prefixes(), func(p netip.Prefix) bool { return pool.Holds(p) && !overlaps(p, f.reserved) }),
			first(before, func(p netip.Prefix) bool { return pool.Holds(p) && free(p) }),
			first(f.wanted, func(p netip.Prefix) bool { return pool.Leases(p) && free(p) }),
		)
		if !p.IsValid() {
			p, _ = pool.Choose(f.seed, slices.Concat(taken, f.avoid))
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

// first returns the first subnet of which something is true; the zero value: none.
func first(in []netip.Prefix, is func(netip.Prefix) bool) netip.Prefix {
	if i := slices.IndexFunc(in, is); i >= 0 {
		return in[i]
	}
	return netip.Prefix{}
}
