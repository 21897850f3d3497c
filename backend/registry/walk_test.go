package registry

import (
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"flanneld/backend"
	"flanneld/ip"
	"flanneld/subnet"
)

// walkSteps is how far a random walk goes for each pair of backends.
const walkSteps = 150

// The stages of a move. Hosts are at most one apart.
const (
	before   = iota // the old backend alone
	offering        // the old one is the main one, the new one beside it
	switched        // the new one is the main one, the old one beside it
	after           // the new one alone
)

// TestHostsReachEachOtherInEveryOrderOfAMove has hosts step forth and back at random, each by itself, hear of others
// late, leave and return, while their kernels fail now and then. After each pass of each host, its peers must have
// the device that it sends to them by.
func TestHostsReachEachOtherInEveryOrderOfAMove(t *testing.T) {
	seed := rand.Uint64()
	if text := os.Getenv("WALK_SEED"); text != "" {
		seed, _ = strconv.ParseUint(text, 10, 64)
	}
	t.Logf("seed %d (WALK_SEED=%[1]d repeats it)", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	for range 6 {
		from, to := settings[rnd.IntN(len(settings))], settings[rnd.IntN(len(settings))]
		if from == to {
			continue
		}
		nets := dual
		if slices.Contains([]string{from, to}, `{"Type":"ipip"}`) {
			nets = only4
		}
		t.Run(from+" to "+to, func(t *testing.T) { walkMove(t, rnd, from, to, nets) })
	}
}

// walker is a host of the walk.
type walker struct {
	*mover
	stage int
	away  bool // its peers do not have its record
}

func walkMove(t *testing.T, rnd *rand.Rand, from, to, nets string) {
	var all []*walker
	for number := range 4 {
		all = append(all, &walker{mover: newMover(t, from, to, number+1, nets)})
	}
	stage, hosts := before, len(all) // that of the network, which hosts are at, or follow to
	settleAll(all, stage)
	for step := range walkSteps {
		if rnd.IntN(10) == 0 { // the operator goes on, or back, when all have followed
			settleAll(all, stage)
			stage = min(max(stage+1-2*rnd.IntN(2), before), after)
		}
		w := all[rnd.IntN(hosts)]
		switch rnd.IntN(5) {
		case 0:
			w.away = !w.away && w.stage == stage
		case 1:
			w.faulty = func() bool { return rnd.IntN(3) == 0 }
		case 2:
			w.faulty = nil
		default:
			w.enter(stage)
		}
		w.pass(all)
		if checkReach(all); t.Failed() {
			t.Fatalf("after step %d", step)
		}
	}
	settleAll(all, stage)
	fresh := newMover(t, from, to, 1, nets)
	use := &walker{mover: fresh}
	use.enter(stage)
	for range 2 {
		use.pass(all)
	}
	if diff := cmp.Diff(all[0].kernel.State().String(), fresh.kernel.State().String()); diff != "" {
		t.Errorf("at stage %d the kernel is not that of a host that begins there (-got +want):\n%s", stage, diff)
	}
}

// enter has the host use the backends of a stage.
func (w *walker) enter(stage int) {
	w.stage = stage
	w.applier.Use([]backend.Planner{w.from, w.from, w.to, w.to}[stage],
		[][]backend.Planner{{}, {w.to}, {w.from}, {}}[stage]...)
}

// pass has the host hear of the others as they are now, and make a pass, which may fail.
func (w *walker) pass(all []*walker) error {
	var entries []*subnet.Entry
	for _, o := range all {
		if o.self[0].Subnet != w.self[0].Subnet && !o.away {
			r := subnet.Record{Leases: o.leases()}
			entries = append(entries, &subnet.Entry{Record: r, Key: r.Key(), LeaseID: 1})
		}
	}
	w.peers = subnet.PeersOfEntries(entries...)
	return w.applier.Set(w.self, w.peers)
}

// settleAll has all hosts be at a stage, and know it of each other.
func settleAll(all []*walker, stage int) {
	for _, w := range all {
		w.faulty, w.away = nil, false
		w.enter(stage)
	}
	for range 4 {
		for _, w := range all {
			if err := w.pass(all); err != nil {
				w.t.Fatal(err)
			}
		}
	}
}

// checkReach wants each host to have the device that others send to it by.
func checkReach(all []*walker) {
	for _, from := range all {
		for _, to := range all {
			if from == to || to.away || from.peers.Len() == 0 {
				continue
			}
			if _, known := from.peers.Find(to.self[0].Subnet); !known {
				continue
			}
			link := from.link(to.mover)
			have := to.kernel.State().Links
			if link != "" && !slices.ContainsFunc(have, func(l ip.Link) bool { return l.Name == link }) {
				from.t.Errorf("%s sends by %s to %s, which is at stage %d and does not have that", from.self[0].Subnet, link,
					to.self[0].Subnet, to.stage)
			}
		}
	}
}

// fails has an operation of the kernel fail now and then.
func (m *mover) fails() error {
	if m.faulty != nil && m.faulty() {
		return syscall.ENOMEM
	}
	return nil
}
