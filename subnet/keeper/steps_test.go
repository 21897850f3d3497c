package keeper

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"runtime/debug"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"flanneld/subnet"
	"flanneld/subnet/subnettest"
)

var (
	stepSchedules = flag.Int("steps.schedules", 20_000, "schedules of single decisions")
	stepSeed      = flag.Uint64("steps.seed", 0, "run this one schedule of single decisions")
)

// foundSeeds are of schedules that have once found a fault.
var foundSeeds = []uint64{
	740818712474, // two hosts waited for each other: see TestAHostThatIsRefusedGivesBackItsOtherClaims
}

const (
	stepHosts = 3
	stepOps   = 40
	stepTTL   = 2 * time.Minute
	stepLives = 2 * time.Second // how long a host must have followed the store without a pause to count as living
)

// steps is one schedule: hosts whose decisions, writes and events are carried out one at a time, in any order and with
// any delay between a decision and its write. Nothing runs beside it.
type steps struct {
	*rand.Rand
	server   *subnettest.Server
	network  Network
	hosts    []*stepHost
	next     int // number of the next identity
	mistakes []string
}

// stepHost is a keeper that runs when it is told to. A live one does at once what is due.
type stepHost struct {
	s         *steps
	n         int
	k         *Keeper
	client    *subnettest.Client
	address   netip.Addr
	addresses map[netip.Addr]bool // all that it ever had: a write may be on its way for long
	ids       map[string]bool     // likewise
	pending   *Action             // decided, not carried out yet
	since     time.Time           // since when it lives; zero: it does not
}

// stepNames are the names of the hosts in the store.
var stepNames = [stepHosts]string{"0", "1", "2"}

// stepNetworks are of IPv6, of IPv4, and of both.
var stepNetworks = func() (networks [3]Network) {
	for i := range networks {
		text := fmt.Sprintf(`{"EnableIPv4":%t,"Network":"10.5.0.0/26","SubnetLen":29,"EnableIPv6":%t,"IPv6Network":"fd00:5::/61",`+
			`"Backend":{"Type":"vxlan"}}`, i != 0, i != 1)
		c, err := subnet.ParseConfig([]byte(text))
		if err != nil {
			panic(err) // no outside input
		}
		networks[i] = Network{Config: c, Text: []byte(text)}
	}
	return networks
}()

func newSteps(seed uint64) *steps {
	s := &steps{Rand: rand.New(rand.NewPCG(seed, 7)), server: subnettest.NewServer()}
	s.network = stepNetworks[seed%3]
	s.server.SetConfig(s.network.Text)
	s.server.OnWrite(s.check)
	for n := range stepHosts {
		h := &stepHost{s: s, n: n, client: s.server.Client(stepNames[n]), addresses: map[netip.Addr]bool{},
			ids: map[string]bool{}}
		h.move(h.home())
		h.start(subnet.State{Identity: s.identity()})
		s.hosts = append(s.hosts, h)
	}
	return s
}

func (s *steps) identity() string {
	s.next++
	return fmt.Sprint("id", s.next)
}

func (s *steps) mistake(format string, args ...any) {
	s.mistakes = append(s.mistakes, time.Now().Format("15:04:05.000 ")+fmt.Sprintf(format, args...))
}

func (h *stepHost) name() string     { return fmt.Sprint("host", h.n) }
func (h *stepHost) home() netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, byte(h.n + 1)}) }

// move gives the host an address.
func (h *stepHost) move(a netip.Addr) {
	h.address, h.addresses[a] = a, true
	if h.k != nil {
		h.k.decideAt = time.Now()
	}
}

func (h *stepHost) attrs(p netip.Prefix) subnet.Attrs {
	a := h.address
	if p.Addr().Is6() {
		b := netip.MustParseAddr("2001:db8::").As16()
		copy(b[12:], a.AsSlice())
		a = netip.AddrFrom16(b)
	}
	return subnet.Attrs{PublicIP: a, BackendType: "vxlan"}
}

