package keeper

import (
	"fmt"
	"log/slog"
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
	Entry  subnet.Entry   // what stands there: of Keep, Renew, Update, Delete and Claim
	Record subnet.Record  // to write
	Lease  subnet.LeaseID // for the record; to renew
	Spent  []subnet.Entry // claims that the write needs to stand, and deletes
	Until  time.Time      // of Wait: decide again then; zero: after the next event
	Why    string         // for people
	Level  slog.Level     // of Why in the log
	Lost   *loss          // why Wait, Abandon or Fail: another host has one of the subnets in use; nil: none has
	Refuse bool           // the claim to delete is another host's, to our record
	Err    error          // of Fail
}

// decide says what to do next. It is pure: the same facts and time give the same action.
func decide(f *facts, now time.Time) Action {
	a := f.settle(now)
	// Claims are answered at rest, and not before: a host that is asked for an address which it has left must say so in
	// its record first.
	if a.Do == Keep || a.Do == Wait {
		if c, ok := f.claimOnUs(a); ok {
			return Action{Do: Delete, Entry: c, Refuse: true}
		}
	}
	return a
}

// settle goes through what must hold, one after the other, and returns the action for the first that does not.
func (f *facts) settle(now time.Time) Action {
	s := f.survey()
	if s.own != nil && f.renewalDue(*s.own, now) {
		return Action{Do: Renew, Entry: *s.own, Lease: s.own.LeaseID}
	}
	if !s.stays {
		if l := f.findLoss(s.own); l != nil {
			return f.lost(l)
		}
	}
	contested := s.contested
	if s.stays && !f.moved(s.own.Record) {
		contested = nil // their owners were asked before our record got this address
	}
	if a, ok := f.consents(s.own, contested, now); !ok {
		return a
	}
	if !s.stays && len(f.inUse) == 0 {
		if i := slices.IndexFunc(contested, f.inheritable); i >= 0 {
			return f.takeOver(contested[i], now)
		}
	}
	for _, e := range contested {
		if e.LeaseID != 0 {
			return f.remove(e, "deleting the record of a host that had this address and is gone")
		}
	}
	if s.stays {
		return f.confirm(s, now)
	}
	return f.acquire(s, now)
}

// renewalDue reports whether the store lease of our record is to be renewed: it must not expire while others are
// asked. A lease that another process may be keeping alive is left alone.
func (f *facts) renewalDue(own subnet.Entry, now time.Time) bool {
	switch {
	case f.relation(own.Record).silence() > 0, own.LeaseID == 0, own.LeaseID == f.expired:
		return false
	}
	return own.LeaseID != f.lease.id || !f.lease.fresh(now)
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

// inheritable reports whether the record of a host that had our address can be ours as it is.
func (f *facts) inheritable(e subnet.Entry) bool { return f.fits(e.Record) && !f.hasOlderRival(&e) }

// takeOver makes the record of a host that had our address, and has not answered, ours.
func (f *facts) takeOver(e subnet.Entry, now time.Time) Action {
	why := "taking over the record of a host that had this address and is gone"
	if f.relation(e.Record) != OurAddress {
		why = "taking over the record of this host's last run"
	}
	return f.update(e, f.publish(e.Leases), why, now)
}

// confirm has our record say what we publish, and then deletes what this host has no use for any more: claims, and
// other records that it has written.
func (f *facts) confirm(s survey, now time.Time) Action {
	a := f.update(*s.own, f.publish(s.own.Leases), "", now)
	if a.Do == Grant || !s.own.Equal(a.Record) || a.Lease != s.own.LeaseID {
		return a
	}
	for _, key := range sortedKeys(f.claims) {
		if c := f.claims[key]; !c.refused && now.Before(c.expiry) {
			return Action{Do: Delete, Entry: c.entry}
		}
	}
	for _, e := range s.leftovers {
		return f.remove(e, "deleting an old record of this host")
	}
	return Action{Do: Keep, Entry: *s.own}
}

// acquire gets a new record, in the place of an outdated one if there is one.
func (f *facts) acquire(s survey, now time.Time) Action {
	chosen, full := f.choose(s.own)
	if full != "" {
		return Action{Do: Wait, Why: full, Level: slog.LevelWarn}
	}
	want := f.publish(chosen)
	for _, e := range s.leftovers {
		if slices.ContainsFunc(want.Leases, func(l subnet.Lease) bool { return slices.Contains(e.Prefixes(), l.Subnet) }) {
			return f.remove(e, "deleting an old record of this host")
		}
	}
	switch {
	case s.own != nil:
		return f.update(*s.own, want, "own record replaced", now)
	case !f.lease.fresh(now):
		return Action{Do: Grant}
	}
	return Action{Do: Create, Record: want, Lease: f.lease.id}
}

// update changes a record, on the store lease that it has: none for a reservation. If that has expired, or was not
// ours, it gets another one, so that one host's life never hangs on another's.
func (f *facts) update(e subnet.Entry, want subnet.Record, why string, now time.Time) Action {
	a := Action{Do: Update, Entry: e, Record: want, Lease: e.LeaseID, Spent: f.consent(e), Why: why}
	if e.LeaseID == 0 || e.LeaseID != f.expired && f.relation(e.Record).silence() == 0 {
		return a
	}
	if !f.lease.fresh(now) {
		return Action{Do: Grant}
	}
	a.Lease = f.lease.id
	return a
}

// remove deletes a record, by our claim to it if there is one.
func (f *facts) remove(e subnet.Entry, why string) Action {
	return Action{Do: Delete, Entry: e, Spent: f.consent(e), Why: why}
}
