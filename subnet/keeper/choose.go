package keeper

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"flanneld/subnet"
)

// loss is a subnet that this host uses and another record has.
type loss struct {
	subnet netip.Prefix
	holder string
}

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

// choose returns the subnets to ask for, one of each family. The second value says why there are none. What is taken is
// looked up once, and only if it matters: after a wipe thousands of hosts want just their own subnets back.
func (f *facts) choose(outdated *subnet.Entry) ([]subnet.Lease, string) {
	var key string
	var before []netip.Prefix
	if outdated != nil {
		key, before = outdated.Key, outdated.Prefixes()
	}
	taken := sync.OnceValue(func() []netip.Prefix { return f.records.Taken(f.config, key) })
	var chosen []subnet.Lease
	for _, pool := range f.config.Pools {
		p := f.chooseOf(pool, before, taken)
		if !p.IsValid() {
			leases, reservations := f.records.Counts(pool)
			const text = "no free subnet: %s holds %d, with %d leases and %d reservations; delete unused records or widen " +
				"the range"
			return nil, fmt.Sprintf(text, pool, pool.Size(), leases, reservations)
		}
		chosen = append(chosen, subnet.Lease{Subnet: p})
	}
	return chosen, ""
}

// chooseOf returns a subnet of a pool: that in use, else that of the record that is replaced, else one that is
// wanted, else a free one. The zero value: there is none.
func (f *facts) chooseOf(pool subnet.Pool, before []netip.Prefix, taken func() []netip.Prefix) netip.Prefix {
	for _, l := range f.inUse {
		if pool.Holds(l.Subnet) && !overlaps(l.Subnet, f.reserved) {
			return l.Subnet
		}
	}
	free := func(p netip.Prefix) bool { return !overlaps(p, f.reserved) && !overlaps(p, taken()) }
	for _, p := range before {
		if pool.Holds(p) && free(p) {
			return p
		}
	}
	for _, p := range f.wanted {
		if pool.Leases(p) && free(p) {
			return p
		}
	}
	p, _ := pool.Choose(f.seed, slices.Concat(taken(), f.avoid))
	return p
}