// last returns the last four bytes of the first public IP of a record, by which addresses are told apart in both
// families.
func last(r subnet.Record) netip.Addr {
	b := r.Leases[0].PublicIP.AsSlice()
	a, _ := netip.AddrFromSlice(b[len(b)-4:])
	return a
}

// start runs the host anew with what its last run has left.
func (h *stepHost) start(st subnet.State) {
	h.ids[st.Identity] = true
	policy := subnet.LostMove
	if h.n == 0 {
		policy = subnet.LostHold
	}
	h.k = New(h.client, h.s.network, Options{
		Identity: st.Identity, Host: h.name(), Prefix: "/net", TTL: stepTTL, RenewMargin: time.Minute, PeerGrace: time.Minute,
		OnLost: policy,
		State:  st, Attrs: h.attrs, Log: slog.New(slog.DiscardHandler),
		Valid: func(subnet.Lease) error { return nil }, Check: func(subnet.Config) error { return nil },
	})
	h.pending, h.since = nil, time.Time{}
	h.list()
}

// saved is what the host leaves on its disk.
func (h *stepHost) saved() subnet.State {
	v := h.k.View()
	return subnet.State{Identity: v.Own.Identity, Network: "/net", Config: v.Text, Own: v.Own, Until: v.Until,
		Memory: h.k.Memory()}
}

func (h *stepHost) list() {
	snap, err := h.client.List(context.Background())
	if err != nil {
		panic(err) // no fault is planned
	}
	h.k.reset(snap)
}

// hear takes in some of the events that have happened, or all.
func (h *stepHost) hear(all bool) {
	if h.s.server.Revision() == h.k.position.Revision {
		return // nothing has happened, which is so most often
	}
	events, err := h.s.server.Since(h.k.position)
	if err != nil {
		h.list()
		return
	}
	if len(events) > 0 && !all {
		events = events[:1+h.s.IntN(len(events))]
	}
	h.k.follow(events)
}

// decide makes one decision, and write carries it out.
func (h *stepHost) decide() {
	a := h.k.decide()
	h.k.note(a)
	h.pending = &a
}

func (h *stepHost) write() {
	a := h.pending
	h.pending = nil
	switch {
	case a == nil || a.Do == Keep || a.Do == Wait:
	case a.Do == Fail:
		h.cloned(a.Err)
	default:
		if err := h.k.act(context.Background(), *a); err != nil {
			h.k.failed(context.Background(), *a, err, 0)
		}
	}
}

// cloned starts a host anew whose identity is another's.
func (h *stepHost) cloned(err error) {
	if errors.Is(err, ErrCloned) {
		h.start(subnet.State{Identity: h.s.identity()})
	}
}

// live does all that is due now.
func (h *stepHost) live() {
	h.hear(true)
	if err := h.k.step(context.Background()); err != nil {
		since := h.since
		h.cloned(err)
		h.since = since
	}
}

// pass lets time pass, in which the living hosts do what they have to.
func (s *steps) pass(d time.Duration) {
	for end := time.Now().Add(d); ; {
		left := time.Until(end)
		for _, h := range s.hosts {
			if !h.since.IsZero() {
				h.live()
			}
		}
		for _, h := range s.hosts {
			if !h.since.IsZero() {
				h.hear(true) // what the others have done just now
				left = min(left, max(h.k.untilNext(), 5*time.Millisecond))
			}
		}
		if !time.Now().Before(end) {
			return
		}
		s.server.Revision() // its lock orders what was done before what expires
		time.Sleep(left)
		synctest.Wait() // leases expire
	}
}

