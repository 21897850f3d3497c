package registry

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"flanneld/backend/check"
	"flanneld/subnet"
)

// What is simulated. 1,000 hosts need minutes for each move, and some gigabytes of memory ("make test-moves").
var (
	clusterHosts = flag.Int("cluster.hosts", 40, "hosts of the simulated cluster that moves from backend to backend")
	clusterMoves = flag.Int("cluster.moves", 5, "how often it moves")
)

// TestEveryPathIsReceivedWhileAClusterMoves simulates whole hosts: each has the backends, the choice of paths and the
// offers of the daemon, and reads the configuration and the records from one store, late, each at its own time. Hosts
// restart, are cut from the store, lose their lease and come back, and their kernels fail. Whenever the paths or the
// devices of a host have changed, what it sends by must be what the other receives by.
//
// Slow with -cluster.hosts.
func TestEveryPathIsReceivedWhileAClusterMoves(t *testing.T) {
	seed := clusterSeed(t)
	w := newWorld(t, seed, *clusterHosts, "")
	at := w.setting(`{"Type":"vxlan"}`)
	goals := []string{
		`{"Type":"host-gw"}`, `{"Type":"vxlan","VNI":2}`, `{"Type":"wireguard"}`, `{"Type":"udp"}`, `{"Type":"vxlan"}`,
	}
	for i := range *clusterMoves {
		to := goals[i%len(goals)]
		next := w.setting(to)
		if i == int(seed%uint64(*clusterMoves)) {
			w.giveUp(at, next, 1+int(seed/5%2))
		}
		w.move(at, next)
		w.report("to " + to)
		at = next
	}
	w.allReturn()
	w.report("at the end")
}

// TestTheSimulationCatchesABrokenRule breaks one rule of a move at a time.
func TestTheSimulationCatchesABrokenRule(t *testing.T) {
	seed := clusterSeed(t)
	for _, broken := range []string{hurriedSwitch, hurriedRemoval, earlyRecord, forgetsPrevious, followsFormer} {
		t.Run(broken, func(t *testing.T) {
			for try := range uint64(500) {
				w := newWorld(t, seed+try, 10, broken)
				from, to := w.setting(`{"Type":"vxlan"}`), w.setting(`{"Type":"vxlan","VNI":2}`)
				if broken == followsFormer {
					w.giveUp(from, to, 2)
				} else {
					w.move(from, to)
				}
				if w.wrong != "" {
					t.Logf("after %d moves: %s", try+1, w.wrong)
					return
				}
			}
			t.Error("500 moves are without a fault")
		})
	}
}

func clusterSeed(t *testing.T) uint64 {
	seed := rand.Uint64()
	if text := os.Getenv("WALK_SEED"); text != "" {
		seed, _ = strconv.ParseUint(text, 10, 64)
	}
	t.Logf("seed %d (WALK_SEED=%[1]d repeats it)", seed)
	return seed
}

// Rules that a world may break.
const (
	hurriedSwitch   = "the switch does not wait for offers"
	hurriedRemoval  = "the removal does not wait for the switch"
	earlyRecord     = "a host offers what it does not have yet"
	forgetsPrevious = "a host removes the former backend at the switch"
	followsFormer   = "a host follows a configuration that the store has no longer"
)

// world is a cluster with its store.
type world struct {
	t      *testing.T
	rnd    *rand.Rand
	broken string // a rule; empty: none
	dir    string

	hosts  []*sim
	log    []change        // what was written to the store, in order
	now    []*subnet.Entry // records, by host
	text   []byte          // network configuration
	sound  bool            // kernels do not fail
	wrong  string          // the first path that is not received
	events int
	checks int
}

// change is one write.
type change struct {
	host  int // -1: of the network configuration
	entry *subnet.Entry
	text  []byte
}

