package backend

import (
	"context"
	"errors"
	"net/netip"
	"sync"

	"flanneld/backend/skip"
	"flanneld/ip"
	"flanneld/subnet"
)

// Applier puts the plans of a backend into the kernel. It owns the reconciler, what the backend may delete, the
// leftovers of earlier runs, and the list of peers that are left out. Set is called by one goroutine, the other methods
// by any.
type Applier struct {
	Planner
	host       ip.Host
	routes     Routes
	filter     *skip.Filter
	reconciler *ip.Reconciler

	mu    sync.Mutex // guards all below
	scope ip.Scope   // what the planner owns, and until the first clean pass the leftovers of earlier runs
}

// NewApplier returns one for a network.
func NewApplier(p Planner, h ip.Host, networks []netip.Prefix) *Applier {
	a := &Applier{
		Planner: p, host: h, filter: skip.New(h, networks), reconciler: ip.NewReconciler(h.Kernel, h.Log),
		scope: p.Owns().With(h.Leftovers),
	}
	if r, ok := p.(Router); ok {
		a.routes = r.Routes()
	}
	return a
}

// Set makes the data plane be that of these leases: self are this host's, peers all others that are valid. It is
// idempotent and always given the whole set. What can be done is done also when an error is returned.
func (a *Applier) Set(self []subnet.Lease, peers subnet.Peers) error {
	if a.routes != None {
		routed := a.filter.Begin(self, peers)
		if a.routes == PerPeer {
			peers = routed
		}
	}
	want, err := a.Plan(self, peers)
	if err != nil {
		return err
	}
	var problems []string
	if a.routes == PerNetwork {
		want, problems = a.filter.Networks(want)
	}
	d, _ := a.Planner.(Datapath)
	var opened, carried error
	if d != nil {
		opened = a.open(d, self, peers)
	}
	err = a.reconcile(want)
	if a.routes != None {
		a.end(problems)
	}
	if d != nil {
		carried = d.Carry(self, peers)
	}
	return errors.Join(opened, err, carried)
}

func (a *Applier) open(d Datapath, self []subnet.Lease, peers subnet.Peers) error {
	err := d.Open(self, peers)
	if !errors.Is(err, ip.ErrOtherDevice) {
		return err
	}
	// Whatever has the name goes; a second try makes our own.
	if _, cleared := a.reconciler.Reconcile(a.Owns(), ip.Snapshot{}); cleared != nil {
		return errors.Join(err, cleared)
	}
	return d.Open(self, peers)
}

func (a *Applier) reconcile(want ip.Snapshot) error {
	_, err := a.reconciler.Reconcile(a.Scope(), want)
	if err == nil {
		a.mu.Lock()
		a.scope = a.Owns()
		a.mu.Unlock()
	}
	return err
}

func (a *Applier) end(problems []string) {
	var skipped map[netip.Prefix]string
	if s, ok := a.Planner.(Skipper); ok {
		more := []string(nil)
		skipped, more = s.Skipped()
		problems = append(problems, more...)
	}
	a.filter.End(skipped, a.reconciler.Conflicts(), problems...)
}

// Observe takes in a change in the kernel and reports whether Set must be called again. An empty event says that
// anything may have changed.
func (a *Applier) Observe(ev ip.Event) bool {
	drifted := a.reconciler.Observe(ev)
	if o, ok := a.Planner.(Observer); ok {
		return o.Observe(ev) || drifted
	}
	return drifted
}

// Scope returns what may be left in the kernel, for the next run to clean up.
func (a *Applier) Scope() ip.Scope {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.scope
}

// Drift returns how many objects were found changed by others since the start, by kind.
func (a *Applier) Drift() [ip.Kinds]int { return a.reconciler.Drift() }

// Rival names another flannel that has changed objects of this daemon and still runs; empty: there is none.
func (a *Applier) Rival() string { return a.reconciler.Rival() }

// Skipped returns the peers that the last pass has left out, by subnet, and why. Nobody may change it.
func (a *Applier) Skipped() map[netip.Prefix]string { return a.filter.Skipped() }

// Problems says what else the last pass has left out. Nobody may change it.
func (a *Applier) Problems() []string { return a.filter.Problems() }

// Carries reports whether there is a data plane at all.
func (a *Applier) Carries() bool { return a.routes != None }

// MACs returns the hardware addresses of the backend's devices, to be kept for the next run.
func (a *Applier) MACs() map[string]ip.MAC {
	if p, ok := a.Planner.(Addressed); ok {
		return p.MACs()
	}
	return nil
}

// Ingress returns the UDP port that packets of peers arrive at, and the VXLAN network identifier; 0: there is none.
func (a *Applier) Ingress() (port uint16, vni uint32) {
	if i, ok := a.Planner.(Ingress); ok {
		return i.Ingress()
	}
	return 0, 0
}

// run carries the datapath, if it is in user space, until ctx ends; it returns nil then.
func (a *Applier) run(ctx context.Context) error {
	if d, ok := a.Planner.(Datapath); ok {
		return d.Run(ctx)
	}
	<-ctx.Done()
	return nil
}
