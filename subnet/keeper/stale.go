package keeper

import (
	"slices"
	"time"

	"flanneld/subnet"
)

// extendGrace begins the time anew for which peers that a list has lost are kept, because one of them has come back:
// others may still be waiting for a store that has much to do. It does so now and then only, because it looks at all
// of them.
func (k *Keeper) extendGrace(now time.Time) {
	if now.Sub(k.graced) > k.o.PeerGrace/4 {
		k.graced = now
		k.facts.records.ExtendLost(now.Add(k.o.PeerGrace))
	}
}

// prune drops stale peers whose time is up, and says so. A deleted record frees its subnet only then.
func (k *Keeper) prune() {
	k.mu.Lock()
	lost, deleted := k.facts.records.Prune(time.Now())
	waits := k.held == nil || !k.status.Held
	k.mu.Unlock()
	if lost > 0 {
		k.log.Info("stale peers removed: the store has no record of them", "count", lost)
	}
	if lost+deleted > 0 {
		if waits {
			k.decideAt = time.Now()
		}
		k.changed.Set()
	}
}

// logSkipped logs each skipped record once for each reason.
func (k *Keeper) logSkipped() {
	k.mu.Lock()
	reasons := k.facts.records.Reasons(k.facts.config, k.facts.inUse)
	k.mu.Unlock()
	for _, key := range sortedKeys(reasons) {
		if reasons[key] != "" {
			k.log.Warn("record skipped", "key", key, "reason", reasons[key])
		}
	}
}

// recentClaim is a claim of another host that was told a moment ago. It may be answered, and gone, before anybody
// decides by it.
type recentClaim struct {
	subnet.Entry
	at time.Time
}

// hearClaims takes in claims of other hosts, and forgets those that their hosts would have repeated since.
func (f *facts) hearClaims(now time.Time, claims ...subnet.Entry) {
	f.recent = slices.DeleteFunc(f.recent, func(c recentClaim) bool { return now.Sub(c.at) > claimAgain+claimTTL })
	for _, c := range claims {
		f.recent = slices.DeleteFunc(f.recent, func(old recentClaim) bool {
			return old.Identity == c.Identity && old.Host == c.Host && old.Key == c.Key
		})
		if f.recent = append(f.recent, recentClaim{c, now}); len(f.recent) > maxRecent {
			f.recent = slices.Delete(f.recent, 0, 1)
		}
	}
}

// maxRecent bounds the claims that are remembered: a host asks for few records.
const maxRecent = 4 * maxContested

// missed is what happened in the store after a break of the watch and before the watch went on, by revisions.
type missed struct {
	after, until int64
	stopped      bool // this host did not run meanwhile, and as far as is known its own record has outlived that
}

// lost reports whether an event is the end of a record that stood when the watch broke. The store may have been away
// from all hosts for so long that their store leases ended, so its host may well live.
func (m missed) lost(ev subnet.Event, records *subnet.PeerTable) bool {
	e := records.At(ev.Deleted)
	return e != nil && e.Revision <= m.after && ev.Revision <= m.until
}
