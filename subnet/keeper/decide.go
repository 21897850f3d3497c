package keeper

import (
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"flanneld/subnet"
)

// Verb is the kind of an action.
type Verb int

// The verbs. The first four ask nothing of the store.
const (
	Keep    Verb = iota // the record stands as it should: nothing to do
	Wait                // until a time or an event, for the reason that is given
	Abandon             // stop using the subnets in use, which another host has
	Fail                // end
	Grant               // ask for a store lease
	Renew               // renew a store lease
	Create              // write a record where nothing stands
	Update              // change a record of this host, or replace it by one with another key
	Delete              // delete a record or a claim
	Claim               // ask the owner of a record whether it lives
)

// Action is what a decision says to do. One action is at most one write.
type Action struct {
	Do     Verb
	Entry  subnet.Entry   // what stands there: of Renew, Update, Delete and Claim
	Record subnet.Record  // to write
	Lease  subnet.LeaseID // for the record; to renew
	Spent  []subnet.Entry // claims that the write needs to stand, and deletes
	Until  time.Time      // of Wait: decide again then; zero: after the next event
	Why    string         // for people
	Level  slog.Level     // of Why in the log
	Held   *subnet.Entry  // the own record, if it stands as it should
	Lost   *loss          // another host has one of the subnets in use; nil: none has
	Refuse bool           // the claim to delete is another host's, to our record
	Err    error          // of Fail
}

// decide says what to do next. It is pure: the same facts and time give the same action.
func decide(f *facts, now time.Time) Action {
	a := f.settle(now)
	if a.Do != Keep && a.Do != Wait {
		return a
	}
	// At rest, and not before: a host that is asked for an address which it has left must say so in its record first.
	if c, ok := f.claimOnUs(a.Held); ok {
		return Action{Do: Delete, Entry: c, Refuse: true, Held: a.Held, Lost: a.Lost}
	}
	return a
}

func (f *facts) settle(now time.Time) Action {
	s := f.survey()
	if s.own != nil {
		return f.confirm(s, now)
	}
	return f.acquire(s, now)
}

// confirm has our record say what we publish, and expire when we do.
func (f *facts) confirm(s survey, now time.Time) Action {
	own := *s.own
	claimed := f.relation(own.Record).silence() > 0
	if a, ok := f.alive(own, claimed, now); !ok {
		return a
	}
	var ask, contested []subnet.Entry
	if claimed {
		ask = append(ask, own)
	}
	if f.moved(own.Record) {
		contested = f.others(s.contested, own.Key)
		contested = contested[:min(len(contested), maxAsked)]
		ask = append(ask, contested...)
	}
	if a, ok := f.consents(ask, now); !ok {
		return a
	}
	for _, e := range contested {
		if e.LeaseID != 0 {
			return f.remove(e, "deleting the record of a host that had this address and is gone")
		}
	}
	id, a, ok := f.leaseFor(own, claimed, now)
	if !ok {
		return a
	}
	if want := f.publish(own.Leases); !own.Equal(want) || id != own.LeaseID {
		return Action{Do: Update, Entry: own, Record: want, Lease: id, Spent: f.consent(own)}
	}
	return f.tidy(s, now)
}

// tidy deletes what this host has no use for any more once its record stands as it should: claims, and other records that
// it has written.
func (f *facts) tidy(s survey, now time.Time) Action {
	a := Action{Do: Keep, Held: s.own}
	if s.rival != nil {
		l := loss{shared(s.own, s.rival), s.rival.Record.String()}
		a.Do, a.Lost, a.Why, a.Level = Wait, &l, l.String(), slog.LevelError
	}
	for _, key := range sortedKeys(f.claims) {
		if c := f.claims[key]; !c.refused && now.Before(c.expiry) {
			return Action{Do: Delete, Entry: c.entry, Held: a.Held, Lost: a.Lost}
		}
	}
	for _, e := range f.others(s.leftovers, s.own.Key) {
		d := f.remove(e, "deleting an old record of this host")
		d.Held, d.Lost = a.Held, a.Lost
		return d
	}
	return a
}

// acquire gets a record: that of a host which had our address and is gone, one that replaces an outdated record of ours,
// or a new one.
func (f *facts) acquire(s survey, now time.Time) Action {
	if l := f.takenBy(s); l != nil {
		return f.lost(l)
	}
	ask, claimed := s.contested[:min(len(s.contested), maxAsked)], false
	contested := ask
	if s.outdated != nil {
		claimed = f.relation(s.outdated.Record).silence() > 0
		if a, ok := f.alive(*s.outdated, claimed, now); !ok {
			return a
		}
		contested = f.others(contested, s.outdated.Key)
		if ask = contested; claimed {
			ask = append([]subnet.Entry{*s.outdated}, contested...)
		}
	}
	if a, ok := f.consents(ask, now); !ok {
		return a
	}
	if e := f.inheritable(contested); e != nil {
		return f.takeOver(*e, now)
	}
	for _, e := range contested {
		if e.LeaseID != 0 {
			return f.remove(e, "deleting the record of a host that had this address and is gone")
		}
	}
	prefixes, full := f.choose(s.outdated)
	if full != "" {
		return Action{Do: Wait, Why: full, Level: slog.LevelWarn}
	}
	return f.replace(s, prefixes, claimed, now)
}

