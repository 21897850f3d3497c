package keeper

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"flanneld/subnet"
)

// note takes in what a decision says of our lease, and says what a person must know, once each.
func (k *Keeper) note(a Action) {
	switch {
	case a.Do == Keep:
		k.hold(a.Entry)
	case a.Do == Fail && a.Lost == nil:
		k.log.Error("identity conflict: another running host has the identity of this host, probably a cloned disk; "+
			"taking a new identity",
			"holder", a.Why)
	case a.Lost != nil:
		k.lose(a)
	case a.Do == Wait:
		k.setWaiting(a)
	}
}

// hold takes in that the store has our record as it should be.
func (k *Keeper) hold(e subnet.Entry) {
	f := &k.facts
	fresh := f.published == nil || f.published.Key() != e.Key
	k.held, f.published = &e, &e.Record
	if fresh {
		k.log.Info("subnet leased", "subnet", cidrs(e.Prefixes()), "revision", e.Revision,
			"reservation", e.LeaseID == 0)
	}
	if e.LeaseID == 0 {
		k.setUntil(time.Time{})
	} else if e.LeaseID == f.lease.id {
		k.setUntil(f.lease.ends)
	}
	k.mu.Lock()
	changed := !slices.Equal(f.inUse, e.Leases) || !k.status.Held
	f.inUse = e.Leases
	k.status.Held, k.status.Lost, k.status.Waiting = true, false, ""
	k.mu.Unlock()
	k.warnOfClones()
	if changed {
		k.logSkipped()
		k.changed.Set()
	}
}

// warnOfClones names records with our identity at another address: their hosts may live.
func (k *Keeper) warnOfClones() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for e := range k.facts.records.All() {
		const why = "a cloned disk, or an old record of this host"
		if e.Key != k.held.Key && k.facts.relation(e.Record) == OursElsewhere && !k.named[e.Key] {
			k.named[e.Key] = true
			k.log.Warn("a record at another address has this host's identity", "key", e.Key, "holder", e.Record.String(),
				"reason", why)
		}
	}
}

// lose takes in that another host has the subnet that this one uses.
func (k *Keeper) lose(a Action) {
	k.mu.Lock()
	again := k.status.Waiting == a.Why
	k.status.Held, k.status.Lost, k.status.Waiting = false, true, a.Why
	k.mu.Unlock()
	k.held = nil
	if again {
		return
	}
	k.log.Error("subnet lost to another host",
		"subnet", a.Lost.subnet.String(), "holder", a.Lost.holder, "policy", string(k.o.OnLost),
		"hint", "find out who wrote that record; delete it, or restart the pods of this host on the new subnet")
	k.changed.Set()
}

// setWaiting shows, and says once, what we wait for.
func (k *Keeper) setWaiting(a Action) {
	k.mu.Lock()
	changed := k.status.Waiting != a.Why
	k.status.Held, k.status.Waiting = false, a.Why
	k.mu.Unlock()
	if changed {
		k.changed.Set()
		k.log.Log(context.Background(), a.Level, "no lease in the store", "reason", a.Why)
	}
}

// setUntil sets when our record surely ends; zero: never.
func (k *Keeper) setUntil(t time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.until.Equal(t) {
		k.until = t
		k.changed.Set()
	}
}

// storeDown takes in that the store cannot be reached, and reports whether that is new.
func storeDown(s *subnet.Status, log *slog.Logger, err error) bool {
	first := s.StoreSince.IsZero()
	s.StoreError = fmt.Sprint(err)
	if first {
		s.StoreSince = time.Now()
		log.Warn("store unreachable, data plane left unchanged", "since", s.StoreSince.UTC().Format(time.RFC3339),
			"reason", err)
	}
	return first
}

// storeUp takes in that the store answers, and reports whether that is new.
func storeUp(s *subnet.Status, log *slog.Logger) bool {
	since := s.StoreSince
	s.StoreSince, s.StoreError = time.Time{}, ""
	if since.IsZero() {
		return false
	}
	log.Info("store reachable again", "away", time.Since(since).Round(time.Millisecond))
	return true
}
