package keeper

import (
	"bytes"
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
	first  *subnet.Snapshot // the list that the configuration is from, for the first session; nil: there was none
	listed time.Time        // when that was
	took   time.Duration    // how long it took
	read   configRead
	status subnet.Status // of the store
}

// configRead is what the store had as its configuration at a revision; the zero value: it was not asked for that alone.
type configRead struct {
	text []byte
	at   int64
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
		start := time.Now()
		snap, whole, err := w.ask(ctx)
		switch {
		case ctx.Err() != nil:
			return Network{}, ctx.Err()
		case err == nil:
			w.report(storeUp(&w.status, o.Log))
			n, err := w.network(snap, whole)
			if n != nil {
				n.took = time.Since(start)
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

// network returns the configuration of the store, else that of the last run if the store is that run's; nil: there is
// none, and the error says what is wrong with the store's. A snapshot that is not whole has the configuration only.
func (w *configWait) network(s subnet.Snapshot, whole bool) (n *Network, err error) {
	c, err := parse(s.Config, w.o.Check)
	switch {
	case err == nil:
		n = &Network{Config: c, Text: s.Config}
	case w.continues(s.Position):
		n = w.lastRun()
	}
	switch {
	case n == nil:
		return nil, err
	case whole:
		n.first, n.listed = &s, time.Now()
	default:
		n.read = configRead{s.Config, s.Revision}
	}
	return n, nil
}

// continues reports whether the store may be the one of the last run.
func (w *configWait) continues(at subnet.Position) bool {
	last := w.o.State.Memory.Position
	if at.Cluster != last.Cluster {
		return at.Cluster == w.o.State.Store && at.Cluster != 0
	}
	return at.Revision >= last.Revision
}

// ask reads the configuration, and everything else as well (whole) unless the last run has left enough to go on with.
func (w *configWait) ask(ctx context.Context) (s subnet.Snapshot, whole bool, err error) {
	if w.o.State.Config != "" {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, resumeWait)
		defer cancel()
	}
	if len(w.o.State.Memory.Trail) > 0 {
		s.Position, s.Config, err = w.store.Config(ctx)
		if err != nil || w.continues(s.Position) {
			return s, false, err
		}
	}
	s, err = w.store.List(ctx)
	return s, true, err
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
	why, hint := fmt.Sprintf("network configuration %s is invalid: %v", key, err), "flannelctl network edit"
	if text == nil {
		why = fmt.Sprintf("network configuration %s is missing", key)
		hint = `flannelctl network set '{"Network": "10.5.0.0/16", "Backend": {"Type": "vxlan"}}'`
	}
	if why == w.status.Waiting {
		return
	}
	w.status.Waiting = why
	w.report(true)
	w.o.Log.Warn("waiting for the network configuration", "key", key, "reason", why, "hint", hint)
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

// SetConfig has a keeper with a fixed configuration follow to another one, as soon as the store is there. One goroutine
// calls it.
func (k *Keeper) SetConfig(text []byte) {
	select {
	case <-k.texts: // it was not taken in yet
	default:
	}
	k.texts <- text
}

// setConfig follows a change in the store.
func (k *Keeper) setConfig(text []byte) {
	switch {
	case k.fixed:
	case text == nil:
		k.setPending("the network configuration was deleted from the store: the previous one stays in use")
	default:
		k.followText(text)
	}
}

// followHeard follows the configuration that the watch has told, if the store still has it. A host that was cut off
// hears of former ones first: all others may have left them behind, for its record did not say that it would follow.
// One that has started without the store is not told again what its last run has heard.
func (k *Keeper) followHeard(ctx context.Context) error {
	if k.heard == nil && !k.old {
		return nil
	}
	_, text, err := k.store.Config(ctx)
	if err != nil {
		return fmt.Errorf("reading the changed network configuration: %w", err)
	}
	if k.old || bytes.Equal(text, k.heard.text) {
		k.setConfig(text)
		k.changed.Set()
	}
	k.heard, k.old = nil, false
	return nil
}

func (k *Keeper) followText(text []byte) {
	if string(text) == k.text {
		k.setPending("")
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
