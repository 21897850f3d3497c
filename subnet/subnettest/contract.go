package subnettest

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"flanneld/subnet"
)

// Subject is a store with no record and no configuration, and what an operator can do to it.
type Subject struct {
	Store     subnet.Store
	SetConfig func(text []byte) // nil: deletes it
	PutBad    func(key string)  // writes a value that makes no sense; the key is one below PREFIX
	Remove    func(key string)
	Compact   func()
}

// Contract tests everything that the comments of subnet.Store promise.
func Contract(t *testing.T, newSubject func(t *testing.T) Subject) {
	cases := []struct {
		name string
		test func(c contract)
	}{
		{"a created record is listed as it was written", contract.create},
		{"a record is created only where nothing stands", contract.createConflict},
		{"a key that starts with the same IPv4 subnet is in the way", contract.createDualStack},
		{"a key that only begins like that of a host is not in the way", contract.createBesideJunk},
		{"a record that makes no sense is in the way", contract.createOverRubbish},
		{"a claim that makes no sense is in the way and can be deleted", contract.claimOverRubbish},
		{"a claim stands beside the record", contract.claims},
		{"a write by a claim needs the claim", contract.byClaim},
		{"one record replaces two", contract.join},
		{"a record is changed only if it is unchanged", contract.update},
		{"a record is deleted only if it is unchanged", contract.remove},
		{"a record without a store lease keeps none", contract.reservation},
		{"a store lease is renewed, and its end takes the record along", contract.expiry},
		{"a write with a store lease that is gone does nothing", contract.goneLease},
		{"a list holds configuration, records, claims and rubbish", contract.list},
		{"a watch tells all changes after a position in order", contract.watch},
		{"a watch tells what was seen before, if it is asked to", contract.watchAgain},
		{"a watch ends with its context", contract.watchEnds},
		{"a watch from a position that the store cannot continue ends with ErrHistory", contract.watchHistory},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			c.test(contract{t, newSubject(t)})
		})
	}
}

// contract is one test of it.
type contract struct {
	*testing.T
	Subject
}

func (c contract) context() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	c.Cleanup(cancel)
	return ctx
}

// sample returns the record of a host.
func sample(host, publicIP string, prefixes ...string) subnet.Record {
	r := subnet.Record{Identity: "id-" + host, Host: host}
	for _, p := range prefixes {
		l := subnet.Lease{Subnet: netip.MustParsePrefix(p)}
		l.PublicIP, l.BackendType, l.BackendData = netip.MustParseAddr(publicIP), "vxlan", `{"VNI":1}`
		if l.Subnet.Addr().Is6() {
			l.PublicIP = netip.MustParseAddr("2001:db8::1")
		}
		r.Leases = append(r.Leases, l)
	}
	return r
}

func (c contract) grant(ttl time.Duration) subnet.LeaseID {
	c.Helper()
	id, err := c.Store.Grant(c.context(), ttl)
	if err != nil || id == 0 {
		c.Fatalf("grant: id %d, %v", id, err)
	}
	return id
}

func (c contract) must(e subnet.Entry, err error) subnet.Entry {
	c.Helper()
	if err != nil {
		c.Fatal(err)
	}
	return e
}

func (c contract) snapshot() subnet.Snapshot {
	c.Helper()
	s, err := c.Store.List(c.context())
	if err != nil {
		c.Fatal(err)
	}
	return s
}

// wantConflict checks that a write failed because of what stands there; want nil: nothing.
func (c contract) wantConflict(err error, want *subnet.Entry) {
	c.Helper()
	conflict := (*subnet.ConflictError)(nil)
	if !errors.As(err, &conflict) {
		c.Fatalf("got %v, want a conflict", err)
	}
	switch got := conflict.Current; {
	case want == nil && got != nil:
		c.Errorf("conflict with %+v, want with nothing", *got)
	case want != nil && (got == nil || !sameEntry(*got, *want) || conflict.Key != want.Key):
		c.Errorf("conflict %+v with %+v, want with %+v", conflict, got, *want)
	}
}

// wantEntries checks all records.
func (c contract) wantEntries(want ...subnet.Entry) {
	c.Helper()
	same := func(a *subnet.Entry, b subnet.Entry) bool { return sameEntry(*a, b) }
	if got := c.snapshot().Entries; !slices.EqualFunc(got, want, same) {
		c.Errorf("records %+v, want %+v", got, want)
	}
}

