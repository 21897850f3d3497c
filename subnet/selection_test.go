package subnet

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

// drawn makes records at random that get in each other's way: few subnets, few addresses, some of them bad.
type drawn struct {
	*rand.Rand
	revision int64
}

func (d *drawn) prefixes() []netip.Prefix {
	four := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 5, byte(d.IntN(6)), 0}), 24)
	six := netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, 1, 7: byte(d.IntN(6))}), 64)
	switch d.IntN(6) {
	case 0:
		return []netip.Prefix{six}
	case 1:
		return []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(5 + d.IntN(2)), 0, 0}), 20+
			d.IntN(5)).Masked()}
	case 2:
		return []netip.Prefix{four}
	}
	return []netip.Prefix{four, six}
}

func (d *drawn) record() Record {
	r := Record{Host: "h"}
	if n := d.IntN(8); n > 0 {
		r.Identity = fmt.Sprint("id", n)
	}
	ip := netip.AddrFrom4([4]byte{192, 0, 2, byte(d.IntN(6))})
	for _, p := range d.prefixes() {
		kind := "vxlan"
		if d.IntN(12) == 0 {
			kind = "udp"
		}
		r.Leases = append(r.Leases, Lease{p, Attrs{PublicIP: ip, BackendType: kind, BackendData: fmt.Sprint(d.IntN(8))}})
	}
	return r
}

func (d *drawn) entry() *Entry {
	d.revision++
	r := d.record()
	e := &Entry{Record: r, Key: r.Key(), Revision: d.revision, Created: d.revision}
	if d.IntN(2) == 0 {
		e.Created = 1 + d.Int64N(d.revision)
	}
	return e
}

// event returns one change of the store.
func (d *drawn) event() Event {
	switch e := d.entry(); d.IntN(8) {
	case 0:
		return Event{Revision: d.revision, Bad: &BadRecord{Key: e.Key, Revision: d.revision, Err: errors.New("bad")}}
	case 1, 2, 3:
		return Event{Revision: d.revision, Deleted: e.Key}
	default:
		return Event{Revision: d.revision, Put: e}
	}
}

func (d *drawn) snapshot() (s Snapshot) {
	byKey := map[string]Entry{}
	for range d.IntN(30) {
		e := d.entry()
		byKey[e.Key] = *e
	}
	for _, key := range slices.Sorted(maps.Keys(byKey)) {
		if d.IntN(10) == 0 {
			s.Bad = append(s.Bad, BadRecord{Key: key, Revision: d.revision, Err: errors.New("bad")})
		} else {
			e := byKey[key]
			s.Entries = append(s.Entries, &e)
		}
	}
	return s
}

// oracle is the table as it is told in words: everything is looked at anew at every question.
type oracle struct {
	living map[string]Entry
	stale  map[string]oracleStale
	bad    map[string]BadRecord
}

type oracleStale struct {
	Entry
	retention
}

func (o *oracle) put(e Entry) {
	delete(o.bad, e.Key)
	delete(o.stale, e.Key)
	o.living[e.Key] = e
}

func (o *oracle) remove(key string) {
	delete(o.living, key)
	delete(o.stale, key)
	delete(o.bad, key)
}

func (o *oracle) apply(ev Event, until time.Time) {
	switch {
	case ev.Put != nil:
		o.put(*ev.Put)
	case ev.Bad != nil:
		o.remove(ev.Bad.Key)
		o.bad[ev.Bad.Key] = *ev.Bad
	default:
		e, there := o.living[ev.Deleted]
		o.remove(ev.Deleted)
		if there {
			o.stale[e.Key] = oracleStale{e, retention{until, true}}
		}
	}
}

func (o *oracle) reset(s Snapshot, until time.Time) {
	lost := o.living
	o.living, o.bad = map[string]Entry{}, map[string]BadRecord{}
	for _, e := range s.Entries {
		o.put(*e)
	}
	for _, b := range s.Bad {
		o.bad[b.Key] = b
	}
	if until.IsZero() {
		clear(o.stale)
		return
	}
	for key, g := range o.stale {
		if g.deleted {
			o.stale[key] = oracleStale{g.Entry, retention{until: until}}
		}
	}
	for key, e := range lost {
		if _, there := o.living[key]; !there {
			o.stale[key] = oracleStale{e, retention{until: until}}
		}
	}
}

// prune drops the stale records that are due, and those whose identity or address a living record has; of the others
// the subnets that one has.
func (o *oracle) prune(now time.Time) {
	for key, g := range o.stale {
		gone := !now.Before(g.until)
		left := slices.Clone(g.Leases)
		for _, e := range o.living {
			gone = gone || g.Identity != "" && g.Identity == e.Identity
			for _, b := range e.Leases {
				gone = gone || slices.ContainsFunc(g.Leases, func(a Lease) bool { return a.PublicIP == b.PublicIP })
				left = slices.DeleteFunc(left, func(a Lease) bool { return a.Subnet == b.Subnet })
			}
		}
		if g.Leases = left; gone || len(left) == 0 {
			delete(o.stale, key)
		} else {
			o.stale[key] = g
		}
	}
}

func (o *oracle) kept() (n int) {
	for _, g := range o.stale {
		if !g.deleted {
			n++
		}
	}
	return n
}

