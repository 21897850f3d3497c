package probe

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"
)

const (
	randoms   = 3 // peers picked by chance in a round
	heards    = 3 // peers that ask us
	suspects  = 3 // peers that did not answer last time
	busies    = 3 // peers that this host has traffic with
	siteEvery = time.Second
	// AnswerRate is how many questions a second a host answers at most, AnswerBurst how many at once.
	AnswerRate  = 500
	AnswerBurst = 200
	// Fresh is how many periods a result stays of use.
	Fresh = 12
)

// Peer is another host as the prober sees it.
type Peer struct {
	Subnet netip.Prefix
	Addr   netip.Addr // inside the tunnel, or of the host where there is none
	Public netip.Addr // of the host
	Silent bool       // it runs something that does not answer probes
}

// Site is this host and its peers.
type Site struct {
	Locals []netip.Addr // own addresses that questions go to, one for each family
	MTU    int
	Peers  []Peer
	// Version is another number whenever anything here is another; 0: that is not known.
	Version uint64
}

// Options say what to probe.
type Options struct {
	Port    uint16 // 0: no prober
	Period  time.Duration
	Version string
	Site    func() Site // called about once a second
	// Busy returns the hosts, by their public address, that packets were sent to since Forget was called last, or nothing
	// if it is too early to look again; nil: not known.
	Busy   func() map[netip.Addr]bool
	Forget func()
	// Admit reports whether one more question is answered, so that nobody has this host send without end: the Allow of a
	// limiter with AnswerRate and AnswerBurst.
	Admit func() bool
	// Observe is called for every small question with what became of it and the time that its answer took.
	Observe func(o Outcome, roundTrip time.Duration)
	Log     *slog.Logger
}

// Outcome is what became of a question.
type Outcome string

// The outcomes.
const (
	Answered Outcome = "answered"
	Lost     Outcome = "lost"
	Refused  Outcome = "refused" // the peer's kernel said that nothing listens on the port
)

// Prober asks peers and answers theirs.
//
//	Site ──▶ sockets on own addresses ──▶ every Period: a few peers by chance, others that we have traffic with,
//	that ask us, that failed
type Prober struct {
	o       Options
	sockets map[netip.Addr]*socket // used by Run alone
	failure string                 // last one of opening a socket

	mu      sync.Mutex // guards all below
	site    Site
	known   map[netip.Addr]bool // who may ask
	heard   map[netip.Addr]time.Time
	results map[netip.Addr]Result
	bad     map[netip.Addr]int // rounds in a row that found something wrong
}

// New returns a prober that does nothing before Run.
func New(o Options) *Prober {
	return &Prober{
		o: o, sockets: map[netip.Addr]*socket{},
		known: map[netip.Addr]bool{}, heard: map[netip.Addr]time.Time{}, results: map[netip.Addr]Result{},
		bad: map[netip.Addr]int{},
	}
}

// Run probes until ctx ends, and then returns nil.
func (p *Prober) Run(ctx context.Context) error {
	if p.o.Port == 0 {
		<-ctx.Done()
		return nil
	}
	var receivers sync.WaitGroup
	defer receivers.Wait()
	defer p.closeAll()
	var next time.Time
	for ctx.Err() == nil {
		p.look(ctx, &receivers)
		if now := time.Now(); !now.Before(next) {
			next = now.Add(p.o.Period/2 + rand.N(p.o.Period))
			if p.rounds(ctx) {
				next = now.Add(p.o.Period / 2)
			}
		}
		pause(ctx, min(siteEvery, p.o.Period))
	}
	return nil
}

// look takes in the present site, and binds to the own addresses as they come and go.
func (p *Prober) look(ctx context.Context, receivers *sync.WaitGroup) {
	site := p.o.Site()
	p.know(site)
	for a, s := range p.sockets {
		if !slices.Contains(site.Locals, a) {
			_ = s.conn.Close()
			delete(p.sockets, a)
		}
	}
	for _, a := range site.Locals {
		if p.sockets[a] != nil {
			continue
		}
		s, err := open(ctx, a, p.o.Port, p.o.Port)
		if err != nil {
			if p.failure != err.Error() {
				p.failure = err.Error()
				p.o.Log.Debug("probes failed, retrying", "reason", err)
			}
			continue
		}
		p.failure, p.sockets[a] = "", s
		receivers.Go(func() { s.receive(func(q packet, from netip.AddrPort, size int) { p.take(s, q, from, size) }) })
	}
}

// know takes in a site.
func (p *Prober) know(site Site) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if site.Version != 0 && site.Version == p.site.Version {
		return
	}
	known := make(map[netip.Addr]bool, len(site.Peers))
	for _, peer := range site.Peers {
		known[peer.Addr] = true
	}
	p.site, p.known = site, known
	for a := range p.results {
		if !known[a] {
			delete(p.results, a)
			delete(p.heard, a)
			delete(p.bad, a)
		}
	}
}

