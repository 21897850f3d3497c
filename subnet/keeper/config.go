package keeper

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"flanneld/subnet"
	"flanneld/trigger"
)

// resumeWait is how long a host that could serve traffic from its state waits for the store first.
const resumeWait = time.Second

// Network is a network configuration, and where it is from. The zero value is none.
type Network struct {
	Config subnet.Config
	Text   []byte

	fixed  bool
	first  *subnet.Snapshot // the list that the configuration is from, for the first session
	listed time.Time        // when that was
	status subnet.Status    // of the store
}

// Fixed returns a configuration that stays in force whatever the store has.
func Fixed(c subnet.Config, text []byte) Network { return Network{Config: c, Text: text, fixed: true} }

// ConfigOptions are what WaitConfig needs to know.
type ConfigOptions struct {
	Prefix string // of the store, for messages
	// Check says what is wrong with a network configuration that is valid by itself, such as an unknown backend.
	Check func(subnet.Config) error
	// State is what the last run has left, already found usable; the zero value: nothing.
	State subnet.State
	Log   *slog.Logger
	// Report is told each change of what is waited for. nil: nobody asks.
	Report func(subnet.Status)
}

// WaitConfig returns the network configuration as soon as the store has a valid one, and logs what is missing or
// invalid until then. If the last run has left a usable state, it is that run's configuration where the store does not
// answer, or has none that is valid any more: hosts that run keep theirs then, too. A store that is another one than
// that of the last run, such as one that was wiped, is waited for. WaitConfig returns an error only when ctx ends.
func WaitConfig(ctx context.Context, store subnet.Store, o ConfigOptions) (Network, error) {
	w := configWait{store: store, o: o}
	pause := backoff{}
	for {
		snap, err := w.list(ctx)
		switch {
		case ctx.Err() != nil:
			return Network{}, ctx.Err()
		case err == nil:
			w.report(storeUp(&w.status, o.Log))
			c, err := parse(snap.Config, o.Check)
			if err == nil {
				return Network{Config: c, Text: snap.Config, first: &snap, listed: time.Now()}, nil
			}
			if n, at := w.lastRun(), o.State.Position; n != nil && snap.Cluster == at.Cluster && snap.Revision >= at.Revision {
				n.first, n.listed = &snap, time.Now()
				return *n, nil
			}
			w.missing(snap.Config, err)
			if w.changes(ctx, snap.Position) {
				pause = backoff{}
			}
		default:
			w.report(storeDown(&w.status, o.Log, err))
			if n := w.lastRun(); n != nil {
				w.status.Waiting = ""
				n.status = w.status
				return *n, nil
			}
		}
		_ = trigger.Pause(ctx, pause.next(firstPause, maxPause))
	}
}

// configWait is one wait for a configuration.
type configWait struct {
	store  subnet.Store
	o      ConfigOptions
	status subnet.Status
}

func (w *configWait) report(changed bool) {
	if changed && w.o.Report != nil {
		w.o.Report(w.status)
	}
}

// lastRun returns the network configuration of the last run, nil if there is none that is usable.
func (w *configWait) lastRun() *Network {
	text := []byte(w.o.State.Config)
	if len(text) == 0 {
		return nil
	}
	c, err := parse(text, w.o.Check)
	if err != nil {
		return nil
	}
	return &Network{Config: c, Text: text}
}

func (w *configWait) list(ctx context.Context) (subnet.Snapshot, error) {
	if w.o.State.Config == "" {
		return w.store.List(ctx)
	}
	ctx, cancel := context.WithTimeout(ctx, resumeWait)
	defer cancel()
	return w.store.List(ctx)
}

func parse(text []byte, check func(subnet.Config) error) (subnet.Config, error) {
	c, err := subnet.ParseConfig(text)
	if err != nil {
		return subnet.Config{}, err
	}
	return c, check(c)
}

// missing reports a configuration that is missing or invalid, once each.
func (w *configWait) missing(text []byte, err error) {
	key := w.o.Prefix + "/config"
	why := fmt.Sprintf("network configuration %s is invalid: %v", key, err)
	if text == nil {
		why = fmt.Sprintf("network configuration %s is missing", key)
	}
	if why == w.status.Waiting {
		return
	}
	w.status.Waiting = why
	w.report(true)
	w.o.Log.Warn("waiting for the network configuration", "key", key, "reason", why,
		"hint", `etcdctl put `+key+` '{"Network": "10.5.0.0/16", "Backend": {"Type": "vxlan"}}'`)
}

// changes waits until the configuration may have changed, and reports whether it has.
func (w *configWait) changes(ctx context.Context, after subnet.Position) bool {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	changed := false
	err := w.store.Watch(ctx, after, 0, func(events []subnet.Event) {
		if slices.ContainsFunc(events, func(ev subnet.Event) bool { return ev.ConfigSet }) {
			changed = true
			cancel()
		}
	})
	if ctx.Err() == nil {
		w.report(storeDown(&w.status, w.o.Log, err))
	}
	return changed
}

// setConfig follows a change at run time.
func (k *Keeper) setConfig(text []byte) {
	switch {
	case k.fixed || string(text) == k.text:
		k.setPending("")
		return
	case text == nil:
		k.setPending("the network configuration was deleted from the store: the previous one stays in use")
		return
	}
	now := k.facts.config
	c, err := k.following().To(text, now)
	if err != nil {
		k.setPending(err.Error())
		return
	}
	// Options of backends may hold secrets, and are not logged.
	if c.SameSettings(now) {
		k.log.Info("network configuration changed, it applies to new leases", "pools", c.Pools)
	} else {
		k.log.Info("network configuration changed, switching to its backends", "backends", c.Kinds())
	}
	k.setPending("")
	k.mu.Lock()
	defer k.mu.Unlock()
	k.facts.config, k.text = c, string(text)
}

func (k *Keeper) following() subnet.Following {
	return subnet.Following{
		Read:    func(text []byte) (subnet.Config, error) { return parse(text, k.o.Check) },
		Adjusts: k.o.Adjusts, Follow: k.o.Follow,
	}
}

// setPending shows why a change of the configuration is not applied, and says it once; empty: there is none.
func (k *Keeper) setPending(why string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if why != "" && why != k.status.Pending {
		k.log.Warn("network configuration changed, not applied yet", "key", k.o.Prefix+"/config", "reason", why)
	}
	k.status.Pending = why
}
