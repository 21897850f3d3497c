package keeper

import (
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
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

// block is a claim of another at the key where ours would be.
type block struct {
	entry subnet.Entry
	since time.Time // when it was first seen
	again time.Time // when to try again
}

// answer notes that a claim does not stand any more. One that may have expired was not refused.
func (c claim) answer(now time.Time) claim {
	if now.Before(c.expiry) {
		c.refused, c.until = true, now.Add(claimAgain)
	}
	return c
}

// consents reports whether no owner of these records has answered a claim to it. If not, it says what to do: all are asked
// at the same time. An owner may come back until the moment of the write, and a watch that lags does not show it: what is
// written then goes by the claims.
func (f *facts) consents(records []subnet.Entry, now time.Time) (Action, bool) {
	wait := Action{Do: Wait}
	for _, e := range records {
		a, ok := f.ask(e, now)
		switch {
		case ok:
		case a.Do != Wait:
			return a, false
		case wait.Why == "" || a.Level > wait.Level || a.Level == wait.Level && a.Until.After(wait.Until):
			a.Until = later(a.Until, wait.Until)
			wait = a
		default:
			wait.Until = later(a.Until, wait.Until)
		}
	}
	return wait, wait.Why == ""
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// ask returns what to do to learn whether the owner of a record lives; true: it has not answered our claim.
func (f *facts) ask(e subnet.Entry, now time.Time) (Action, bool) {
	c, asked := f.claims[e.Key]
	switch {
	case !asked || c.target != e.Revision:
	case c.refused && e.Identity == f.identity:
		return Action{Do: Fail, Err: ErrCloned, Level: slog.LevelError, Why: e.Record.String()}, false
	case c.refused && now.Before(c.until):
		return Action{Do: Wait, Until: c.until, Level: slog.LevelWarn, Why: f.refusedText(e)}, false
	case c.refused || !now.Before(c.expiry):
	case !now.Before(c.until):
		return Action{}, true
	case c.again:
		return Action{Do: Wait, Until: c.until, Level: slog.LevelWarn, Why: f.refusedText(e)}, false
	default:
		return Action{Do: Wait, Until: c.until, Level: slog.LevelInfo, Why: f.question(e)}, false
	}
	question := f.claim(e.Record)
	if b, ok := f.blocked[question.Key()]; ok {
		at, _ := f.addresses(b.entry.Record)
		switch {
		case b.entry.Host == f.name && at, !now.Before(b.since.Add(claimTTL)):
			return Action{Do: Delete, Entry: b.entry, Why: "deleting a stale claim"}, false
		case now.Before(b.again):
			return Action{Do: Wait, Until: b.again, Level: slog.LevelWarn, Why: blockText(b, e)}, false
		}
	}
	return Action{Do: Claim, Entry: e, Record: question}, false
}

// consent returns the claim to a record that nobody has answered, if there is one.
func (f *facts) consent(e subnet.Entry) []subnet.Entry {
	if c, ok := f.claims[e.Key]; ok && c.target == e.Revision && !c.refused {
		return []subnet.Entry{c.entry}
	}
	return nil
}

// claimOnUs returns a claim of another to the record that we hold, or to one that this host has written and that stands
// while it does not hold any: whoever looks for its place in the store lives.
func (f *facts) claimOnUs(held *subnet.Entry) (subnet.Entry, bool) {
	for _, key := range sortedKeys(f.records.Claims()) {
		c := f.records.Claims()[key]
		target := f.records.At(subnet.Record{Leases: c.Leases}.Key())
		switch {
		case target == nil || f.ownClaim(c):
		case held != nil && held.Key == target.Key:
			return c, true
		case held == nil && slices.Contains([]Relation{Ours, OursChanged}, f.relation(target.Record)):
			return c, true
		}
	}
	return subnet.Entry{}, false
}

// ownClaim reports whether this host made a claim. It claims its own record if somebody else has edited that. A clone has
// another address or another host name.
func (f *facts) ownClaim(e subnet.Entry) bool {
	for _, c := range f.claims {
		if c.entry.Key == e.Key && c.entry.LeaseID == e.LeaseID {
			return true
		}
	}
	at, _ := f.addresses(e.Record)
	return e.Identity == f.identity && e.Host == f.name && at
}

func (f *facts) refusedText(e subnet.Entry) string {
	const text = "the public IP of this host is that of the living host %s: give one of them another address (-iface, -public-ip)"
	return fmt.Sprintf(text, e.Record)
}

// question says what a claim to a record is for.
func (f *facts) question(e subnet.Entry) string {
	switch f.relation(e.Record) {
	case OursRenamed, OursChanged:
		const text = "found this host's record under another host name or address, %s: checking that no other host uses it"
		return fmt.Sprintf(text, e.Record)
	case SameMachine:
		const text = "found this host's record, %s, with an old identity (new state folder): checking that no other daemon uses it"
		return fmt.Sprintf(text, e.Record)
	}
	return fmt.Sprintf("asking whether %s, whose record this host would take over, is alive", e.Record)
}

func blockText(b block, e subnet.Entry) string {
	who := "an invalid record"
	if len(b.entry.Leases) > 0 {
		who = b.entry.Record.String()
	}
	return fmt.Sprintf("%s also claims the record of %s", who, e.Record)
}

// shared returns a subnet that both records have; the zero value: none.
func shared(a, b *subnet.Entry) netip.Prefix {
	for _, p := range a.Prefixes() {
		if slices.Contains(b.Prefixes(), p) {
			return p
		}
	}
	return netip.Prefix{}
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