func newWorld(t *testing.T, seed uint64, n int, broken string) *world {
	t.Helper()
	w := &world{t: t, rnd: rand.New(rand.NewPCG(seed, 0)), broken: broken, dir: t.TempDir(), now: make([]*subnet.Entry, n)}
	w.put([]byte(`{"Network":"10.0.0.0/8","Backend":{"Type":"vxlan"}}`))
	for i := range n {
		w.hosts = append(w.hosts, newSim(w, i))
	}
	for _, h := range w.hosts {
		h.start()
	}
	w.await("start", func(subnet.Lease) bool { return true })
	return w
}

func (w *world) setting(text string) subnet.Setting {
	s, err := subnet.ParseSetting([]byte(text))
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

func (w *world) put(text []byte) {
	w.text = text
	w.log = append(w.log, change{-1, nil, text})
}

// write writes the configuration of a step, as the command does.
func (w *world) write(main, next, previous, migrated subnet.Setting) {
	w.t.Helper()
	text, err := subnet.Move(w.text, main, next, previous, migrated)
	if err == nil {
		err = check.Text(text)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	w.put(text)
}

var none0 subnet.Setting

// move takes the network from one backend to another.
func (w *world) move(from, to subnet.Setting) {
	w.t.Helper()
	w.write(from, to, none0, none0)
	if w.broken == hurriedSwitch {
		w.some()
	} else {
		w.await("offer", offers(to))
	}
	w.write(to, none0, from, none0)
	if w.broken == hurriedRemoval {
		w.some()
	} else {
		w.await("switch", mainIs(to))
	}
	w.write(to, none0, none0, from)
	w.await("remove", only(to))
}

// giveUp goes so many steps of a move, and back. Kernels do not fail meanwhile: a host that has switched in part, and
// is cut from the store then, has not said so in its record (docs/change-backend.md, limits).
func (w *world) giveUp(from, to subnet.Setting, steps int) {
	w.t.Helper()
	w.sound = true
	defer func() { w.sound = false }()
	w.write(from, to, none0, none0)
	w.some()
	if steps == 2 {
		w.await("offer", offers(to))
		w.write(to, none0, from, none0)
		w.some()
		w.write(from, to, none0, none0)
	}
	w.await("switch back", mainIs(from))
	w.write(from, none0, none0, none0)
	w.await("remove", only(from))
	if w.broken != "" {
		return
	}
	w.report(fmt.Sprintf("given up after %d steps", steps))
}

func offers(s subnet.Setting) func(subnet.Lease) bool {
	return func(l subnet.Lease) bool {
		return slices.ContainsFunc(l.Ways(), func(o subnet.Offer) bool { return check.Is(o, s) })
	}
}

func mainIs(s subnet.Setting) func(subnet.Lease) bool {
	return func(l subnet.Lease) bool { return check.Is(l.Ways()[0], s) }
}

func only(s subnet.Setting) func(subnet.Lease) bool {
	return func(l subnet.Lease) bool { return l.Offers == "" && check.Is(l.Ways()[0], s) }
}

// some lets a random number of things happen.
func (w *world) some() {
	for range w.rnd.IntN(3 * len(w.hosts)) {
		w.event()
	}
}

// await lets things happen until the records say that all have done a step, and neither a record has changed nor a host
// come while those that are connected have read that, and have gone over to paths whose sessions have come.
func (w *world) await(what string, has func(subnet.Lease) bool) {
	w.t.Helper()
	done := func() bool {
		return !slices.ContainsFunc(w.now, func(e *subnet.Entry) bool { return e != nil && !has(e.Leases[0]) })
	}
	for again := true; again && w.wrong == ""; {
		w.until(what, done)
		mark, before := len(w.log), slices.Clone(w.now)
		w.until(what+", pause", func() bool {
			return !slices.ContainsFunc(w.hosts, func(h *sim) bool {
				return !h.cut && (h.read < mark || h.again && !h.failed)
			})
		})
		again = false
		for i, e := range w.now {
			again = again || e != nil && e != before[i]
		}
	}
}

func (w *world) until(what string, done func() bool) {
	w.t.Helper()
	for n := 0; !done() && w.wrong == ""; n++ {
		if n > 1000*len(w.hosts) {
			w.t.Fatalf("%s: not done after %d events", what, n)
		}
		w.event()
	}
}

// report fails the test if a path was not received.
func (w *world) report(what string) {
	w.t.Helper()
	if w.wrong != "" {
		w.t.Fatalf("%s: %s", what, w.wrong)
	}
	w.t.Logf("%s: %d events, %d paths checked, %d writes", what, w.events, w.checks, len(w.log))
}

// allReturn ends all trouble, and wants each host to have a path to each.
func (w *world) allReturn() {
	for _, h := range w.hosts {
		h.faulty = false
		if h.cut {
			h.reconnect()
		}
	}
	w.until("the return of all", func() bool {
		return !slices.ContainsFunc(w.hosts, func(h *sim) bool { return h.pending() })
	})
	for _, from := range w.hosts {
		for _, to := range w.hosts {
			if from != to && from.path(to) == "" {
				w.t.Fatalf("in the end %d has no path to %d", from.number, to.number)
			}
			w.check(from, to)
		}
	}
}

// event has one thing happen.
func (w *world) event() {
	w.events++
	h := w.hosts[w.rnd.IntN(len(w.hosts))]
	scale, away := 50+2*len(w.hosts), len(w.hosts)/10
	if w.broken != "" { // rules are for trouble
		scale, away = 20, len(w.hosts)/2
	}
	switch w.rnd.IntN(scale) {
	case 0:
		if !h.cut && w.away() < away {
			h.cut = true
		}
		return
	case 1:
		if h.cut && !h.gone {
			h.expire()
		}
		return
	case 2:
		if !h.cut {
			h.restart()
		}
		return
	case 3:
		h.faulty = !h.faulty
		return
	case 4:
		if i := slices.IndexFunc(w.hosts, func(h *sim) bool { return h.cut }); i >= 0 {
			w.hosts[i].reconnect()
		}
		return
	}
	for range w.hosts {
		if h.pending() {
			h.pass()
			return
		}
		h = w.hosts[(h.number+1)%len(w.hosts)]
	}
	if i := slices.IndexFunc(w.hosts, func(h *sim) bool { return h.cut }); i >= 0 {
		w.hosts[i].reconnect() // all others wait for it
	}
}

func (w *world) away() (n int) {
	for _, h := range w.hosts {
		if h.cut {
			n++
		}
	}
	return n
}

// check wants a host to receive what another one sends to it.
func (w *world) check(from, to *sim) {
	e, back := from.seen[to.number], to.seen[from.number]
	if w.wrong != "" || from == to || !from.ready || !to.ready || from.gone || to.gone || e == nil ||
		e.LeaseID != to.life || back == nil || back.LeaseID != from.life || from.behind(to) || to.behind(from) {
		return // one is left behind, or new to the other
	}
	w.checks++
	path := from.path(to)
	why := to.receives(from, path)
	switch {
	case path == "" && from.had[to.number]:
		why = "there is no path any more"
	case why != "" && from.again && !from.had[to.number]:
		return // its kernel has refused the first route to that host so far
	case path == "":
		return
	}
	if why != "" {
		w.wrong = fmt.Sprintf("event %d: from host %d, with %s, to host %d, with %s, by %q: %s; it knows %v", w.events,
			from.number, kinds(from), to.number, kinds(to), path, why, e.Leases[0].Ways())
	}
	from.had[to.number] = true
}

// behind reports whether a host is cut off since before another one has had its main backend (docs/change-backend.md,
// limits).
func (h *sim) behind(o *sim) bool {
	return h.cut && !offers(o.config.Main())(h.seen[o.number].Leases[0])
}

func kinds(h *sim) string { return strings.Join(h.config.Kinds(), " and ") }
