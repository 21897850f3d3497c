package backend_test

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"flanneld/backend"
	"flanneld/ip"
	"flanneld/ip/iptest"
	"flanneld/subnet"
)

// datapath is a backend whose datapath the test looks at, and has fail.
type datapath struct {
	recorder
	kind    string
	opening error
	mtu     int
	runs    atomic.Int32
}

func (d *datapath) MTU() int { return d.mtu }

func (d *datapath) Attrs(netip.Prefix) subnet.Attrs { return subnet.Attrs{BackendType: d.kind} }
func (d *datapath) Observe(ip.Event) bool           { return false }

func (d *datapath) Open([]subnet.Lease, subnet.Peers) error  { return d.opening }
func (d *datapath) Carry([]subnet.Lease, subnet.Peers) error { return nil }

func (d *datapath) Run(ctx context.Context) error {
	d.runs.Add(1)
	defer d.runs.Add(-1)
	<-ctx.Done()
	return nil
}

func applierOf(p backend.Planner) *backend.Applier {
	h := ip.Host{Kernel: iptest.NewKernel(iptest.Faults{}), Log: slog.New(slog.DiscardHandler)}
	return backend.NewApplier(p, h, nil)
}

func TestASecondBackendThatFailsIsNotOfferedAndHoldsUpNothing(t *testing.T) {
	main, second := &datapath{kind: "main"}, &datapath{kind: "second", opening: errors.New("no socket")}
	a := applierOf(main)
	changes := 0
	a.Changed = func() { changes++ }
	a.Use(main, second)
	if err := a.Set(nil, subnet.Peers{}); err != nil || changes != 0 {
		t.Errorf("the pass fails with %v, %d changes", err, changes)
	}
	if err := a.Unsettled(); err == nil || !strings.Contains(err.Error(), "backend second: no socket") {
		t.Errorf("unsettled: %v", err)
	}
	if p := a.Problems(); len(p) != 1 || !strings.Contains(p[0], "second") {
		t.Errorf("problems %q", p)
	}
	second.opening = nil
	if err := a.Set(nil, subnet.Peers{}); err != nil || changes != 1 || a.Unsettled() != nil {
		t.Errorf("when it works: %v, %d changes, unsettled %v", err, changes, a.Unsettled())
	}
	if got := a.Attrs(netip.MustParsePrefix("10.5.1.0/24")).Ways(); len(got) != 2 || got[1].Type != "second" {
		t.Errorf("published ways %v", got)
	}
}

func TestTheFirstBackendChangesInTheRecordWhenItWorks(t *testing.T) {
	first, then := &datapath{kind: "first"}, &datapath{kind: "then"}
	a := applierOf(first)
	kind := func() string { return a.Attrs(netip.MustParsePrefix("10.5.1.0/24")).BackendType }
	then.opening = errors.New("no socket")
	a.Use(then, first)
	if err := a.Set(nil, subnet.Peers{}); err == nil || kind() != "first" {
		t.Errorf("error %v, backend %s", err, kind())
	}
	then.opening = nil
	if err := a.Set(nil, subnet.Peers{}); err != nil || kind() != "then" {
		t.Errorf("error %v, backend %s", err, kind())
	}
}

func TestThePathHasTheSmallestMTUOfAllBackends(t *testing.T) {
	first, then := &datapath{kind: "first", mtu: 1452}, &datapath{kind: "then", mtu: 1420}
	a := applierOf(first)
	for _, tt := range []struct {
		name      string
		planners  []backend.Planner
		opening   error
		mtu, path int
	}{
		{"one", []backend.Planner{first}, nil, 1452, 1452},
		{"a second one", []backend.Planner{first, then}, nil, 1452, 1420},
		{"the second one is the first, and not ready", []backend.Planner{then, first}, errors.New("no keys"), 1452, 1420},
		{"it is ready", []backend.Planner{then, first}, nil, 1420, 1420},
		{"and alone", []backend.Planner{then}, nil, 1420, 1420},
		{"the way back begins", []backend.Planner{then, first}, nil, 1420, 1420},
		{"the way back", []backend.Planner{first}, nil, 1452, 1452},
	} {
		then.opening = tt.opening
		a.Use(tt.planners[0], tt.planners[1:]...)
		if err := a.Set(nil, subnet.Peers{}); (err == nil) != (tt.opening == nil) {
			t.Errorf("%s: the pass ends with %v", tt.name, err)
		}
		if mtu, path := a.MTU(), a.PathMTU(); mtu != tt.mtu || path != tt.path {
			t.Errorf("%s: MTU %d of pods, %d of the path; want %d and %d", tt.name, mtu, path, tt.mtu, tt.path)
		}
	}
}

func TestDatapathsComeAndGoWithTheirBackends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, then := &datapath{kind: "first"}, &datapath{kind: "then"}
		a := applierOf(first)
		s := &source{changed: make(chan struct{}, 1)}
		s.view.Self = []subnet.Lease{{Subnet: netip.MustParsePrefix("10.5.1.0/24")}}
		loop := backend.NewLoop(s, a)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- loop.Run(ctx) }()
		run := func(planners ...backend.Planner) (int32, int32) {
			a.Use(planners[0], planners[1:]...)
			loop.Poke()
			time.Sleep(time.Second) // of the bubble
			synctest.Wait()
			return first.runs.Load(), then.runs.Load()
		}
		for _, tt := range []struct {
			planners    []backend.Planner
			first, then int32
		}{
			{[]backend.Planner{first}, 1, 0},
			{[]backend.Planner{first, then}, 1, 1},
			{[]backend.Planner{then, first}, 1, 1},
			{[]backend.Planner{then}, 0, 1},
			{[]backend.Planner{then, first}, 1, 1},
		} {
			if f, n := run(tt.planners...); f != tt.first || n != tt.then {
				t.Errorf("%d planners: %d and %d datapaths run, want %d and %d", len(tt.planners), f, n, tt.first, tt.then)
			}
		}
		cancel()
		if err := <-ended; err != nil || first.runs.Load()+then.runs.Load() != 0 {
			t.Errorf("at the end %v, %d and %d run", err, first.runs.Load(), then.runs.Load())
		}
	})
}
