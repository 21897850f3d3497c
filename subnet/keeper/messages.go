package keeper

import (
	"fmt"
	"strings"

	"flanneld/subnet"
)

// logAction logs what an action is for.
func (k *Keeper) logAction(a Action) {
	name := strings.TrimPrefix(a.Entry.Key, subnet.SubnetsFolder)
	switch {
	case a.Why == "":
	case a.Do == Update && a.Record.Key() != a.Entry.Key:
		k.log.Info(a.Why, "old", name, "new", subnet.Key(a.Record.Prefixes()))
	default:
		k.log.Info(a.Why, "key", a.Entry.Key, "host", a.Entry.Host)
	}
}

// conflictText says that the owner of a record with our address runs.
func conflictText(e subnet.Entry) string {
	const text = "public IP conflict: the running host %s has the public IP of this host; give one of them another address (-iface, -public-ip)"
	return fmt.Sprintf(text, e.Record)
}

// question says what a claim to a record is for.
func (f *facts) question(e subnet.Entry) string {
	switch f.relation(e.Record) {
	case OursRenamed, OursChanged:
		const text = "found this host's record with another host name or address, %s: checking that no other host uses it"
		return fmt.Sprintf(text, e.Record)
	case SameMachine:
		const text = "found this host's record, %s, with an old identity (new state folder): checking that no other daemon uses it"
		return fmt.Sprintf(text, e.Record)
	}
	return fmt.Sprintf("checking whether %s, whose record has this host's address, still runs", e.Record)
}

// inTheWayText says that a claim of another host delays ours.
func inTheWayText(other, e subnet.Entry) string {
	who := "an invalid record"
	if len(other.Leases) > 0 {
		who = other.Record.String()
	}
	return fmt.Sprintf("waiting for the end of the claim that %s has to the record of %s", who, e.Record)
}
