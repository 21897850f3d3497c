package keeper

import (
	"fmt"
	"log/slog"
	"net/netip"
	"strings"

	"flanneld/subnet"
)

// cidrs writes the subnets of one record.
func cidrs(subnets []netip.Prefix) string {
	text := make([]string, len(subnets))
	for i, p := range subnets {
		text[i] = p.String()
	}
	return strings.Join(text, ",")
}

// logAction logs what an action is for.
func (k *Keeper) logAction(a Action) {
	switch {
	case a.Why == "":
	case a.Do == Update && a.Record.Key() != a.Entry.Key:
		k.log.Info(a.Why, "old", cidrs(a.Entry.Prefixes()), "new", cidrs(a.Record.Prefixes()))
	default:
		k.log.Info(a.Why, "key", a.Entry.Key, "host", a.Entry.Host)
	}
}

// claimText says what we wait for after our claim to a record.
func (f *facts) claimText(c claim, e subnet.Entry) (why string, level slog.Level) {
	const conflict = "public IP conflict: the running host %s has the public IP of this host; " +
		"give one of them another address (-iface, -public-ip)"
	const changed = "found this host's record with another host name or address, %s: " +
		"checking that no other host uses it"
	const lostState = "found this host's record, %s, with an old identity (new state folder): " +
		"checking that no other daemon uses it"
	text, level := "checking whether %s, whose record has this host's address, still runs", slog.LevelInfo
	switch rel := f.relation(e.Record); {
	case c.refused || c.again:
		text, level = conflict, slog.LevelWarn
	case rel == OursRenamed || rel == OursChanged:
		text = changed
	case rel == SameMachine:
		text = lostState
	}
	return fmt.Sprintf(text, e.Record), level
}

// String says what was lost, and to whom.
func (l loss) String() string { return fmt.Sprintf("subnet %s was taken by %s", l.subnet, l.holder) }

// inTheWayText says that a claim of another host delays ours.
func inTheWayText(other, e subnet.Entry) string {
	who := "an invalid record"
	if len(other.Leases) > 0 {
		who = other.Record.String()
	}
	return fmt.Sprintf("waiting for the end of the claim that %s has to the record of %s", who, e.Record)
}
