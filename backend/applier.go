package backend

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"

	"flanneld/backend/skip"
	"flanneld/ip"
	"flanneld/subnet"
)

// Applier puts the plans of the backends of a host into the kernel, of one or, while the network moves from one to
// another, of several. It owns the reconciler, what the backends may delete, the leftovers of earlier runs, and the
// list of peers that are left out. Set is called by one goroutine, the other methods by any.
type Applier struct {
	// Changed is called by the goroutine of Set when Attrs and MTU answer differently. It may be set before Run.
	Changed func()

	host       ip.Host
	networks   []netip.Prefix
	filter     *skip.Filter
	reconciler *ip.Reconciler
	runs       runs

	now      []*member // of the last pass
	leaving  []*member // to be stopped when the kernel is rid of what they own
	offers   offers
	ranks    ranks
	unequal  bool                    // the last pass had more than one way to some peers
	pathless map[netip.Prefix]string // peers that no planner reaches, and why

	mu        sync.Mutex // guards all below
	next      []*member  // of the next pass, the preferred one first
	published []*member  // whose objects the kernel has
	scope     ip.Scope   // what they own, and until the next clean pass what planners and runs before have left
	unsettled error      // why the kernel does not have those of all
	lacking   []string   // planners that could not be made, and why
}

// NewApplier returns one for a network.
func NewApplier(p Planner, h ip.Host, networks []netip.Prefix) *Applier {
	main := newMember(p)
	return &Applier{
		Changed: func() {}, host: h, networks: networks, filter: skip.New(h, networks),
		reconciler: ip.NewReconciler(h.Kernel, h.Log), runs: newRuns(main),
		now: []*member{main}, next: []*member{main}, published: []*member{main}, scope: p.Owns().With(h.Leftovers),
	}
}

// Use replaces the planners from the next pass on: main is preferred, others follow in this order. Those that were
// there before go on. No two may own one device.
func (a *Applier) Use(main Planner, others ...Planner) {
	a.mu.Lock()
	defer a.mu.Unlock()
	before := a.next
	a.next = nil
	for _, p := range append([]Planner{main}, others...) {
		i := slices.IndexFunc(before, func(m *member) bool { return m.Planner == p })
		if i >= 0 {
			a.next = append(a.next, before[i])
		} else {
			a.next = append(a.next, newMember(p))
		}
	}
}

// Lack says which planners are missing, and why. They are problems until it is called again.
func (a *Applier) Lack(problems ...string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.lacking = problems
}

// members returns the planners of this pass.
func (a *Applier) members() []*member {
	a.mu.Lock()
	defer a.mu.Unlock()
	if slices.Equal(a.now, a.next) {
		return a.now
	}
	for _, m := range a.now {
		switch {
		case slices.Contains(a.next, m):
		case shared(owns([]*member{m}).Links, owns(a.next).Links):
			a.runs.stop(m) // its successor opens the same
		default:
			a.leaving = append(a.leaving, m)
		}
	}
	a.now, a.scope = a.next, a.scope.With(owns(a.next))
	a.runs.use(a.now)
	a.reconciler.Observe(ip.Event{}) // what the new ones own was not looked at
	return a.now
}

func shared(a, b []string) bool {
	return slices.ContainsFunc(a, func(s string) bool { return slices.Contains(b, s) })
}

// owns returns the union of what planners own.
func owns(members []*member) ip.Scope {
	s := members[0].Owns()
	for _, m := range members[1:] {
		more := m.Owns()
		more.Networks = nil // those of the network, as of the first
		boot := s.BootGateways || more.BootGateways
		s = s.With(more)
		s.BootGateways = boot
	}
	return s
}

