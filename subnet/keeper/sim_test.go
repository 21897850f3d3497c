package keeper_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"flanneld/subnet"
	"flanneld/subnet/keeper"
	"flanneld/subnet/subnettest"
)

var (
	simSchedules = flag.Int("sim.schedules", 5_000, "schedules of the simulation")
	simSeed      = flag.Uint64("sim.seed", 0, "run this one schedule of the simulation, with the logs of all hosts")
)

const (
	simHosts = 5 // the pool is full with two reservations
	simSteps = 25
	simTTL   = 2 * time.Minute
	simGrace = time.Minute // for peers that a list has lost
)

// sim is one schedule: some hosts on one store, random faults, and a checker that looks at every write.
type sim struct {
	rng    *rand.Rand
	server *subnettest.Server
	hosts  []*simHost
	backup subnettest.Backup
	breach breach
	log    slog.Handler
	config []byte
	pools  []subnet.Pool // of IPv4, IPv6 or both, by the seed

	shaken   time.Time  // when the store was last disturbed
	mu       sync.Mutex // guards all below
	next     int        // number of the next identity
	mistakes []string
}

// breach is a rule that is broken on purpose, to see whether the checker notices. The zero value breaks none.
type breach struct {
	store         func(c *subnettest.Client) subnet.Store
	keepsIdentity bool // a clone that was found out starts anew with the same identity
}

func newSim(seed uint64, b breach) *sim {
	s := &sim{rng: rand.New(rand.NewPCG(seed, 1)), server: subnettest.NewServer(), breach: b, log: slog.DiscardHandler}
	if *simSeed != 0 {
		s.log = slog.NewTextHandler(os.Stderr, nil)
	}
	is4, is6 := seed%3 != 0, seed%3 != 1
	config := fmt.Sprintf(`{"EnableIPv4":%t,"Network":"10.5.0.0/26","SubnetLen":29,"EnableIPv6":%t,"IPv6Network":"fd00:5::/61","Backend":{"Type":"vxlan"}}`, is4, is6)
	c, err := subnet.ParseConfig([]byte(config))
	if err != nil {
		panic(err) // no outside input
	}
	s.pools, s.config = c.Pools, []byte(config)
	s.server.SetConfig(s.config)
	s.server.OnWrite(s.check)
	s.backup = s.server.Backup()
	for i := range simHosts {
		h := &simHost{
			sim: s, n: i, client: s.server.Client(fmt.Sprint(i)), random: rand.New(rand.NewPCG(seed, uint64(i)+2)),
			ids: map[string]bool{}, addresses: map[netip.Addr]bool{}, policy: subnet.LostMove,
		}
		if (seed/3+uint64(i))%3 == 0 {
			h.policy = subnet.LostHold
		}
		h.become(s.identity(), subnet.State{})
		h.move(h.home())
		h.client.OnCall(h.fault)
		s.hosts = append(s.hosts, h)
	}
	return s
}

func (s *sim) identity() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next++
	return fmt.Sprint("id", s.next)
}

// simHost is a host as the daemon makes it: it has a state folder, and gets a new identity when its own is another's.
type simHost struct {
	sim    *sim
	n      int
	client *subnettest.Client
	policy subnet.LostPolicy
	stop   context.CancelFunc
	ended  chan struct{}

	mu        sync.Mutex // guards all below
	random    *rand.Rand // of the faults
	id        string
	address   netip.Addr
	ids       map[string]bool     // all that it ever had: a write may be on its way for long
	addresses map[netip.Addr]bool // likewise
	state     subnet.State
	early     *subnet.Memory // as it was some time ago; nil: not looked at
	manager   *daemon
	faulty    bool
	cut       bool
	lags      bool
	well      time.Time // since when nothing disturbs it; zero: something does
	calls     int       // since second
	second    time.Time
}

func (h *simHost) name() string { return fmt.Sprint("host", h.n) }

// home is the address that no other host has.
func (h *simHost) home() netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, byte(h.n + 1)}) }

// inFamilyOf is the address of a host in the family of a subnet, by its IPv4 address; addressOf is the inverse.
func inFamilyOf(p netip.Prefix, a netip.Addr) netip.Addr {
	if p.Addr().Is4() {
		return a
	}
	b := netip.MustParseAddr("2001:db8::").As16()
	copy(b[12:], a.AsSlice())
	return netip.AddrFrom16(b)
}