func (p *Prober) closeAll() {
	for _, s := range p.sockets {
		_ = s.conn.Close()
	}
}

// take answers a question of a peer, and takes in answers to ours.
func (p *Prober) take(s *socket, q packet, from netip.AddrPort, size int) {
	if q.kind == answer {
		s.land(q, from.Addr())
		return
	}
	p.mu.Lock()
	known := p.known[from.Addr()]
	if known {
		p.heard[from.Addr()] = time.Now()
	}
	p.mu.Unlock()
	if known && p.o.Admit() {
		s.send(packet{answer, q.nonce, p.o.Version}.encode(size), from)
	}
}

// rounds asks the chosen peers, over each family's socket. It reports whether something is wrong that was not before: a
// peer that has just come may not have its device or its socket yet, so that the next round decides.
func (p *Prober) rounds(ctx context.Context) (again bool) {
	chosen := p.choose(p.busy())
	for local, s := range p.sockets {
		var targets []Target
		for _, t := range chosen {
			if t.Addr.Is4() == local.Is4() {
				targets = append(targets, t)
			}
		}
		results := round(ctx, s, targets, p.o.Version)
		if ctx.Err() != nil {
			return false
		}
		again = p.note(results) || again
		p.observe(results)
	}
	if p.o.Forget != nil {
		p.o.Forget() // what was sent in the round were questions
	}
	return again
}

// note takes in what a round has found, and reports whether it is the first in a row that found something wrong about a
// peer.
func (p *Prober) note(results map[netip.Addr]Result) (again bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for a, r := range results {
		p.results[a] = r
		if !r.Down() && !r.Small(p.site.MTU) {
			delete(p.bad, a)
			continue
		}
		p.bad[a]++
		again = again || p.bad[a] == 1
	}
	return again
}

// busy returns whom this host has sent to since the last round.
func (p *Prober) busy() map[netip.Addr]bool {
	if p.o.Busy == nil {
		return nil
	}
	return p.o.Busy()
}

func (p *Prober) observe(results map[netip.Addr]Result) {
	for _, r := range results {
		for range r.Lost {
			p.o.Observe(Lost, 0)
		}
		for range r.Refused {
			p.o.Observe(Refused, 0)
		}
		for range r.Sent - r.Lost - r.Refused {
			p.o.Observe(Answered, r.RoundTrip)
		}
	}
}

// choose picks whom to ask: a bounded number, however many there are.
func (p *Prober) choose(busy map[netip.Addr]bool) []Target {
	p.mu.Lock()
	defer p.mu.Unlock()
	seen := map[netip.Addr]bool{}
	var out []Target
	add := func(peer Peer) bool {
		if peer.Silent || seen[peer.Addr] {
			return false
		}
		seen[peer.Addr] = true
		r, known := p.results[peer.Addr]
		out = append(out, Target{peer.Addr, p.site.MTU, known && r.Small(p.site.MTU)})
		return true
	}
	failed, heard, used := 0, 0, 0
	start := 0
	if len(p.site.Peers) > 0 {
		start = rand.N(len(p.site.Peers))
	}
	for i := range p.site.Peers {
		peer := p.site.Peers[(start+i)%len(p.site.Peers)]
		r, known := p.results[peer.Addr]
		switch {
		case known && r.Sent > 0 && (r.Down() || r.Small(p.site.MTU)) && failed < suspects:
			if add(peer) {
				failed++
			}
		case time.Since(p.heard[peer.Addr]) < 2*p.o.Period && heard < heards:
			if add(peer) {
				heard++
			}
		case busy[peer.Public] && used < busies:
			if add(peer) {
				used++
			}
		}
	}
	for tries, picked := 0, 0; picked < randoms && tries < 10*randoms && len(p.site.Peers) > 0; tries++ {
		if add(p.site.Peers[rand.N(len(p.site.Peers))]) {
			picked++
		}
	}
	return out
}

// Finding is a result about a peer that is still of use.
type Finding struct {
	Result
	OneWay bool // it asks us, and does not answer us
	Bad    int  // rounds in a row, the last one included, that found something wrong
}

// Sure reports that a second round has confirmed what is wrong.
func (f Finding) Sure() bool { return f.Bad > 1 }

// Findings returns what is known, by the subnet of the peer.
func (p *Prober) Findings() map[netip.Prefix]Finding {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make(map[netip.Prefix]Finding, len(p.results))
	for _, peer := range p.site.Peers {
		r, ok := p.results[peer.Addr]
		if !ok || time.Since(r.At) > Fresh*p.o.Period+WaitTime {
			continue
		}
		heard := time.Since(p.heard[peer.Addr]) < 2*p.o.Period+WaitTime
		out[peer.Subnet] = Finding{r, r.Down() && heard, p.bad[peer.Addr]}
	}
	return out
}