// Set makes the data plane be that of these leases: self are this host's, peers all others that are valid. It is
// idempotent and always given the whole set. What can be done is done also when an error is returned. What planners
// behind the first one lack is no error: see Unsettled.
func (a *Applier) Set(self []subnet.Lease, peers subnet.Peers) error {
	members := a.members()
	routed := peers
	if carries(members) {
		routed = a.filter.Begin(self, peers)
	}
	views := a.views(members, peers, routed)
	want, problems, err := a.plan(members, self, views)
	if err != nil {
		return err
	}
	opened := a.each(members, self, views, a.open)
	err = a.reconcile(members, want)
	if carries(members) {
		a.end(members, problems)
	}
	carried := a.each(members, self, views, func(d Datapath, self []subnet.Lease, peers subnet.Peers) error {
		return d.Carry(self, peers)
	})
	err = errors.Join(opened, err, carried)
	a.settle(members, err)
	return err
}

func carries(members []*member) bool {
	return slices.ContainsFunc(members, func(m *member) bool { return m.routes != None })
}

// views returns the peers as each planner is to be given them.
func (a *Applier) views(members []*member, peers, routed subnet.Peers) []seen {
	a.pathless = nil
	some := a.offers.follow(peers)
	if a.unequal = some || len(members) > 1; !a.unequal {
		m := members[0]
		m.lens, m.fold, m.short = nil, nil, ""
		return []seen{{peers, routed}}
	}
	r, views := rank(members), make([]seen, len(members))
	most := 0
	for i, m := range members {
		views[i] = r.see(i, peers, routed)
		most = max(most, views[i].routed.Len())
		m.short = ""
		if peer := r.unreached(i, views[i].all); peer != "" && i > 0 {
			m.short = fmt.Sprintf("backend %s does not reach %s", m.kind, peer)
		}
	}
	if peer := r.awaited(routed); peer != "" {
		members[0].short = fmt.Sprintf("no keys are exchanged yet with %s", peer)
	}
	if a.ranks = r; most < routed.Len() {
		a.pathless = r.pathless(routed)
	}
	return views
}

// plan returns the union of the plans. Where two have a route to one peer, that of the first of them is in it: the
// others keep what else they need to send to the peer, so that a packet in flight never meets a path of which half is
// removed. The error is that of the first planner, without whose plan there is none.
func (a *Applier) plan(members []*member, self []subnet.Lease, views []seen) (want ip.Snapshot, problems []string,
	err error) {
	wide := false // a planner before has the routes of the networks
	mtu := narrowest(members)
	for i, m := range members {
		plan, err := m.Plan(self, m.given(views[i]))
		if err != nil && i == 0 {
			return ip.Snapshot{}, nil, err
		}
		if err != nil {
			m.short = err.Error()
			plan = m.last
		}
		m.last = plan
		if m.routes == PerNetwork {
			var missing []string
			plan, missing = a.filter.Networks(plan)
			if problems = append(problems, missing...); len(members) > 1 {
				plan = m.paths(plan, a.networks, views[i].routed, !wide)
			}
			wide = true
		}
		if m.MTU() > mtu {
			plan = plan.WithMTU(mtu)
		}
		want = want.With(plan)
	}
	return want, problems, nil
}

// given returns the peers that Plan and the datapath are given.
func (m *member) given(s seen) subnet.Peers {
	if m.routes == PerPeer {
		return s.routed
	}
	return s.all
}

// each calls a function of all datapaths. The error is that of the first planner.
func (a *Applier) each(members []*member, self []subnet.Lease, views []seen,
	do func(Datapath, []subnet.Lease, subnet.Peers) error) (first error) {
	for i, m := range members {
		d, ok := m.Planner.(Datapath)
		if !ok {
			continue
		}
		switch err := do(d, self, m.given(views[i])); {
		case err != nil && i == 0:
			first = err
		case err != nil:
			m.short = err.Error()
		}
	}
	return first
}

func (a *Applier) open(d Datapath, self []subnet.Lease, peers subnet.Peers) error {
	err := d.Open(self, peers)
	if !errors.Is(err, ip.ErrOtherDevice) {
		return err
	}
	// Whatever has the name goes; a second try makes our own.
	clear, alone := d.(Planner).Owns(), len(a.now) == 1
	if !alone {
		clear.Networks = nil // the routes of the others; those on the device go with it
	}
	_, cleared := a.reconciler.Reconcile(clear, ip.Snapshot{})
	if !alone {
		a.reconciler.Observe(ip.Event{})
	}
	if cleared != nil {
		return errors.Join(err, cleared)
	}
	return d.Open(self, peers)
}

