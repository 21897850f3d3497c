package keeper_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"flanneld/subnet"
	"flanneld/subnet/subnettest"
)

// bad is a store that breaks one rule.
type bad struct {
	*subnettest.Client
	rule string
	told *[]subnet.Event // to any run of the host since the last list
}

func (b bad) Create(ctx context.Context, r subnet.Record, id subnet.LeaseID) (subnet.Entry, error) {
	e, err := b.Client.Create(ctx, r, id)
	var conflict *subnet.ConflictError
	if !errors.As(err, &conflict) || r.Claim {
		return e, err
	}
	switch {
	case b.rule == "create overwrites" && conflict.Current != nil && conflict.Current.Key == r.Key():
		return b.Client.Update(ctx, *conflict.Current, r, id)
	case b.rule == "a lost race counts as won":
		return subnet.Entry{Record: r, Key: r.Key(), Revision: 1 << 40, LeaseID: id}, nil
	case b.rule == "a lost race is run again at once":
		for range 50 {
			_, err = b.Client.Create(ctx, r, id)
		}
	}
	return e, err
}

// current returns what stands at a key.
func (b bad) current(key string) (subnet.Entry, bool) {
	all := b.Server().Entries()
	i := slices.IndexFunc(all, func(e subnet.Entry) bool { return e.Key == key })
	if i < 0 {
		return subnet.Entry{}, false
	}
	return all[i], true
}

func (b bad) Update(ctx context.Context, old subnet.Entry, r subnet.Record, id subnet.LeaseID,
	spent ...subnet.Entry) (subnet.Entry, error) {
	switch b.rule {
	case "update is not conditional":
		time.Sleep(2 * simLives)
		if e, ok := b.current(old.Key); ok {
			old = e
		}
	case "a reservation gets a lease":
		if id == 0 {
			id, _ = b.Grant(ctx, simTTL)
		}
	case "a lease becomes a reservation":
		if !r.Claim {
			id = 0
		}
	case "silence is not verified":
		spent = nil
	}
	return b.Client.Update(ctx, old, r, id, spent...)
}

func (b bad) Delete(ctx context.Context, old subnet.Entry, spent ...subnet.Entry) error {
	switch b.rule {
	case "silence is not verified":
		spent = nil
	case "claims are not answered":
		if old.Claim {
			return nil
		}
	case "delete is not conditional":
		time.Sleep(2 * simLives)
		if e, ok := b.current(old.Key); ok {
			old = e
		}
	case "a delete that did nothing counts":
		if !old.Claim {
			return nil
		}
	}
	return b.Client.Delete(ctx, old, spent...)
}

func (b bad) Watch(ctx context.Context, after subnet.Position, from int64, f func([]subnet.Event)) error {
	if b.rule == "the watch does not open" {
		f([]subnet.Event{{}})
		<-ctx.Done()
		return ctx.Err()
	}
	if b.rule == "the history is not compared" && from != 0 && len(*b.told) > 0 {
		f(slices.DeleteFunc(slices.Clone(*b.told),
			func(ev subnet.Event) bool { return ev.Revision < from || ev.Revision > after.Revision }))
		from = 0
	}
	err := b.Client.Watch(ctx, after, from, func(events []subnet.Event) {
		*b.told = append(*b.told, events...)
		f(slices.DeleteFunc(events, func(ev subnet.Event) bool { return b.loses(ev) }))
	})
	if b.rule == "the end of the watch is not told" {
		<-ctx.Done()
	}
	return err
}

// loses reports whether an event does not arrive.
func (b bad) loses(ev subnet.Event) bool {
	claim := ev.Put != nil && ev.Put.Claim || strings.HasPrefix(ev.Deleted, subnet.ClaimsFolder)
	switch b.rule {
	case "events are lost":
		return ev.Revision%3 == 0
	case "deletes are lost":
		return ev.Deleted != "" && !claim
	case "claims are not heard":
		return claim
	case "the records of others are not heard":
		return ev.Put != nil && !claim
	}
	return false
}

func (b bad) List(ctx context.Context) (subnet.Snapshot, error) {
	snap, err := b.Client.List(ctx)
	*b.told = nil
	if b.rule == "lists are cut short" && len(snap.Entries) > 2 {
		snap.Entries = snap.Entries[:2]
	}
	return snap, err
}

func (b bad) KeepAlive(ctx context.Context, id subnet.LeaseID) (time.Duration, error) {
	if b.rule == "leases are not renewed" {
		return simTTL, nil
	}
	return b.Client.KeepAlive(ctx, id)
}

func TestTheCheckerCatchesEveryBrokenRule(t *testing.T) {
	rules := []string{
		"create overwrites", "a lost race counts as won", "a lost race is run again at once",
		"update is not conditional", "a reservation gets a lease", "a lease becomes a reservation", "silence is not verified",
		"delete is not conditional", "a delete that did nothing counts", "claims are not answered",
		"the watch does not open", "the end of the watch is not told",
		"events are lost", "deletes are lost", "claims are not heard",
		"the records of others are not heard", "lists are cut short", "the history is not compared",
		"leases are not renewed",
	}
	breaches := map[string]breach{"a clone keeps its identity": {keepsIdentity: true}}
	for _, rule := range rules {
		told := sync.Map{} // by client
		breaches[rule] = breach{store: func(c *subnettest.Client) subnet.Store {
			list, _ := told.LoadOrStore(c, &[]subnet.Event{})
			return bad{c, rule, list.(*[]subnet.Event)}
		}}
	}
	for rule, b := range breaches {
		t.Run(rule, func(t *testing.T) {
			t.Parallel()
			const tries = 3000
			for seed := range uint64(tries) {
				if m := runSim(t, seed+1, b); len(m) > 0 {
					t.Logf("caught by schedule %d: %s", seed+1, m[0])
					return
				}
			}
			t.Errorf("%d schedules in which this rule was broken found nothing", tries)
		})
	}
}
