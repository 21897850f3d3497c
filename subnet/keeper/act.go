package keeper

import (
	"context"
	"errors"
	"maps"
	"strings"
	"time"

	"flanneld/subnet"
)

// act carries out one action and takes in its outcome.
func (k *Keeper) act(ctx context.Context, a Action) error {
	switch a.Do {
	case Abandon:
		k.abandon()
		return nil
	case Grant:
		return k.grant(ctx)
	case Renew:
		return k.renew(ctx, a)
	case Claim:
		return k.claim(ctx, a)
	case Delete:
		return k.delete(ctx, a)
	}
	var e subnet.Entry
	var err error
	if a.Do == Create {
		e, err = k.store.Create(ctx, a.Record, a.Lease)
	} else {
		e, err = k.store.Update(ctx, a.Entry, a.Record, a.Lease, a.Spent...)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if errors.Is(err, subnet.ErrLeaseGone) {
		k.facts.lease, k.facts.expired = storeLease{}, a.Lease
		return nil
	}
	if err != nil {
		return err
	}
	if a.Do == Update {
		k.logAction(a)
		k.forget(a.Entry.Key)
	}
	k.facts.records.Put(&e)
	return nil
}

// forget takes in that a record is gone, and our claim to it spent.
func (k *Keeper) forget(key string) {
	k.facts.records.Remove(key)
	delete(k.facts.claims, key)
}

func (k *Keeper) abandon() {
	k.mu.Lock()
	defer k.mu.Unlock()
	f := &k.facts
	f.records.Release(f.inUse)
	f.wanted, f.inUse = subnet.Record{Leases: f.inUse}.Prefixes(), nil
	f.lease = storeLease{} // whoever wrote over our record may keep it alive
	k.changed.Set()
}

func (k *Keeper) grant(ctx context.Context) error {
	start := time.Now()
	id, err := k.store.Grant(ctx, k.o.TTL)
	if err != nil {
		return err
	}
	k.renewed(id, start, k.o.TTL)
	return nil
}

// renewed plans the next renewal: a third of the time to live later, or sooner if the margin asks for it. The lease
// surely lives until start + ttl, start being the time before the request.
func (k *Keeper) renewed(id subnet.LeaseID, start time.Time, ttl time.Duration) {
	pause := ttl / 3
	if early := ttl - k.o.RenewMargin; early >= time.Minute {
		pause = min(pause, early)
	}
	k.facts.lease, k.renewals = storeLease{id, start.Add(pause), start.Add(ttl)}, backoff{}
}

// renew keeps a store lease alive. If it is gone, so is its record.
func (k *Keeper) renew(ctx context.Context, a Action) error {
	start := time.Now()
	ttl, err := k.store.KeepAlive(ctx, a.Lease)
	switch {
	case err == nil:
		k.renewed(a.Lease, start, ttl)
		k.setUntil(k.facts.lease.ends)
	case errors.Is(err, subnet.ErrLeaseGone):
		k.log.Warn("store lease expired or revoked, acquiring the subnet again",
			"subnet", strings.TrimPrefix(a.Entry.Key, subnet.SubnetsFolder))
		k.facts.lease, k.facts.expired = storeLease{}, a.Lease
	case a.Lease == k.facts.lease.id:
		k.facts.lease.renewAt = time.Now().Add(k.renewals.next(firstPause, maxPause))
		k.log.Debug("store lease not renewed", "error", err)
	default:
		return err
	}
	return nil
}

// claim asks the owner of a record whether it lives.
func (k *Keeper) claim(ctx context.Context, a Action) error {
	start := time.Now()
	id, err := k.store.Grant(ctx, claimTTL)
	if err != nil {
		return err
	}
	e, err := k.store.Create(ctx, a.Record, id)
	conflict := (*subnet.ConflictError)(nil)
	if errors.As(err, &conflict) && conflict.Current != nil && conflict.Current.Equal(a.Record) {
		// Asked by a try whose answer was lost, or by the last run of this host.
		e, start = *conflict.Current, time.Now()
		if _, err = k.store.KeepAlive(ctx, e.LeaseID); errors.Is(err, subnet.ErrLeaseGone) {
			return conflict // it is about to go
		}
	}
	if err != nil {
		return err
	}
	before := k.facts.claims[a.Entry.Key]
	k.facts.claims[a.Entry.Key] = claim{
		target: a.Entry.Revision, entry: e, expiry: start.Add(claimTTL), again: before.refused || before.again,
		until: time.Now().Add(k.facts.relation(a.Entry.Record).silence()),
	}
	return nil
}

// delete deletes a record, a claim of ours, or one of another.
func (k *Keeper) delete(ctx context.Context, a Action) error {
	ours := func(_ string, c claim) bool { return c.entry.Key == a.Entry.Key && !a.Refuse }
	asked := len(k.facts.claims)
	maps.DeleteFunc(k.facts.claims, ours) // whatever comes of it: it expires
	own := len(k.facts.claims) < asked
	if a.Refuse && k.refused != a.Entry.Revision {
		k.refused = a.Entry.Revision
		k.log.Warn("claim of another host to this host's subnet refused: it has the same identity or address",
			"claimant", a.Entry.Record.String())
	}
	k.logAction(a)
	switch err := k.store.Delete(ctx, a.Entry, a.Spent...); {
	case err != nil && own:
		k.log.Debug("claim not deleted, it expires", "key", a.Entry.Key, "error", err)
	case err != nil:
		return err
	case a.Refuse:
		k.refusals.tried(racePause)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.forget(a.Entry.Key)
	return nil
}
