package ip

import (
	"log/slog"
	"slices"
	"sync"
	"time"
)

// Reconciler makes the kernel hold what is wanted, and remembers that it does, so that a pass without a reason to
// read again reads nothing.
//
//	        Reconcile: clean Apply
//	unknown ─────────────────────▶ known ──┐ Reconcile: Diff against memory
//	   ▲                             │  ▲──┘
//	   └── failed Apply, Observe ────┘
//
// Observe and Drift may be called by any goroutine, Reconcile by one.
type Reconciler struct {
	kernel Kernel
	log    *slog.Logger

	mu          sync.Mutex      // guards all below
	known       bool            // the kernel holds what we remember
	have        Snapshot        // what it held after the last pass; empty if there was none
	looked      Scope           // of the last pass
	unsure      map[Object]bool // keys of what the last pass may not have brought about
	expect      Snapshot        // what it holds or is being made to hold
	scope       Scope
	drift       [Kinds]int // since the start
	by          string     // who changed something of ours last
	rival       string     // another flannel that has changed something of ours
	contentions contentions
	taken       conflicts
}

// Result tells what one pass did.
type Result struct {
	Put, Deleted int
	Dumped       bool
	Drift        [Kinds]int // objects that others had changed
}

// NewReconciler returns one that knows nothing yet.
func NewReconciler(k Kernel, log *slog.Logger) *Reconciler {
	return &Reconciler{kernel: k, log: log, contentions: contentions{}, taken: conflicts{}}
}

// Drift returns how many objects were found changed by others since the start, by kind.
func (r *Reconciler) Drift() [Kinds]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.drift
}

// Rival names another flannel that has changed objects of this daemon and still runs; empty: there is none.
func (r *Reconciler) Rival() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.rival != "" && !runs(r.rival) {
		r.rival = ""
	}
	return r.rival
}

// Conflicts returns the routes that are wanted and not there, because others have routes in their place. They are
// created when those go.
func (r *Reconciler) Conflicts() []Conflict {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.taken.sorted()
}

// Reconcile makes the kernel hold exactly want of all that is in the scope, but for the routes in Conflicts. The error
// joins an *OpError for each operation that failed, to be tried again by the next call; it is ErrContention if all is
// in place but others keep changing it, and the next call should wait.
func (r *Reconciler) Reconcile(scope Scope, want Snapshot) (Result, error) {
	r.mu.Lock()
	known, have := r.known, r.have
	// Whatever contradicts from here on makes the next pass look again.
	r.expect, r.scope, r.known, r.have = want, scope, true, Snapshot{}
	r.mu.Unlock()
	res, ops, err := r.pass(scope, known, have, want)
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case err != nil && len(ops) == 0: // nothing was read and nothing done
		r.known, r.have = false, have
		return res, err
	case err != nil:
		// What was to be done may stand or not; all else is as it was wanted, and else somebody has changed it.
		r.known, r.have, r.looked, r.unsure = false, want, scope, map[Object]bool{}
		for _, op := range ops {
			r.unsure[keyOf(op.Object)] = true
		}
		return res, err
	}
	r.have, r.looked, r.unsure = want, scope, nil
	if r.contentions.any(time.Now()) {
		return res, ErrContention
	}
	return res, nil
}

func (r *Reconciler) pass(scope Scope, known bool, have, want Snapshot) (res Result, ops []Op, err error) {
	if !known {
		dump, err := r.kernel.Dump(scope)
		if err != nil {
			return res, nil, err
		}
		found := dump.snapshot(want)
		res.Dumped, res.Drift = true, r.compare(have, found)
		r.mu.Lock()
		clear(r.taken)
		r.mu.Unlock()
		have = found
	}
	ops = Diff(have, want)
	if len(ops) == 0 {
		return res, nil, nil
	}
	r.mu.Lock()
	r.taken.prepare(ops)
	r.mu.Unlock()
	for _, op := range ops {
		if op.Delete {
			res.Deleted++
		} else {
			res.Put++
		}
	}
	err = r.kernel.Apply(ops)
	r.mu.Lock()
	before := len(r.taken)
	err = r.taken.take(scope, err)
	res.Put -= len(r.taken) - before
	r.mu.Unlock()
	if err != nil {
		return res, ops, err
	}
	if res.Put+res.Deleted > 0 {
		r.log.Info("kernel updated", "put", res.Put, "deleted", res.Deleted)
	}
	return res, ops, nil
}

// compare counts what others have changed since the last pass, and says it in one line for each kind. Without a
// pass nothing can be told, nor about what comes into the scope with this one: a device that a new backend has just
// made, or what stood there before.
func (r *Reconciler) compare(before, found Snapshot) (counts [Kinds]int) {
	if before.Len() == 0 {
		return counts
	}
	all := drifts(before, found)
	r.mu.Lock()
	all = slices.DeleteFunc(all, func(d drift) bool {
		key := keyOf(d.Object)
		return r.unsure[key] || r.taken[key] != nil || d.found == isForeign && !r.looked.covers(d.Object)
	})
	by := r.by
	r.by = ""
	for _, d := range all {
		counts[d.Kind()]++
		r.drift[d.Kind()]++
	}
	if len(all) > 0 && isFlannel(by) {
		r.rival = by
	}
	r.contentions.note(all, by, time.Now(), r.log)
	r.mu.Unlock()
	for _, some := range byKind(all) {
		d := some[0]
		r.log.Warn("drift found", "kind", d.Kind().String(), "object", d.String(), "found", d.found, "count", len(some),
			"by", nameOf(by))
	}
	return counts
}

// Observe takes in a change and reports whether it contradicts what we expect, so that Reconcile must be called.
// The echo of our own operations does not: what they put is expected, and what they deleted is not.
func (r *Reconciler) Observe(ev Event) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch c := r.taken.about(ev.Object); {
	case ev.Object == nil:
	case c != nil && !ev.Deleted && ev.Object == Object(c.Found):
		return false // the same one again
	case c == nil && !contradicts(r.expect, r.scope, ev):
		return false
	}
	r.known = false
	if ev.By != "" {
		r.by = ev.By
	}
	return !r.contentions.about(ev.Object) // else the caller's retry timer sets the pace
}
