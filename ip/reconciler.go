package ip

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"
)

// Reconciler makes the kernel hold what is wanted, and remembers that it does, so that a pass without a reason to
// doubt reads nothing.
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

	mu     sync.Mutex // guards all below
	known  bool       // the kernel holds what we remember
	have   State      // what it held after the last clean pass; empty if there was none
	expect State      // what it holds or is being made to hold, sorted
	scope  Scope
	drift  [Kinds]int // since the start
	fight  fight
}

// Result tells what one pass did.
type Result struct {
	Put, Deleted int
	Dumped       bool
	Drift        [Kinds]int // objects that others had changed
}

// NewReconciler returns one that knows nothing yet.
func NewReconciler(k Kernel, log *slog.Logger) *Reconciler {
	return &Reconciler{kernel: k, log: log}
}

// Drift returns how many objects were found changed by others since the start, by kind.
func (r *Reconciler) Drift() [Kinds]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.drift
}

// Reconcile makes the kernel hold exactly want of all that is in the scope. The error joins an *OpError for each
// operation that failed, to be tried again by the next call; it is ErrFight if all is in place but others keep
// changing it, and the next call should wait.
func (r *Reconciler) Reconcile(scope Scope, want State) (Result, error) {
	want.Sort()
	r.mu.Lock()
	known, have := r.known, r.have
	// Whatever contradicts from here on makes the next pass look again.
	r.expect, r.scope, r.known, r.have = want, scope, true, State{}
	r.mu.Unlock()
	res, err := r.pass(scope, known, have, want)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		r.known = false
		return res, err
	}
	r.have = want
	if r.fight.on = r.fight.count > fightLimit && res.Drift != [Kinds]int{}; r.fight.on {
		return res, ErrFight
	}
	return res, nil
}

func (r *Reconciler) pass(scope Scope, known bool, have, want State) (Result, error) {
	var res Result
	if !known {
		found, err := r.kernel.Dump(scope)
		if err != nil {
			return res, err
		}
		res.Dumped, res.Drift = true, r.compare(have, found)
		have = found
	}
	ops := Diff(&have, &want)
	if len(ops) == 0 {
		return res, nil
	}
	for _, op := range ops {
		if op.Delete {
			res.Deleted++
		} else {
			res.Put++
		}
	}
	if err := r.kernel.Apply(ops); err != nil {
		return res, err
	}
	r.log.Info("kernel updated", "put", res.Put, "deleted", res.Deleted)
	return res, nil
}

// maxNamed bounds the objects that one pass names in the log.
const maxNamed = 10

// compare counts and names what others have changed since the last clean pass. Without one nothing can be told.
func (r *Reconciler) compare(before, found State) (counts [Kinds]int) {
	if before.Len() == [Kinds]int{} {
		return counts
	}
	ops := Diff(&found, &before)
	for i, op := range ops {
		kind := op.Object.Kind()
		counts[kind]++
		if i < maxNamed {
			r.log.Warn("drift repaired", "kind", kind.String(), "object", op.Object.String(), "foreign", op.Delete)
		}
	}
	if len(ops) > maxNamed {
		r.log.Warn("more drift repaired", "count", len(ops)-maxNamed)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for k, n := range counts {
		r.drift[k] += n
	}
	if len(ops) > 0 {
		r.noteFightLocked(ops[0].Object)
	}
	return counts
}

// Observe takes in a change and reports whether it contradicts what we expect, so that Reconcile must be called.
// The echo of our own operations does not: what they put is expected, and what they deleted is not.
func (r *Reconciler) Observe(ev Event) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if ev.Object != nil && !contradicts(&r.expect, r.scope, ev) {
		return false
	}
	r.known = false
	if ev.By != 0 && int(ev.By) != os.Getpid() {
		r.fight.by = ev.By
	}
	return !r.fight.on // else the caller's retry timer sets the pace
}

// ErrFight says that something keeps changing what this daemon sets. All was put right again, but the next time shall be
// later.
var ErrFight = errors.New("something keeps changing the objects of this daemon, which are put right at a slower pace: tell the network manager to leave its devices alone")

// fight counts the passes that had to repair something within a window.
type fight struct {
	since time.Time
	count int
	by    uint32 // netlink port of the last one who changed something of ours
	on    bool   // repairs are slowed down
	said  bool
}

const (
	fightWindow = time.Minute
	fightLimit  = 10
)

func (r *Reconciler) noteFightLocked(o Object) {
	f := &r.fight
	now := time.Now()
	if now.Sub(f.since) > fightWindow {
		*f = fight{since: now, by: f.by}
	}
	if f.count++; f.count > fightLimit && !f.said {
		f.said = true
		r.log.Error("something keeps changing our objects, repairing at a slower pace",
			"object", o.String(), "times", f.count, "window", now.Sub(f.since).Round(time.Second), "by", processName(f.by))
	}
}

// processName names the owner of a netlink port, which by custom has the number of its process.
func processName(port uint32) string {
	if port == 0 {
		return "unknown"
	}
	name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", port))
	if err != nil {
		return fmt.Sprintf("netlink port %d, a process that has ended", port)
	}
	return fmt.Sprintf("%s (pid %d)", strings.TrimSpace(string(name)), port)
}
