package subnet

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"flanneld/sorted"
)

// selection is what a host makes of the records: which leases of others are in force, and why the rest is not. Each
// record is judged by itself when it comes; where several that are valid want one subnet, the first of them by age
// holds it and the others wait, so that a record that goes costs only what it held.
type selection struct {
	config   Config
	identity string
	self     []Lease
	valid    func(Lease) error

	peers   *sorted.Set[ref]          // those in force, by subnet
	waiting map[netip.Prefix][]ref    // behind the one in force, in the order of their age; few
	skipped map[string]string         // why a record is no peer, or not with all its subnets; by key
	recheck map[string]bool           // keys whose reason may have changed since they were reported
	of      func(key string) reasoned // what stands at a key
}

// reasoned is all that may be known under one key at once.
type reasoned struct {
	bad           *BadRecord
	living, stale *Entry
}

// viewer is a host that looks at the records of others: its identity, and why a lease of the right network and type
// cannot be that of a peer.
type viewer struct {
	identity string
	valid    func(Lease) error
}

// newSelection returns what a host makes of the records of a table. What was reported of them before, by key, need not
// be reported again.
func newSelection(t *table, c Config, self []Lease, v viewer, reported map[string]string) *selection {
	p := &selection{
		config: c, identity: v.identity, self: self, valid: v.valid, of: t.at,
		peers: sorted.New(bySubnet), waiting: map[netip.Prefix][]ref{}, skipped: reported, recheck: map[string]bool{},
	}
	for key := range reported {
		p.recheck[key] = true
	}
	for key := range t.bad {
		p.recheck[key] = true
	}
	for e := range t.living.all() {
		p.put(e, false)
	}
	for e := range t.stale.all() {
		p.put(e, true)
	}
	return p
}

func (p *selection) fits(c Config, self []Lease) bool {
	return p != nil && slices.Equal(p.config.Pools, c.Pools) && slices.Equal(p.self, self) &&
		p.config.Main().equal(c.Main()) && p.config.Next.equal(c.Next) && p.config.Previous.equal(c.Previous)
}

// put takes in a record.
func (p *selection) put(e *Entry, stale bool) {
	p.mark(e.Key)
	if isOwn(e, p.identity, p.self) {
		return
	}
	for r := range refs(e, stale) {
		why, counts := p.judge(r)
		if why == nil && counts {
			p.enter(r)
		}
		if why != nil || r.lease().BadOffers() {
			p.recheck[e.Key] = true
		}
	}
}

// enter gives a valid lease its subnet, or its place among those that wait for it.
func (p *selection) enter(r ref) {
	subnet := r.lease().Subnet
	first, taken := p.peers.Find(r)
	if !taken || byAge(r, first) < 0 {
		p.peers.Put(r)
		r = first
	}
	if !taken {
		return
	}
	p.waiting[subnet] = append(p.waiting[subnet], r)
	slices.SortFunc(p.waiting[subnet], byAge)
	p.restate(subnet)
}

// take forgets a record that was put.
func (p *selection) take(e *Entry, stale bool) {
	p.mark(e.Key)
	for r := range refs(e, stale) {
		subnet := r.lease().Subnet
		first, _ := p.peers.Find(r)
		switch next := p.waiting[subnet]; {
		case first != r:
			p.waiting[subnet] = slices.DeleteFunc(next, func(o ref) bool { return o == r })
		case len(next) == 0:
			p.peers.Delete(r)
		default:
			p.restate(subnet)
			p.peers.Put(next[0])
			p.waiting[subnet] = next[1:]
		}
		if len(p.waiting[subnet]) == 0 {
			delete(p.waiting, subnet)
		}
	}
}

// mark has the reason at a key looked at again whose record changes, if there is one.
func (p *selection) mark(key string) {
	if p.skipped[key] != "" {
		p.recheck[key] = true
	}
}

// restate marks those that wait for a subnet.
func (p *selection) restate(subnet netip.Prefix) {
	for _, r := range p.waiting[subnet] {
		p.recheck[r.from.Key] = true
	}
}

// judge says why a lease, looked at by itself, is not that of a peer. One that does not count is no mistake either: its
// host has both families, or had them, this network one, or has not taken its reservation yet.
func (p *selection) judge(r ref) (why error, counts bool) {
	if _, ok := p.config.Pool(r.lease().Subnet); !ok && (len(r.from.Leases) > 1 || r.stale) {
		return nil, false
	}
	if why = validate(p.config, *r.lease(), p.self); why == nil {
		why = p.valid(*r.lease())
	}
	if why != nil && p.awaited(r) {
		return nil, false
	}
	return why, true
}

