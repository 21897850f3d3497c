//go:build simulated

package lab_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"flanneld/backend"
	"flanneld/backend/hostgw"
	"flanneld/backend/vxlan"
	"flanneld/ip"
	"flanneld/subnet"
	"flanneld/subnet/keeper"
)

// simulation is a cluster of many simulated hosts in this process: managers, loops and backends are the real ones, over
// one real etcd; their kernels only count.
type simulation struct {
	b     testing.TB
	ctx   context.Context
	url   string // of the store, or of a proxy before it
	etcd  string // of the store, for its metrics
	pids  []int  // of the store and the proxy
	via   string // the proxy, for the name of a phase
	crash func() // ends the store and starts it again; nil behind a proxy
	wipe  func() // replaces it by an empty one; nil behind a proxy
	hosts []*member
	alone int // how many further hosts there are, each in a process of its own
	next  int // number of the host that joins next
	// slowdown is how many times longer than a real host one waits for connections, and for peers that it has lost, and
	// patience the same for the answers of the store: thousands of hosts share two cores.
	slowdown, patience time.Duration
	// those under way, which are never more than its capacity: each needs as much memory as a real host has for it
	lists chan struct{}

	joined  sync.Map // netip.Prefix → time.Time: when the record of a subnet was written
	records sync.Map // recordID → *subnet.Entry: shared by all hosts
	events  atomic.Int64
	removed atomic.Int64 // routes

	sentBefore   float64            // bytes that the store had sent when the phase began; zero: it is a new one
	begunBefore  map[string]float64 // requests that it had begun to answer
	othersBefore time.Duration      // and what it and the proxy had used of a processor

	mu       sync.Mutex            // guards all below
	lag      map[time.Duration]int // how often news took how long, to a millisecond
	requests map[string]int        // by kind
}

func newSimulation(ctx context.Context, t testing.TB) *simulation {
	return &simulation{b: t, ctx: ctx, slowdown: 1, patience: 1, lists: make(chan struct{}, 1), requests: map[string]int{}}
}

// config is the configuration of the network.
func (c *simulation) config() string { return fmt.Sprintf(scaleNetwork, *simulationBackend) }

// newBackend returns the backend of one host.
func newBackend(config subnet.Config, h ip.Host) (backend.Planner, error) {
	if config.BackendType == hostgw.Type {
		return hostgw.New(config, h)
	}
	return vxlan.New(config, h)
}

// member is one simulated host.
type member struct {
	number int
	kernel *counter
	keeper atomic.Pointer[keeper.Keeper]
	stop   context.CancelFunc
	ended  sync.WaitGroup
}

// view returns what the host knows; nothing before it has found the configuration.
func (h *member) view() subnet.View {
	if k := h.keeper.Load(); k != nil {
		return k.View()
	}
	return subnet.View{}
}

// counter is an ip.Kernel that notes when it is given the route to a peer.
type counter struct {
	ip.Kernel
	sim    *simulation
	routes atomic.Int64
	// bits: which of the subnets of 10.0.0.0/8 have a route; a route that is put again is none more
	there [1 << 16 / 64]uint64
	ops   atomic.Int64
	since time.Time // of the first Apply: what was there before says nothing about how fast news travel
}

func (k *counter) Dump(ip.Scope) (ip.State, error) { return ip.State{}, nil }

func (k *counter) Apply(ops []ip.Op) error {
	now := time.Now()
	k.ops.Add(int64(len(ops)))
	if k.since.IsZero() {
		k.since = now
	}
	var lag []time.Duration
	for _, op := range ops {
		r, ok := op.Object.(ip.Route)
		switch {
		case !ok:
		case op.Delete:
			k.note(r.Dst, false)
		default:
			k.note(r.Dst, true)
			if at, ok := k.sim.joined.Load(r.Dst); ok && k.since.Before(at.(time.Time)) {
				lag = append(lag, now.Sub(at.(time.Time)))
			}
		}
	}
	k.sim.took(lag...)
	return nil
}