func (c contract) create() {
	id := c.grant(time.Minute)
	before := c.snapshot()
	want := sample("a", "192.0.2.1", "10.5.1.0/24")
	e := c.must(c.Store.Create(c.context(), want, id))
	if !e.Record.Equal(want) || e.Key != "subnets/10.5.1.0-24" || e.LeaseID != id || e.Revision <= before.Revision ||
		e.Created != e.Revision {
		c.Errorf("entry %+v after revision %d", e, before.Revision)
	}
	c.wantEntries(e)
}

func (c contract) createConflict() {
	e := c.must(c.Store.Create(c.context(), sample("a", "192.0.2.1", "10.5.1.0/24"), c.grant(time.Minute)))
	_, err := c.Store.Create(c.context(), sample("b", "192.0.2.2", "10.5.1.0/24"), c.grant(time.Minute))
	c.wantConflict(err, &e)
	c.wantEntries(e)
}

func (c contract) createDualStack() {
	id := c.grant(time.Minute)
	e := c.must(c.Store.Create(c.context(), sample("a", "192.0.2.1", "10.5.1.0/24", "fd00:5:0:1::/64"), id))
	for _, p := range [][]string{{"10.5.1.0/24"}, {"10.5.1.0/24", "fd00:5:0:2::/64"}} {
		_, err := c.Store.Create(c.context(), sample("b", "192.0.2.2", p...), id)
		c.wantConflict(err, &e)
	}
	c.must(c.Store.Create(c.context(), sample("b", "192.0.2.2", "10.5.2.0/24", "fd00:5:0:2::/64"), id))
}

func (c contract) createOverRubbish() {
	c.PutBad("subnets/10.5.1.0-24")
	_, err := c.Store.Create(c.context(), sample("a", "192.0.2.1", "10.5.1.0/24"), c.grant(time.Minute))
	c.wantConflict(err, nil)
	if conflict := (*subnet.ConflictError)(nil); !errors.As(err, &conflict) || conflict.Bad == nil ||
		conflict.Bad.Key != "subnets/10.5.1.0-24" {
		c.Errorf("got %+v, want a conflict with the rubbish", err)
	}
}

func (c contract) update() {
	id := c.grant(time.Minute)
	e := c.must(c.Store.Create(c.context(), sample("a", "192.0.2.1", "10.5.1.0/24"), id))
	moved := sample("a", "192.0.2.9", "10.5.1.0/24")
	other := c.grant(time.Minute)
	next := c.must(c.Store.Update(c.context(), e, moved, other))
	if next.Revision <= e.Revision || next.Created != e.Created || next.LeaseID != other || !next.Record.Equal(moved) {
		c.Errorf("entry %+v after %+v", next, e)
	}
	_, err := c.Store.Update(c.context(), e, e.Record, id)
	c.wantConflict(err, &next)
	strange := next
	strange.LeaseID = id
	_, err = c.Store.Update(c.context(), strange, e.Record, id)
	c.wantConflict(err, &next)
	c.wantEntries(next)
	c.Remove(next.Key)
	_, err = c.Store.Update(c.context(), next, moved, other)
	c.wantConflict(err, nil)
	c.wantEntries()
}

func (c contract) remove() {
	id := c.grant(time.Minute)
	e := c.must(c.Store.Create(c.context(), sample("a", "192.0.2.1", "10.5.1.0/24"), id))
	next := c.must(c.Store.Update(c.context(), e, sample("a", "192.0.2.2", "10.5.1.0/24"), id))
	c.wantConflict(c.Store.Delete(c.context(), e), &next)
	c.wantEntries(next)
	for range 2 { // what is gone is gone
		if err := c.Store.Delete(c.context(), next); err != nil {
			c.Error(err)
		}
	}
	c.wantEntries()
	c.PutBad(e.Key)
	c.wantConflict(c.Store.Delete(c.context(), next), nil)
}