// check is called for each write, and for each record that expires.
func (s *steps) check(w subnettest.Write) {
	b, a := w.Before, w.After
	for _, h := range s.hosts {
		if b == nil || b.Claim || w.Client == stepNames[h.n] || h.since.IsZero() || time.Since(h.since) < stepLives {
			continue
		}
		v := h.k.View()
		own := v.Own.Identity == b.Identity && h.name() == b.Host && h.address == last(b.Record) &&
			b.Record.Key() == v.Own.Key()
		if own && (w.Client != "" || time.Since(h.since) > stepTTL) {
			s.mistake("%s of host %d, which lives, was changed or deleted by host %q", b.Key, h.n, w.Client)
		}
	}
	if w.Client == "" {
		return
	}
	h := s.hosts[slices.IndexFunc(s.hosts, func(h *stepHost) bool { return stepNames[h.n] == w.Client })]
	switch {
	case a != nil && !h.ids[a.Identity]:
		s.mistake("host %d wrote a record of %s", h.n, a.Identity)
	case a != nil && !a.Claim && a.LeaseID == 0 && (b == nil || b.LeaseID != 0):
		s.mistake("host %d made a reservation of %s", h.n, a.Key)
	case b != nil && !b.Claim && b.LeaseID == 0 && (a == nil || a.LeaseID != 0):
		s.mistake("host %d ended the reservation %s", h.n, b.Key)
	case b != nil && !b.Claim && !h.ids[b.Identity] && !h.addresses[last(b.Record)]:
		s.mistake("host %d wrote over %s of %s", h.n, b.Key, b.Record)
	}
}

// unique looks for two living hosts that hold one subnet, some time after the store was last tampered with.
func (s *steps) unique() {
	holders := map[netip.Prefix]int{}
	for _, h := range s.hosts {
		v := h.k.View()
		if h.since.IsZero() || time.Since(h.since) < 2*stepLives || !v.Status.Held {
			continue
		}
		for _, l := range v.Self {
			if other, ok := holders[l.Subnet]; ok {
				s.mistake("hosts %d and %d both hold %s", other, h.n, l.Subnet)
			}
			holders[l.Subnet] = h.n
		}
	}
}

// step does one random thing.
func (s *steps) step() {
	h := s.hosts[s.IntN(len(s.hosts))]
	switch n := s.IntN(24); n {
	case 0, 1, 2, 3, 4:
		h.decide()
	case 5, 6, 7, 8, 9:
		h.write()
	case 10, 11:
		h.hear(false)
	case 12:
		h.list()
	case 13, 14:
		if h.since.IsZero() {
			h.since = time.Now()
		}
	case 15:
		h.since = time.Time{}
	case 16, 17, 18:
		s.pass([]time.Duration{100 * time.Millisecond, time.Second, 4 * time.Second, 20 * time.Second, time.Minute,
			2 * stepTTL}[s.IntN(6)])
		s.unique()
	case 19: // a crash
		h.start(h.saved())
	case 20: // a new disk, or that of another host
		if from := s.hosts[s.IntN(len(s.hosts))]; from != h {
			h.start(from.saved())
		} else {
			h.start(subnet.State{Identity: s.identity()})
		}
	case 21:
		h.since = time.Time{}
		h.move([]netip.Addr{h.home(), s.hosts[s.IntN(len(s.hosts))].home(),
			netip.AddrFrom4([4]byte{198, 51, 100, byte(h.n + 1)})}[s.IntN(3)])
	default:
		s.tamper(n == 22)
	}
}