// asks counts a request.
func (c *simulation) asks(kind string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.requests[kind]++
}

// took notes how long news took.
func (c *simulation) took(all ...time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, d := range all {
		c.lag[d.Round(time.Millisecond)]++
	}
}

// note takes in that there is a route to a subnet, or that there is none.
func (k *counter) note(subnet netip.Prefix, there bool) {
	b := subnet.Addr().As4()
	i := int(b[1])<<8 | int(b[2])
	word, bit := &k.there[i/64], uint64(1)<<(i%64)
	switch {
	case there && *word&bit == 0:
		k.routes.Add(1)
	case !there && *word&bit != 0:
		k.routes.Add(-1)
		k.sim.removed.Add(1)
	}
	*word &^= bit
	if there {
		*word |= bit
	}
}

func identityOf(i int) string { return fmt.Sprint("host", i) }

// host returns what the backend of host number i is given.
func (c *simulation) host(i int, k ip.Kernel) ip.Host {
	addrs := []netip.Addr{netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)})}
	return ip.Host{
		Kernel: k, Log: slog.New(slog.DiscardHandler), Identity: identityOf(i),
		Underlay: func() ip.Underlay { return ip.Underlay{Link: "eth0", MTU: 1500, Addrs: addrs, PublicAddrs: addrs} },
	}
}

// enter writes the records of n hosts, as their last run left them.
func (c *simulation) enter(n int) {
	s := c.store(c.etcd)
	defer s.Close()
	config, err := subnet.ParseConfig([]byte(c.config()))
	if err != nil {
		c.b.Fatal(err)
	}
	for i := range n {
		b, err := newBackend(config, c.host(i, &counter{sim: c}))
		if err != nil {
			c.b.Fatal(err)
		}
		lease, err := s.Grant(c.ctx, 24*time.Hour)
		if err != nil {
			c.b.Fatal(err)
		}
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i>>8) + 1, byte(i), 0}), 24)
		if _, err := s.Create(c.ctx, subnet.Record{Identity: identityOf(i),
			Leases: []subnet.Lease{{Subnet: p, Attrs: b.Attrs(p)}}}, lease); err != nil {
			c.b.Fatal(err)
		}
	}
}

// join starts host number i.
func (c *simulation) join(i int) *member {
	ctx, cancel := context.WithCancel(c.ctx)
	h := &member{number: i, kernel: &counter{sim: c}, stop: cancel}
	quiet := slog.New(slog.DiscardHandler)
	store := c.store(c.url)
	var b backend.Planner
	check := func(subnet.Config) error { return nil }
	o := keeper.Options{
		Identity: identityOf(i), Prefix: "/simulated", TTL: 24 * time.Hour, RenewMargin: time.Hour,
		PeerGrace: c.slowdown * 10 * time.Minute, OnLost: subnet.LostMove,
		Check: check,
		Attrs: func(p netip.Prefix) subnet.Attrs { return b.Attrs(p) },
		Valid: func(l subnet.Lease) error { return b.Valid(l) },
		Log:   quiet, WatchWait: c.patience * 5 * time.Second,
	}
	h.ended.Go(func() {
		defer store.Close()
		n, err := keeper.WaitConfig(ctx, countingStore{store, c},
			keeper.ConfigOptions{Prefix: "/simulated", Check: check, Log: quiet})
		if err != nil {
			return
		}
		m := keeper.New(countingStore{store, c}, n, o)
		h.keeper.Store(m)
		host := c.host(i, h.kernel)
		b, err = newBackend(n.Config, host)
		if err != nil {
			c.b.Error(err)
			return
		}
		loop := backend.NewLoop(m, backend.NewApplier(b, host, n.Config.Networks()))
		var both sync.WaitGroup
		both.Go(func() { _ = m.Run(ctx) })
		both.Go(func() { _ = loop.Run(ctx) })
		both.Wait()
	})
	return h
}
