package keeper

import (
	"log/slog"
	"maps"
	"slices"
	"time"

	"flanneld/subnet"
)

// claim is our question whether the owner of a record lives.
type claim struct {
	target int64        // revision of the record in question
	entry  subnet.Entry // as it stands in the store
	expiry time.Time    // of its own store lease
	// until is when silence counts as consent; of a claim that is refused, when to ask again.
	until   time.Time
	refused bool
	again   bool // an earlier one was refused
}

const (
	claimTTL   = 30 * time.Second
	claimAgain = time.Minute // between a refusal and the next claim
)

// answer notes that a claim does not stand any more. One that may have expired was not refused.
func (c claim) answer(now time.Time) claim {
	if now.Before(c.expiry) {
		c.refused, c.until = true, now.Add(claimAgain)
	}
	return c
}

// consents reports whether the owners of our record and of others have not answered a claim to it, as far as there
// may be one. If not, it says what to do: all are asked at the same time. An owner may come back until the moment of
// the write, and a watch that lags does not show it: what is written then goes by the claims.
func (f *facts) consents(own *subnet.Entry, others []subnet.Entry, now time.Time) (Action, bool) {
	if own != nil && f.relation(own.Record).silence() > 0 {
		others = append([]subnet.Entry{*own}, others...)
	}
	// After a refusal nothing can be written for long. What others need, perhaps to leave our address, is given back.
	if refused := slices.DeleteFunc(slices.Clone(others),
		func(e subnet.Entry) bool { return !f.refused(e, now) }); len(refused) > 0 {
		for _, e := range others {
			for _, c := range f.consent(e) {
				return Action{Do: Delete, Entry: c}, false
			}
		}
		others = refused
	}
	wait, ok := Action{}, true
	for _, e := range others {
		a, silent := f.ask(e, now)
		switch {
		case silent:
		case a.Do != Wait:
			return a, false
		case ok || a.Level > wait.Level:
			wait, ok = a, false
		}
	}
	return wait, ok
}

// refused reports whether the owner of a record has refused our claim to it, and is not to be asked again yet.
func (f *facts) refused(e subnet.Entry, now time.Time) bool {
	c := f.claims[e.Key]
	return c.refused && c.target == e.Revision && now.Before(c.until)
}

// ask returns what to do to learn whether the owner of a record lives; true: it has not answered our claim.
func (f *facts) ask(e subnet.Entry, now time.Time) (Action, bool) {
	c, asked := f.claims[e.Key]
	switch stands := c.refused || now.Before(c.expiry); {
	case !asked || c.target != e.Revision:
	case c.refused && e.Identity == f.identity:
		return Action{Do: Fail, Err: ErrCloned, Level: slog.LevelError, Why: e.Record.String()}, false
	case stands && now.Before(c.until):
		why, level := f.claimText(c, e)
		return Action{Do: Wait, Until: c.until, Level: level, Why: why}, false
	case stands && !c.refused:
		return Action{}, true
	}
	question := f.claim(e.Record)
	if other, why := f.claimInTheWay(question); why != "" {
		return Action{Do: Delete, Entry: other, Why: why}, false
	} else if other.Key != "" {
		return Action{Do: Wait, Until: now.Add(claimWait), Level: slog.LevelWarn, Why: inTheWayText(other, e)}, false
	}
	return Action{Do: Claim, Entry: e, Record: question}, false
}

// claimInTheWay returns what stands at the key of a claim of ours, if it is something else. It also says why that may
// be deleted; empty: it may not, but it goes with its store lease.
func (f *facts) claimInTheWay(question subnet.Record) (other subnet.Entry, why string) {
	other, there := f.records.Claims()[question.Key()]
	if bad, invalid := f.records.Bad()[question.Key()]; invalid {
		other, there = subnet.Entry{Record: subnet.Record{Claim: true}, Key: bad.Key, Revision: bad.Revision,
			LeaseID: bad.LeaseID}, true
	}
	at, _ := f.addresses(other.Record)
	switch {
	case !there || other.Equal(question):
		return subnet.Entry{}, ""
	case other.LeaseID == 0:
		return other, "deleting a claim that would never expire"
	case at && other.Host == f.name:
		return other, "deleting a claim of this host's last run"
	}
	return other, ""
}

// consent returns the claim to a record that nobody has answered, if there is one.
func (f *facts) consent(e subnet.Entry) []subnet.Entry {
	if c, ok := f.claims[e.Key]; ok && c.target == e.Revision && !c.refused {
		return []subnet.Entry{c.entry}
	}
	return nil
}

// claimOnUs returns a claim of another to the record that we keep, or to one that this host has written and that stands
// while it waits: whoever looks for its place in the store lives.
func (f *facts) claimOnUs(a Action) (subnet.Entry, bool) {
	for _, key := range sortedKeys(f.records.Claims()) {
		c := f.records.Claims()[key]
		target := f.records.At(subnet.Record{Leases: c.Leases}.Key())
		switch {
		case target == nil || f.ownClaim(c):
		case a.Do == Keep && a.Entry.Key == target.Key:
			return c, true
		case a.Do == Wait && slices.Contains([]Relation{Ours, OursChanged}, f.relation(target.Record)):
			return c, true
		}
	}
	return subnet.Entry{}, false
}

// ownClaim reports whether this host made a claim. It claims its own record if somebody else has edited that. A clone
// has another address or another host name.
func (f *facts) ownClaim(e subnet.Entry) bool {
	for _, c := range f.claims {
		if c.entry.Key == e.Key && c.entry.LeaseID == e.LeaseID {
			return true
		}
	}
	at, _ := f.addresses(e.Record)
	return e.Identity == f.identity && e.Host == f.name && at
}

func sortedKeys[V any](m map[string]V) []string {
	if len(m) == 0 {
		return nil // most often, and it costs nothing
	}
	return slices.Sorted(maps.Keys(m))
}