// tamper is an operator or a host of flannel: what it does to living hosts is no mistake of theirs.
func (s *steps) tamper(remove bool) {
	for _, h := range s.hosts {
		if !h.since.IsZero() {
			h.since = time.Now()
		}
	}
	var prefixes []netip.Prefix
	for _, p := range s.network.Config.Pools {
		prefixes = append(prefixes, p.At(s.Uint64N(p.Size())))
	}
	entries := s.server.Entries()
	switch {
	case remove && len(entries) > 0:
		s.server.Remove(entries[s.IntN(len(entries))].Key)
	case s.IntN(4) == 0:
		s.server.PutBad(subnet.SubnetsFolder+subnet.Key(prefixes), "rubbish")
	case len(entries) < 6:
		h := s.hosts[s.IntN(len(s.hosts))]
		r := subnet.Record{}
		for _, p := range prefixes {
			r.Leases = append(r.Leases, subnet.Lease{Subnet: p, Attrs: h.attrs(p)})
		}
		if s.IntN(2) == 0 { // for nobody here
			for i := range r.Leases {
				b := r.Leases[i].PublicIP.AsSlice()
				b[len(b)-1] = 200
				r.Leases[i].PublicIP, _ = netip.AddrFromSlice(b)
			}
		}
		s.server.Put(r)
	}
}

func (s *steps) allHeld() bool {
	return !slices.ContainsFunc(s.hosts, func(h *stepHost) bool { return !h.k.Status().Held })
}

// settle lets all hosts live, at addresses of their own, and looks whether each comes to its subnets.
func (s *steps) settle(full bool) {
	for _, h := range s.hosts {
		h.since = time.Now()
		h.move(h.home())
		h.list()
	}
	// The longest waits: records of the dead expire, and a refused claim is asked again after a minute, once for each host
	// in a chain of hosts that have each other's addresses. Once all hosts have their subnets, only some schedules wait
	// for what may happen still.
	const piece = 20 * time.Second
	for left := stepTTL + stepHosts*time.Minute; left > 0 && (full || !s.allHeld()); left -= piece {
		s.pass(piece)
	}
	s.unique()
	for _, h := range s.hosts {
		if v := h.k.View(); !v.Status.Held && !v.Status.Lost && s.hasFree() {
			s.mistake("host %d has no subnet although some are free: %s", h.n, v.Status.Waiting)
		}
	}
}

func (s *steps) hasFree() bool {
	taken := map[netip.Prefix]bool{}
	for _, key := range s.server.Keys() {
		prefixes, _ := subnet.ParseKey(key[len(subnet.SubnetsFolder):])
		for _, p := range prefixes {
			taken[p] = true
		}
	}
	return !slices.ContainsFunc(s.network.Config.Pools, func(p subnet.Pool) bool {
		for i := range p.Size() {
			if !taken[p.At(i)] {
				return false
			}
		}
		return true
	})
}

func runSteps(t *testing.T, seed uint64) (mistakes []string) {
	synctest.Test(t, func(*testing.T) {
		s := newSteps(seed)
		for range stepOps {
			s.step()
		}
		s.settle(seed%8 == 0)
		s.server.Wipe() // stops the timers
		mistakes = s.mistakes
	})
	return mistakes
}

func TestNoOrderOfSingleDecisionsLosesOrSharesASubnet(t *testing.T) {
	if *stepSeed != 0 {
		for _, m := range runSteps(t, *stepSeed) {
			t.Error(m)
		}
		return
	}
	for _, seed := range foundSeeds {
		for _, m := range runSteps(t, seed) {
			t.Errorf("seed %d: %s", seed, m)
		}
	}
	first := rand.Uint64N(1 << 40)
	t.Logf("%d schedules with the seeds from %d on", *stepSchedules, first)
	before := debug.SetGCPercent(3000) // memory is small, and looking through it costs a quarter of the time
	t.Cleanup(func() { debug.SetGCPercent(before) })
	workers := runtime.GOMAXPROCS(0)
	var next atomic.Int64
	for w := range workers {
		t.Run(fmt.Sprint("worker ", w), func(t *testing.T) {
			t.Parallel()
			for i := next.Add(1); i <= int64(*stepSchedules) && !t.Failed(); i = next.Add(1) {
				seed := first + uint64(i)
				for _, m := range runSteps(t, seed) {
					t.Errorf("go test ./subnet/keeper -run TestNoOrder -steps.seed %d: %s", seed, m)
				}
			}
		})
	}
}
