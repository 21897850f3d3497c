package keeper

import (
	"fmt"
	"strings"

	"flanneld/subnet"
)

// said logs what an action is for.
func (k *Keeper) said(a Action) {
	name := strings.TrimPrefix(a.Entry.Key, subnet.SubnetsFolder)
	switch {
	case a.Why == "":
	case a.Do == Update && a.Record.Key() != a.Entry.Key:
		k.log.Info(a.Why, "old", name, "new", subnet.Key(a.Record.Prefixes()))
	default:
		k.log.Info(a.Why, "key", a.Entry.Key, "host", a.Entry.Host)
	}
}

// refusedText says that the owner of a record lives.
func refusedText(e subnet.Entry) string {
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

// inTheWayText says that a claim of another host delays ours.
func inTheWayText(other, e subnet.Entry) string {
	who := "an invalid record"
	if len(other.Leases) > 0 {
		who = other.Record.String()
	}
	return fmt.Sprintf("%s also claims the record of %s", who, e.Record)
}
