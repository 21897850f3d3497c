package subnettest

import (
	"errors"
	"slices"
	"time"

	"flanneld/subnet"
)

func (c contract) claims() {
	id := c.grant(time.Minute)
	e := c.must(c.Store.Create(c.context(), sample("a", "192.0.2.1", "10.5.1.0/24"), id))
	r := sample("b", "192.0.2.2", "10.5.1.0/24")
	r.Claim = true
	claim := c.must(c.Store.Create(c.context(), r, id))
	if claim.Key != "claims/10.5.1.0-24" || !claim.Claim {
		c.Errorf("claim %+v", claim)
	}
	_, err := c.Store.Create(c.context(), r, id)
	c.wantConflict(err, &claim)
	c.wantEntries(e)
	if got := c.snapshot().Claims; len(got) != 1 || !sameEntry(got[0], claim) {
		c.Errorf("claims %+v", got)
	}
}

func (c contract) byClaim() {
	id := c.grant(time.Minute)
	e := c.must(c.Store.Create(c.context(), sample("a", "192.0.2.1", "10.5.1.0/24"), id))
	r := sample("b", "192.0.2.2", "10.5.1.0/24")
	question := r
	question.Claim = true
	ask := func() subnet.Entry { return c.must(c.Store.Create(c.context(), question, id)) }
	wantClaims := func(want ...subnet.Entry) {
		c.Helper()
		if got := c.snapshot().Claims; !slices.EqualFunc(got, want, sameEntry) {
			c.Errorf("claims %+v, want %+v", got, want)
		}
	}
	refused := ask()
	c.Remove(refused.Key)
	for _, now := range []*subnet.Entry{nil, {}} { // the claim is gone; there is another one
		if now != nil {
			*now = ask()
		}
		_, err := c.Store.Update(c.context(), e, r, id, refused)
		for _, err := range []error{err, c.Store.Delete(c.context(), e, refused)} {
			c.wantConflict(err, now)
			if conflict := (*subnet.ConflictError)(nil); errors.As(err, &conflict) && conflict.Key != refused.Key {
				c.Errorf("conflict at %s, want %s", conflict.Key, refused.Key)
			}
		}
		c.wantEntries(e)
	}
	claim := c.snapshot().Claims[0]
	stale := e
	stale.Revision--
	_, err := c.Store.Update(c.context(), stale, r, id, claim)
	c.wantConflict(err, &e)
	c.wantConflict(c.Store.Delete(c.context(), stale, claim), &e)
	wantClaims(claim)
	next := c.must(c.Store.Update(c.context(), e, r, id, claim))
	c.wantEntries(next)
	wantClaims()
	claim = ask()
	if err := c.Store.Delete(c.context(), next, claim); err != nil {
		c.Error(err)
	}
	c.wantEntries()
	wantClaims()
}

func (c contract) join() {
	id := c.grant(time.Minute)
	four := c.must(c.Store.Create(c.context(), sample("a", "192.0.2.1", "10.5.1.0/24"), id))
	six := c.must(c.Store.Create(c.context(), sample("a", "2001:db8::1", "fd00:5:0:1::/64"), id))
	whole := sample("a", "192.0.2.1", "10.5.1.0/24", "fd00:5:0:1::/64")
	at := func(key string) subnet.Entry {
		all := c.snapshot().Entries
		return *all[slices.IndexFunc(all, func(e *subnet.Entry) bool { return e.Key == key })]
	}
	_, err := c.Store.Update(c.context(), four, whole, id)
	c.wantConflict(err, &six)
	stale := six
	stale.Revision--
	four = at(four.Key) // a store may have written the whole and taken it back
	_, err = c.Store.Update(c.context(), four, whole, id, stale)
	c.wantConflict(err, &six)
	c.wantEntries(four, six)
	c.wantEntries(c.must(c.Store.Update(c.context(), four, whole, id, six)))
}

func (c contract) claimOverRubbish() {
	c.PutBad("claims/10.5.1.0-24")
	if s := c.snapshot(); len(s.Claims)+len(s.Bad) > 0 {
		c.Errorf("snapshot %+v", s)
	}
	r := sample("a", "192.0.2.1", "10.5.1.0/24")
	r.Claim = true
	_, err := c.Store.Create(c.context(), r, 0)
	conflict := (*subnet.ConflictError)(nil)
	if !errors.As(err, &conflict) || conflict.Bad == nil || conflict.Key != "claims/10.5.1.0-24" {
		c.Fatalf("got %v, want a conflict with the rubbish", err)
	}
	junk := subnet.Entry{Record: subnet.Record{Claim: true}, Key: conflict.Key, Revision: conflict.Bad.Revision,
		LeaseID: conflict.Bad.LeaseID}
	stale := junk
	stale.Revision--
	c.wantConflict(c.Store.Delete(c.context(), stale), nil)
	if err := c.Store.Delete(c.context(), junk); err != nil {
		c.Fatal(err)
	}
	c.must(c.Store.Create(c.context(), r, 0))
}

// createBesideJunk writes keys that are no records around those of a host. They must not be mistaken for records, nor
// hide one.
func (c contract) createBesideJunk() {
	id := c.grant(time.Minute)
	junk := []string{"10.5.1.0-24x", "10.5.1.0-24&", "10.5.1.0-24&!", "10.5.1.0-240", "10.5.1.0-24/x", "fd00:5:0:1::-64x"}
	for _, key := range junk {
		c.PutBad("subnets/" + key)
	}
	for _, prefixes := range [][]string{{"10.5.1.0/24"}, {"10.5.1.0/24", "fd00:5:0:1::/64"}, {"fd00:5:0:1::/64"}} {
		e := c.must(c.Store.Create(c.context(), sample("a", "192.0.2.1", prefixes...), id))
		c.wantEntries(e)
		for _, other := range [][]string{{"10.5.1.0/24"}, {"10.5.1.0/24", "fd00:5:0:1::/64"}, {"fd00:5:0:1::/64"}} {
			_, err := c.Store.Create(c.context(), sample("b", "192.0.2.2", other...), id)
			if len(other) == 2 || len(prefixes) == 2 || other[0] == prefixes[0] {
				c.wantConflict(err, &e)
				continue
			}
			all := c.snapshot().Entries
			i := slices.IndexFunc(all, func(e *subnet.Entry) bool { return e.Host == "b" })
			if err != nil || i < 0 {
				c.Fatalf("%v beside %v: %v", other, prefixes, err)
			}
			c.Remove(all[i].Key)
		}
		c.Remove(e.Key)
	}
	if got := len(c.snapshot().Bad); got != len(junk) {
		c.Errorf("%d keys that make no sense, want %d", got, len(junk))
	}
}

// sameEntry tells whether two entries say the same.
func sameEntry(a, b subnet.Entry) bool {
	return a.Key == b.Key && a.Revision == b.Revision && a.Created == b.Created && a.LeaseID == b.LeaseID &&
		a.Record.Equal(b.Record)
}