// peers goes through all records by their age, the living first. Who comes first has a subnet.
func (o *oracle) peers(c Config, opt viewer, self []Lease) (peers []Lease, skipped map[string]string) {
	var order []Entry
	byAge := func(a, b Entry) int { return cmp.Or(cmp.Compare(a.Created, b.Created), cmp.Compare(a.Key, b.Key)) }
	order = slices.SortedFunc(maps.Values(o.living), byAge)
	var stale []Entry
	for _, g := range o.stale {
		stale = append(stale, g.Entry)
	}
	slices.SortFunc(stale, byAge)
	whys, seen := map[string][]string{}, map[netip.Prefix]string{}
	for key, b := range o.bad {
		whys[key] = []string{b.Err.Error()}
	}
	for i, e := range append(order, stale...) {
		if isOwn(&e, opt.identity, self) {
			continue
		}
		for _, l := range e.Leases {
			if _, ok := c.Pool(l.Subnet); !ok && (len(e.Leases) > 1 || i >= len(order)) {
				continue
			}
			err := validate(c, l, self)
			if err == nil {
				err = opt.valid(l)
			}
			if first, ok := seen[l.Subnet]; ok && err == nil {
				err = fmt.Errorf("the subnet %s is held by the older record %s", l.Subnet, first)
			}
			if err != nil {
				whys[e.Key] = append(whys[e.Key], err.Error())
				continue
			}
			seen[l.Subnet] = e.Key
			peers = append(peers, l)
		}
	}
	slices.SortFunc(peers, func(a, b Lease) int { return comparePrefix(a.Subnet, b.Subnet) })
	skipped = map[string]string{}
	for key, all := range whys {
		slices.Sort(all)
		skipped[key] = strings.Join(slices.Compact(all), "; ")
	}
	return peers, skipped
}

// TestWhatIsKeptIsThatOfAllRecords changes a table at random, and compares what is kept up to date with what comes out
// when everything is looked at anew.
func TestWhatIsKeptIsThatOfAllRecords(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	for round := range 60 {
		d := &drawn{Rand: rand.New(rand.NewPCG(seed, uint64(round)))}
		if why := compareChosen(d); why != "" {
			t.Fatalf("round %d: %s", round, why)
		}
	}
}

func compareChosen(d *drawn) string {
	text := []string{
		`{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}`,
		`{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fd01::/48","Backend":{"Type":"vxlan"}}`,
	}[d.IntN(2)]
	c, err := ParseConfig([]byte(text))
	if err != nil {
		return err.Error()
	}
	opt := viewer{identity: "id1", valid: func(l Lease) error {
		if l.BackendData == "0" {
			return errors.New("no good data")
		}
		return nil
	}}
	var self []Lease
	table, want := newTable(), oracle{map[string]Entry{}, map[string]oracleStale{}, map[string]BadRecord{}}
	now, said, last := time.Unix(1000, 0), map[string]string{}, Peers{}
	for step := range 400 {
		now = now.Add(time.Duration(d.IntN(5)) * time.Second)
		switch d.IntN(30) {
		case 0:
			s, until := d.snapshot(), now.Add(20*time.Second)
			if d.IntN(3) == 0 {
				until = time.Time{}
			}
			table.reset(s, until)
			want.reset(s, until)
		case 1:
			self = d.record().Leases
		default:
			ev := d.event()
			table.apply(ev, retention{now.Add(10 * time.Second), true})
			want.apply(ev, now.Add(10*time.Second))
		}
		table.prune(now)
		want.prune(now)
		if d.IntN(3) == 0 {
			continue // several changes before somebody looks
		}
		if !table.selection.fits(c, self) {
			table.selection = newSelection(table, c, self, opt, said)
		}
		p := table.selection
		p.reasons()
		said = p.skipped
		peers, skipped := want.peers(c, opt, self)
		next := Peers{p.peers.Freeze()}
		switch got := slices.Collect(next.All()); {
		case !slices.Equal(got, peers):
			return fmt.Sprintf("step %d: peers\n%v, want\n%v", step, got, peers)
		case !maps.Equal(p.skipped, skipped):
			return fmt.Sprintf("step %d: skipped\n%v, want\n%v", step, p.skipped, skipped)
		case table.kept != want.kept():
			return fmt.Sprintf("step %d: %d stale, want %d", step, table.kept, want.kept())
		}
		if !next.Same(Peers{p.peers.Freeze()}) || last.Same(next) && !slices.Equal(slices.Collect(last.All()), peers) {
			return fmt.Sprintf("step %d: sets that are the same differ, or the other way round", step)
		}
		if why := follow(last, next); why != "" {
			return fmt.Sprintf("step %d: %s", step, why)
		}
		last = next
	}
	return ""
}

// follow says whether the changes from one set to the next lead there.
func follow(last, next Peers) string {
	made := map[netip.Prefix]Lease{}
	for l := range last.All() {
		made[l.Subnet] = l
	}
	for from, to := range PeerChanges(last, next) {
		if from != nil {
			if made[from.Subnet] != *from {
				return fmt.Sprintf("%v was not there", *from)
			}
			delete(made, from.Subnet)
		}
		if to != nil {
			made[to.Subnet] = *to
		}
	}
	want := map[netip.Prefix]Lease{}
	for l := range next.All() {
		want[l.Subnet] = l
	}
	if !maps.Equal(made, want) {
		return fmt.Sprintf("the changes lead to %v, want %v", made, want)
	}
	return ""
}