func (c contract) reservation() {
	e := c.must(c.Store.Create(c.context(), sample("a", "192.0.2.1", "10.5.1.0/24"), 0))
	if e.LeaseID != 0 {
		c.Errorf("entry %+v", e)
	}
	next := c.must(c.Store.Update(c.context(), e, sample("a", "192.0.2.2", "10.5.1.0/24"), 0))
	c.wantEntries(next)
	// One of another history may have the same revision, and no lease tells them apart.
	strange := next
	strange.Record, strange.Value = sample("b", "192.0.2.3", "10.5.1.0/24"), "something else"
	_, err := c.Store.Update(c.context(), strange, e.Record, 0)
	c.wantConflict(err, &next)
	c.wantConflict(c.Store.Delete(c.context(), strange), &next)
	c.wantEntries(next)
	if listed := c.snapshot().Entries[0]; listed.Value != next.Value {
		c.Errorf("listed as %q, written as %q", listed.Value, next.Value)
	}
}

func (c contract) expiry() {
	id := c.grant(2 * time.Second)
	e := c.must(c.Store.Create(c.context(), sample("a", "192.0.2.1", "10.5.1.0/24"), id))
	ttl, err := c.Store.KeepAlive(c.context(), id)
	if err != nil || ttl != 2*time.Second {
		c.Errorf("renewed for %s, %v", ttl, err)
	}
	c.wantEntries(e)
	c.until("the record expires", func() bool { return len(c.snapshot().Entries) == 0 })
	if _, err := c.Store.KeepAlive(c.context(), id); !errors.Is(err, subnet.ErrLeaseGone) {
		c.Errorf("got %v, want ErrLeaseGone", err)
	}
}

func (c contract) until(what string, f func() bool) {
	c.Helper()
	for deadline := time.Now().Add(15 * time.Second); !f(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			c.Fatalf("waited in vain: %s", what)
		}
	}
}

func (c contract) goneLease() {
	const gone = subnet.LeaseID(0x7eadbeef)
	_, err := c.Store.Create(c.context(), sample("a", "192.0.2.1", "10.5.1.0/24"), gone)
	if !errors.Is(err, subnet.ErrLeaseGone) {
		c.Errorf("create: got %v, want ErrLeaseGone", err)
	}
	e := c.must(c.Store.Create(c.context(), sample("a", "192.0.2.1", "10.5.1.0/24"), 0))
	if _, err = c.Store.Update(c.context(), e, e.Record, gone); !errors.Is(err, subnet.ErrLeaseGone) {
		c.Errorf("update: got %v, want ErrLeaseGone", err)
	}
	c.wantEntries(e)
}

func (c contract) list() {
	if s := c.snapshot(); s.Config != nil || s.Cluster == 0 || s.Revision == 0 {
		c.Errorf("empty store: %+v", s)
	}
	c.SetConfig([]byte(`{"Network":"10.5.0.0/16"}`))
	b := c.must(c.Store.Create(c.context(), sample("b", "192.0.2.2", "10.5.2.0/24"), 0))
	a := c.must(c.Store.Create(c.context(), sample("a", "192.0.2.1", "10.5.1.0/24"), 0))
	c.PutBad("subnets/10.5.3.0-24")
	s := c.snapshot()
	if string(s.Config) != `{"Network":"10.5.0.0/16"}` || len(s.Bad) != 1 || s.Bad[0].Key != "subnets/10.5.3.0-24" ||
		s.Bad[0].Err == nil {
		c.Errorf("snapshot %+v", s)
	}
	if s.Revision != s.Bad[0].Revision {
		c.Errorf("at revision %d, want that of the last change %d", s.Revision, s.Bad[0].Revision)
	}
	c.wantEntries(a, b)
}

// follower collects what a watch tells.
type follower struct {
	mu        sync.Mutex // guards all below
	confirmed bool
	at        int64 // the revision of the confirmation
	events    []subnet.Event
}

func (f *follower) take(events []subnet.Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, ev := range events {
		if ev.IsChange() {
			f.events = append(f.events, ev)
		} else {
			f.confirmed, f.at = true, ev.Revision
		}
	}
}

func (f *follower) seen() (confirmed bool, events []subnet.Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.confirmed, slices.Clone(f.events)
}