// awaited reports whether a lease is a reservation that its host has not taken yet: the operator writes no data of a
// backend, and often not even its name. Packets to it would have no destination.
func (p *selection) awaited(r ref) bool {
	l := r.lease()
	pool, ok := p.config.Pool(l.Subnet)
	return ok && pool.Holds(l.Subnet) && r.from.LeaseID == 0 && l.BackendData == "" &&
		!slices.ContainsFunc(p.self, func(own Lease) bool { return own.Subnet.Overlaps(l.Subnet) })
}

// reasons brings skipped up to date, and returns the keys whose reason is another one now, sorted.
func (p *selection) reasons() (changed []string) {
	for key := range p.recheck {
		why := p.why(p.of(key))
		if why != p.skipped[key] {
			changed = append(changed, key)
		}
		if why == "" {
			delete(p.skipped, key)
		} else {
			p.skipped[key] = why
		}
	}
	clear(p.recheck)
	slices.Sort(changed)
	return changed
}

// why says what is wrong with what stands at a key; empty: nothing.
func (p *selection) why(at reasoned) string {
	var all []string
	if at.bad != nil {
		all = append(all, at.bad.Err.Error())
	}
	if at.living != nil {
		all = append(all, p.whyOf(at.living, false)...)
	}
	if at.stale != nil {
		all = append(all, p.whyOf(at.stale, true)...)
	}
	slices.Sort(all)
	return fmt.Sprintf("%.*s", maxReason, strings.Join(slices.Compact(all), "; "))
}

// maxReason bounds the reason given for a record, in characters.
const maxReason = 500

func (p *selection) whyOf(e *Entry, stale bool) (all []string) {
	if isOwn(e, p.identity, p.self) {
		return nil
	}
	for r := range refs(e, stale) {
		why, counts := p.judge(r)
		if why != nil {
			all = append(all, why.Error())
		} else if first, ok := p.peers.Find(r); counts && ok && first != r {
			all = append(all, fmt.Sprintf("the subnet %s is held by the older record %s", r.lease().Subnet, first.from.Key))
		}
		if counts && r.lease().BadOffers() {
			all = append(all, fmt.Sprintf("some of what %s offers beside %s is invalid and not used", r.lease().Subnet,
				r.lease().BackendType))
		}
	}
	return all
}

// isOwn reports whether the entry is the record of this host that holds the leases of self, or what is left of them.
func isOwn(e *Entry, identity string, self []Lease) bool {
	same := func(a, b Lease) bool { return a.Subnet == b.Subnet }
	switch e.Identity {
	case "":
		return slices.EqualFunc(e.Leases, self, same)
	case identity:
		return !slices.ContainsFunc(e.Leases, func(l Lease) bool {
			return !slices.ContainsFunc(self, func(own Lease) bool { return same(l, own) })
		})
	}
	return false
}

// validate says why a lease cannot be that of a peer.
func validate(c Config, l Lease, self []Lease) error {
	pool, ok := c.Pool(l.Subnet)
	switch {
	case !ok:
		return fmt.Errorf("the network does not have the address family of the subnet %s", l.Subnet)
	case !pool.Network.Overlaps(l.Subnet) || !pool.Network.Contains(l.Subnet.Addr()):
		return fmt.Errorf("the subnet %s is outside the network %s", l.Subnet, pool.Network)
	case !pool.Holds(l.Subnet):
		return fmt.Errorf("the prefix length of the subnet %s is not %d", l.Subnet, pool.SubnetLen)
	case !c.carries(&l):
		return fmt.Errorf("its backend is %s, that of the network is %s", l.BackendType, c.BackendType)
	case l.Subnet.Contains(l.PublicIP):
		return fmt.Errorf("its public IP %s lies inside its subnet %s", l.PublicIP, l.Subnet)
	}
	for _, own := range self {
		switch {
		case own.Subnet.Overlaps(l.Subnet):
			return fmt.Errorf("the subnet %s overlaps this host's %s", l.Subnet, own.Subnet)
		case own.PublicIP == l.PublicIP:
			return fmt.Errorf("its public IP %s is this host's", l.PublicIP)
		}
	}
	return nil
}