func (a *Applier) reconcile(members []*member, want ip.Snapshot) error {
	_, err := a.reconciler.Reconcile(a.Scope(), want)
	if err == nil {
		a.runs.stop(a.leaving...)
		a.leaving = nil
		a.mu.Lock()
		a.scope = owns(members)
		a.mu.Unlock()
		return nil
	}
	for _, m := range members[1:] {
		if onlyOn(err, m.Owns().Links) {
			m.short = err.Error()
			return nil
		}
	}
	return err
}

// onlyOn reports whether an error consists of failed operations on some devices.
func onlyOn(err error, links []string) bool {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return !slices.ContainsFunc(joined.Unwrap(), func(e error) bool { return !onlyOn(e, links) })
	}
	var op *ip.OpError
	return errors.As(err, &op) && slices.Contains(links, op.Op.Object.Device())
}

func (a *Applier) end(members []*member, problems []string) {
	skipped := map[netip.Prefix]string{}
	maps.Copy(skipped, a.pathless)
	for i, m := range members {
		s, ok := m.Planner.(Skipper)
		if !ok {
			continue
		}
		some, more := s.Skipped()
		problems = append(problems, more...)
		if !a.unequal {
			skipped = some
			continue
		}
		if len(more) > 0 {
			m.short = more[0]
		}
		for p, why := range some {
			if l, ok := a.offers.peers.Find(p); ok && a.ranks.carrier(l) == i {
				skipped[p] = why
			}
		}
	}
	for _, m := range members[1:] {
		if m.short != "" && !slices.Contains(problems, m.short) {
			problems = append(problems, fmt.Sprintf("additional backend %s failed: %s", m.kind, m.short))
		}
	}
	a.mu.Lock()
	problems = append(problems, a.lacking...)
	a.mu.Unlock()
	a.filter.End(skipped, a.reconciler.Conflicts(), problems...)
}

// settle has Attrs say what the kernel holds since this pass. A planner that lacks something becomes the first one only
// when it does not any more; one that was the first before stays it.
func (a *Applier) settle(members []*member, err error) {
	a.mu.Lock()
	published, lacks := a.published[:0:0], error(nil)
	for i, m := range members {
		if m.short == "" || i == 0 && m == a.published[0] {
			published = append(published, m)
		} else {
			lacks = errors.Join(lacks, fmt.Errorf("backend %s: %s", m.kind, m.short))
		}
	}
	for _, why := range a.lacking {
		lacks = errors.Join(lacks, errors.New(why))
	}
	a.unsettled = lacks
	changed := err == nil && len(published) > 0 && published[0] == members[0] && !slices.Equal(published, a.published)
	if changed {
		a.published = published
	}
	if data := members[0].Attrs(anyIPv4).BackendData; err == nil && data != members[0].data {
		members[0].data, changed = data, true
	}
	a.mu.Unlock()
	if changed {
		a.Changed()
	}
}

// Unsettled says what planners behind the first one lack; nil: nothing. They do not hold up the first one, and Set is
// to be called again soon.
func (a *Applier) Unsettled() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.unsettled
}

// Observe takes in a change in the kernel and reports whether Set must be called again. An empty event says that
// anything may have changed.
func (a *Applier) Observe(ev ip.Event) bool {
	again := a.reconciler.Observe(ev)
	a.mu.Lock()
	members := a.next
	a.mu.Unlock()
	for _, m := range members {
		if o, ok := m.Planner.(Observer); ok {
			again = o.Observe(ev) || again
		}
	}
	return again
}

// run carries the datapaths that are in user space until ctx ends; it returns nil then.
func (a *Applier) run(ctx context.Context) error { return a.runs.run(ctx) }