func (c contract) watch() {
	e := c.must(c.Store.Create(c.context(), sample("a", "192.0.2.1", "10.5.1.0/24"), 0))
	from := c.snapshot().Position
	next := c.must(c.Store.Update(c.context(), e, sample("a", "192.0.2.2", "10.5.1.0/24"), 0))
	ctx, stop := context.WithCancel(c.context())
	defer stop()
	f, ended := &follower{}, make(chan error, 1)
	go func() { ended <- c.Store.Watch(ctx, from, 0, f.take) }()
	c.until("the watch is confirmed", func() bool { ok, _ := f.seen(); return ok })
	c.SetConfig([]byte(`{}`))
	r := sample("b", "192.0.2.2", "10.5.1.0/24")
	r.Claim = true
	claim := c.must(c.Store.Create(c.context(), r, 0))
	c.PutBad("subnets/10.5.3.0-24")
	c.Remove(next.Key)
	c.SetConfig(nil)
	c.until("six events", func() bool { _, events := f.seen(); return len(events) >= 6 })
	stop()
	<-ended
	_, got := f.seen()
	last := from.Revision
	for i, ok := range []func(subnet.Event) bool{
		func(ev subnet.Event) bool { return ev.Put != nil && sameEntry(*ev.Put, next) },
		func(ev subnet.Event) bool { return ev.ConfigSet && string(ev.Config) == "{}" },
		func(ev subnet.Event) bool { return ev.Put != nil && sameEntry(*ev.Put, claim) },
		func(ev subnet.Event) bool { return ev.Bad != nil && ev.Bad.Key == "subnets/10.5.3.0-24" },
		func(ev subnet.Event) bool { return ev.Deleted == next.Key },
		func(ev subnet.Event) bool { return ev.ConfigSet && ev.Config == nil },
	} {
		if !ok(got[i]) || got[i].Revision <= last {
			c.Errorf("event %d: %+v", i, got[i])
		}
		last = got[i].Revision
	}
}

func (c contract) watchAgain() {
	first := c.must(c.Store.Create(c.context(), sample("a", "192.0.2.1", "10.5.1.0/24"), 0))
	next := c.must(c.Store.Update(c.context(), first, sample("a", "192.0.2.2", "10.5.1.0/24"), 0))
	c.Remove(next.Key)
	at := c.snapshot().Position
	ctx, stop := context.WithCancel(c.context())
	defer stop()
	f, ended := &follower{}, make(chan error, 1)
	go func() { ended <- c.Store.Watch(ctx, at, first.Revision, f.take) }()
	c.until("three events", func() bool { _, events := f.seen(); return len(events) == 3 })
	c.SetConfig([]byte(`{}`))
	c.until("a later one", func() bool { _, events := f.seen(); return len(events) == 4 })
	stop()
	<-ended
	f.mu.Lock()
	defer f.mu.Unlock()
	got := f.events
	if !sameEntry(*got[0].Put, first) || !sameEntry(*got[1].Put, next) || got[2].Deleted != next.Key || !got[3].ConfigSet {
		c.Errorf("got %+v", got)
	}
	if f.at < at.Revision || f.at >= got[3].Revision {
		c.Errorf("the watch was confirmed at revision %d, want %d", f.at, at.Revision)
	}
}

func (c contract) watchEnds() {
	ctx, stop := context.WithCancel(c.context())
	f, ended := &follower{}, make(chan error, 1)
	go func() { ended <- c.Store.Watch(ctx, c.snapshot().Position, 0, f.take) }()
	c.until("the watch is confirmed", func() bool { ok, _ := f.seen(); return ok })
	stop()
	if err := <-ended; err == nil {
		c.Error("the watch ended without an error")
	}
}

func (c contract) watchHistory() {
	old := c.snapshot().Position
	e := c.must(c.Store.Create(c.context(), sample("a", "192.0.2.1", "10.5.1.0/24"), 0))
	c.Remove(e.Key)
	now := c.snapshot().Position
	c.Compact()
	for name, at := range map[string]subnet.Position{
		"compacted":                  old,
		"beyond the store's history": {Cluster: now.Cluster, Revision: now.Revision + 1000},
		"of another store":           {Cluster: now.Cluster + 1, Revision: now.Revision},
	} {
		if err := c.Store.Watch(c.context(), at, 0, func([]subnet.Event) {}); !errors.Is(err, subnet.ErrHistory) {
			c.Errorf("%s: got %v, want ErrHistory", name, err)
		}
	}
}