// replace writes a record for the chosen subnets, in the place of an outdated one if there is one.
func (f *facts) replace(s survey, chosen []subnet.Lease, claimed bool, now time.Time) Action {
	want, old := f.publish(chosen), subnet.Entry{LeaseID: f.lease.id}
	if s.outdated != nil {
		old = *s.outdated
	}
	for _, e := range f.others(s.leftovers, old.Key) {
		if shared(&e, &subnet.Entry{Record: want}).IsValid() {
			return f.remove(e, "deleting an old record of this host")
		}
	}
	if s.outdated == nil {
		if !f.lease.fresh(now) {
			return Action{Do: Grant}
		}
		return Action{Do: Create, Record: want, Lease: f.lease.id}
	}
	id, a, ok := f.leaseFor(old, claimed, now)
	if !ok {
		return a
	}
	return Action{Do: Update, Entry: old, Record: want, Lease: id, Spent: f.consent(old), Why: "own record replaced"}
}

// maxAsked is how many other owners of our address are asked before it is used. Each costs two requests, and more than a
// few records with one address are junk.
const maxAsked = 8

// inheritable returns the record of a host that had our address which can be ours as it is.
func (f *facts) inheritable(contested []subnet.Entry) *subnet.Entry {
	reserved := f.reserve()
	i := slices.IndexFunc(contested, func(e subnet.Entry) bool {
		return len(f.inUse) == 0 && f.fits(e.Record, reserved) && f.rival(&e, reserved) == nil
	})
	if i < 0 {
		return nil
	}
	return &contested[i]
}

// takeOver makes the record of a host that had our address, and has not answered, ours.
func (f *facts) takeOver(e subnet.Entry, now time.Time) Action {
	id, a, ok := f.leaseFor(e, true, now)
	if !ok {
		return a
	}
	why := "taking over the record of a host that had this address and is gone"
	if f.relation(e.Record) != OurAddress {
		why = "taking over the record of this host's last run"
	}
	return Action{Do: Update, Entry: e, Record: f.publish(e.Leases), Lease: id, Spent: f.consent(e), Why: why}
}

// lost says what follows from the loss of the subnets in use, by the policy.
func (f *facts) lost(l *loss) Action {
	a := Action{Do: Abandon, Lost: l, Why: l.String(), Level: slog.LevelError}
	switch f.policy {
	case subnet.LostExit:
		a.Do, a.Err = Fail, fmt.Errorf("%w: %s", ErrLost, l)
	case subnet.LostHold:
		a.Do = Wait
	}
	return a
}

// loss is a subnet that this host uses and a record of another owner has.
type loss struct {
	subnet netip.Prefix
	holder string
}

func (l loss) String() string { return fmt.Sprintf("subnet %s was taken by %s", l.subnet, l.holder) }

// alive renews the store lease of a record of ours if that is due: it must not expire while others are asked. A lease that
// another process may be keeping alive is left alone.
func (f *facts) alive(own subnet.Entry, claimed bool, now time.Time) (Action, bool) {
	switch {
	case claimed, own.LeaseID == 0, own.LeaseID == f.expired, own.LeaseID == f.lease.id && f.lease.fresh(now):
		return Action{}, true
	}
	return Action{Do: Renew, Entry: own, Lease: own.LeaseID}, false
}

// leaseFor returns the store lease for a record that we take: none for a reservation; that of the record, unless it has
// expired or was not ours, so that one host's life never hangs on another's.
func (f *facts) leaseFor(e subnet.Entry, claimed bool, now time.Time) (subnet.LeaseID, Action, bool) {
	switch {
	case e.LeaseID == 0, !claimed && e.LeaseID != f.expired:
		return e.LeaseID, Action{}, true
	case f.lease.fresh(now):
		return f.lease.id, Action{}, true
	}
	return 0, Action{Do: Grant}, false
}

// remove deletes a record, by our claim to it if there is one.
func (f *facts) remove(e subnet.Entry, why string) Action {
	return Action{Do: Delete, Entry: e, Spent: f.consent(e), Why: why}
}

// others returns the records but that at a key.
func (f *facts) others(records []subnet.Entry, key string) []subnet.Entry {
	return slices.DeleteFunc(slices.Clone(records), func(e subnet.Entry) bool { return e.Key == key })
}