func addressOf(r subnet.Record) netip.Addr {
	b := r.Leases[0].PublicIP.AsSlice()
	a, _ := netip.AddrFromSlice(b[len(b)-4:])
	return a
}

// disturb changes what disturbs the host.
func (h *simHost) disturb(change func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	change()
	h.wellLocked()
}

func (h *simHost) wellLocked() {
	h.well = time.Time{}
	if h.manager != nil && !h.cut && !h.faulty && !h.lags {
		h.well = time.Now()
	}
}

func (h *simHost) become(id string, st subnet.State) {
	h.disturb(func() { h.id, h.state, h.ids[id] = id, st, true })
}

func (h *simHost) move(a netip.Addr) {
	h.disturb(func() { h.address, h.addresses[a] = a, true })
	if h.stop != nil {
		h.mu.Lock()
		m := h.manager // a clone that was found out starts anew meanwhile
		h.mu.Unlock()
		m.Refresh()
	}
}

func (h *simHost) run() {
	if h.stop != nil {
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	h.stop, h.ended = stop, make(chan struct{})
	h.newManager()
	go func() {
		defer close(h.ended)
		for {
			m := h.manager
			err := m.Run(ctx)
			if !errors.Is(err, keeper.ErrCloned) {
				return
			}
			if !h.sim.breach.keepsIdentity {
				h.become(h.sim.identity(), subnet.State{})
			}
			h.newManager()
		}
	}()
}

func (h *simHost) newManager() {
	h.mu.Lock()
	defer h.mu.Unlock()
	o := keeper.Options{
		Identity: h.id, Host: h.name(), Prefix: "/net", TTL: simTTL, RenewMargin: time.Minute, PeerGrace: simGrace,
		OnLost: h.policy, State: h.state, Log: slog.New(h.sim.log).With("host", h.n),
		Valid: func(subnet.Lease) error { return nil }, Check: func(subnet.Config) error { return nil },
		Attrs: func(p netip.Prefix) subnet.Attrs {
			h.mu.Lock()
			defer h.mu.Unlock()
			return subnet.Attrs{PublicIP: inFamilyOf(p, h.address), BackendType: "vxlan"}
		},
	}
	if err := o.State.Usable("/net", time.Now()); err != nil {
		o.State = subnet.State{}
	}
	var store subnet.Store = h.client
	if f := h.sim.breach.store; f != nil {
		store = f(h.client)
	}
	h.manager = newDaemon(store, o)
	h.wellLocked()
}

// write writes the file of the memory, if there is none since the host was started.
func (h *simHost) write() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.manager != nil && h.early == nil {
		m := h.manager.Memory()
		h.early = &m
	}
}

// halt is a crash; the state folder stays.
func (h *simHost) halt() {
	if h.stop == nil {
		return
	}
	h.stop()
	<-h.ended
	h.stop = nil
	v := h.manager.View()
	m := h.manager.Memory()
	h.disturb(func() {
		h.manager = nil
		if h.early != nil && h.random.IntN(2) == 0 { // the file of the memory is written now and then only
			m = *h.early
		}
		h.early = nil
		h.state = subnet.State{Identity: h.id, Network: "/net", Config: v.Text, Own: v.Own, Until: v.Until, Memory: m}
	})
}

// runSim runs one schedule and returns the mistakes that were seen.
func runSim(t *testing.T, seed uint64, b breach) (mistakes []string) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(seed, b)
		for range simSteps {
			s.step()
		}
		s.settle()
		for _, h := range s.hosts {
			h.halt()
		}
		s.server.Wipe() // stops the timers
		mistakes = s.mistakes
	})
	return mistakes
}

// Slow: five thousand schedules of whole keepers are simulated.
func TestNoScheduleOfFaultsLosesOrSharesASubnet(t *testing.T) {
	if *simSeed != 0 {
		for _, m := range runSim(t, *simSeed, breach{}) {
			t.Error(m)
		}
		return
	}
	first := rand.Uint64N(1 << 40)
	t.Logf("%d schedules with the seeds from %d on", *simSchedules, first)
	const workers = 4
	for w := range workers {
		t.Run(fmt.Sprint("worker ", w), func(t *testing.T) {
			t.Parallel()
			for i := w; i < *simSchedules && !t.Failed(); i += workers {
				seed := first + uint64(i)
				for _, m := range runSim(t, seed, breach{}) {
					t.Errorf("go test ./subnet/keeper -run TestNoSchedule -sim.seed %d: %s", seed, m)
				}
			}
		})
	}
}
