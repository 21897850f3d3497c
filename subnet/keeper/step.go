package keeper

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"flanneld/subnet"
)

// maxActions bounds what is done without a pause.
const maxActions = 12

// errUnsettled ends a series of that many actions: somebody keeps changing what we look at.
var errUnsettled = errors.New("the records in the store keep changing")

// step drops stale peers and, if it is time, decides and acts until nothing is left to do. Its errors end Run.
func (k *Keeper) step(ctx context.Context) error {
	k.prune()
	if k.decideAt.IsZero() || time.Now().Before(k.decideAt) {
		return nil
	}
	k.decideAt = time.Time{}
	for range maxActions {
		a := k.decide()
		k.note(a)
		free := k.mayAt(a)
		switch now := time.Now(); {
		case a.Do == Fail:
			return a.Err
		case a.Do == Keep || a.Do == Wait:
			k.decideAt = k.restUntil(a, now)
			if !now.Before(k.pace.from) {
				k.pace.tried(racePause)
			}
			return nil
		case now.Before(free):
			k.decideAt = free
			return nil
		}
		start := time.Now()
		if err := k.act(ctx, a); err != nil {
			k.failed(ctx, a, err, time.Since(start))
			return nil
		}
	}
	k.failed(ctx, Action{}, errUnsettled, 0)
	return nil
}

// restUntil returns when to decide again, if no event calls for it: also when our store lease is to be renewed.
func (k *Keeper) restUntil(a Action, now time.Time) time.Time {
	renewAt := k.facts.lease.renewAt
	if now.Before(renewAt) && (a.Until.IsZero() || renewAt.Before(a.Until)) {
		return renewAt
	}
	return a.Until
}

// decide asks for the next action, with what this host would publish now.
func (k *Keeper) decide() Action {
	k.mu.Lock()
	defer k.mu.Unlock()
	f := &k.facts
	f.hearClaims(time.Now())
	f.avoid, f.reserved = k.o.Avoid(), k.o.Reserved()
	f.attrs4 = k.o.Attrs(netip.PrefixFrom(netip.IPv4Unspecified(), 0))
	f.attrs6 = k.o.Attrs(netip.PrefixFrom(netip.IPv6Unspecified(), 0))
	return decide(f, time.Now())
}

// mayAt returns from when on an action is allowed: however a series of writes ends, the next one keeps its distance, so
// that neither a store that answers nonsense nor somebody who keeps deleting our record makes a storm of requests. The
// renewal of our own lease and the answer to a claim do not wait for that.
func (k *Keeper) mayAt(a Action) time.Time {
	switch {
	case a.Refuse:
		return k.refusals.from
	case a.Do == Abandon, a.Do == Renew && a.Lease == k.facts.lease.id:
		return time.Time{}
	}
	return k.pace.from
}

// failed takes in the error of an action, and how long it took, and plans the next try.
func (k *Keeper) failed(ctx context.Context, a Action, err error, took time.Duration) {
	conflict := (*subnet.ConflictError)(nil)
	lost := errors.As(err, &conflict)
	if ctx.Err() != nil {
		return
	}
	k.decideAt = time.Now()
	k.mu.Lock()
	if lost {
		k.facts.records.Learn(conflict)
	}
	k.mu.Unlock()
	switch {
	case a.Refuse:
		k.refusals.tried(racePause)
		k.log.Debug("claim of another host not refused yet", "error", err)
	case lost:
		if !k.lostClaim(conflict) && a.Do != Claim {
			k.facts.seed += "+" // whoever lost a race to a neighbour in hash order starts elsewhere
		}
		k.pace.tried(racePause)
	default:
		k.pace.tried(maxPause)
		k.pace.rest(min(took, slowPause))
		k.setWaiting(Action{Why: fmt.Sprintf("lease not confirmed in the store: %v", err), Level: slog.LevelWarn})
	}
}

// lostClaim reports whether a write did not happen because a claim of ours does not stand any more.
func (k *Keeper) lostClaim(conflict *subnet.ConflictError) bool {
	for key, c := range k.facts.claims {
		if conflict.Key == c.entry.Key {
			c = c.answer(time.Now())
			c.expiry = time.Time{} // not to be gone by again
			k.facts.claims[key] = c
			return true
		}
	}
	return false
}
