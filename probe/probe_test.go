package probe_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/time/rate"

	"flanneld/need"
	"flanneld/probe"
)

const period = 50 * time.Millisecond

// freePort returns a UDP port that was free a moment ago.
func freePort(t *testing.T) uint16 {
	t.Helper()
	c, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.LocalAddr().(*net.UDPAddr).AddrPort().Port()
}

func peer(n byte) probe.Peer {
	return probe.Peer{Subnet: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 5, n, 0}), 24),
		Addr: netip.AddrFrom4([4]byte{127, 0, 7, n})}
}

// limiter bounds answers as the daemon does.
func limiter() func() bool { return rate.NewLimiter(probe.AnswerRate, probe.AnswerBurst).Allow }

// prober runs one on 127.0.7.N until the test ends.
func prober(t *testing.T, port uint16, n byte, observe func(probe.Outcome, time.Duration),
	peers ...probe.Peer) *probe.Prober {
	t.Helper()
	p := probe.New(probe.Options{
		Port: port, Period: period, Version: "v1.2", Observe: observe, Admit: limiter(), Log: slog.New(slog.DiscardHandler),
		Site: func() probe.Site { return probe.Site{Locals: []netip.Addr{peer(n).Addr}, MTU: 1450, Peers: peers} },
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v, want nil on cancel", err)
		}
	})
	return p
}

// await waits until the prober has found out what the condition wants.
func await(t *testing.T, p *probe.Prober, about probe.Peer, ok func(probe.Finding) bool) {
	t.Helper()
	var f probe.Finding
	defer func() {
		if t.Failed() {
			t.Logf("the finding about %s is %+v", about.Subnet, f)
		}
	}()
	need.Until(t, "the finding is the expected one", 30*time.Second, func() (known bool) {
		f, known = p.Findings()[about.Subnet]
		return known && ok(f)
	})
}

func TestPeersAnswerEachOther(t *testing.T) {
	t.Parallel()
	port := freePort(t)
	var answered atomic.Int64
	a := prober(t, port, 1, func(o probe.Outcome, d time.Duration) {
		if o == probe.Answered && d > 0 {
			answered.Add(1)
		}
	}, peer(2))
	prober(t, port, 2, func(probe.Outcome, time.Duration) {}, peer(1))
	await(t, a, peer(2), func(f probe.Finding) bool {
		return f.Sent == 3 && f.Lost == 0 && f.RoundTrip > 0 && f.PathMTU == 1450 && f.Version == "v1.2" && !f.OneWay
	})
	if answered.Load() == 0 {
		t.Error("no answer was observed")
	}
}

func TestAPeerThatSwallowsEverythingIsDown(t *testing.T) {
	t.Parallel()
	port := freePort(t)
	hole, err := net.ListenUDP("udp", &net.UDPAddr{IP: peer(4).Addr.AsSlice(), Port: int(port)})
	if err != nil {
		t.Fatal(err)
	}
	defer hole.Close()
	a := prober(t, port, 3, func(probe.Outcome, time.Duration) {}, peer(4))
	await(t, a, peer(4), func(f probe.Finding) bool { return f.Down() && !f.Silent() && f.RoundTrip == 0 && !f.OneWay })
}

// A peer that has just joined may be asked before it has its socket.
func TestASecondRoundConfirmsWhatIsWrong(t *testing.T) {
	t.Parallel()
	port := freePort(t)
	hole, err := net.ListenUDP("udp", &net.UDPAddr{IP: peer(14).Addr.AsSlice(), Port: int(port)})
	if err != nil {
		t.Fatal(err)
	}
	a := prober(t, port, 13, func(probe.Outcome, time.Duration) {}, peer(14))
	await(t, a, peer(14), func(f probe.Finding) bool {
		if f.Sure() && f.Bad < 2 {
			t.Errorf("sure after one round: %+v", f)
		}
		return f.Down() && f.Sure()
	})
	if err := hole.Close(); err != nil {
		t.Fatal(err)
	}
	prober(t, port, 14, func(probe.Outcome, time.Duration) {}, peer(13))
	await(t, a, peer(14), func(f probe.Finding) bool { return !f.Down() && !f.Small(1450) && f.Bad == 0 })
}

func TestAPeerWithoutADaemonIsSilentAndNotDown(t *testing.T) {
	t.Parallel()
	var refused atomic.Int64
	a := prober(t, freePort(t), 11, func(o probe.Outcome, _ time.Duration) {
		if o == probe.Refused {
			refused.Add(1)
		}
	}, peer(12))
	await(t, a, peer(12), func(f probe.Finding) bool { return f.Silent() && !f.Down() && !f.Small(1450) && !f.OneWay })
	if refused.Load() == 0 {
		t.Error("no refusal was observed")
	}
}

func TestARefusalIsKnownInBothFamilies(t *testing.T) {
	t.Parallel()
	port := freePort(t)
	for _, text := range []string{"127.0.0.1", "::1"} {
		addr := netip.MustParseAddr(text)
		got, err := probe.Ask(t.Context(), addr, port, []probe.Target{{Addr: addr, MTU: 1450}})
		if r := got[addr]; err != nil || !r.Silent() || r.Refused != 3 || r.Lost != 0 {
			t.Errorf("a port of %s that is closed: %+v, %v", addr, r, err)
		}
	}
}

func TestHostsThatAreNoPeersAreNotAnswered(t *testing.T) {
	t.Parallel()
	port := freePort(t)
	a := prober(t, port, 5, func(probe.Outcome, time.Duration) {}, peer(6))
	b := prober(t, port, 6, func(probe.Outcome, time.Duration) {}) // does not know a
	await(t, a, peer(6), func(f probe.Finding) bool { return f.Lost == f.Sent })
	if n := len(b.Findings()); n != 0 {
		t.Errorf("%d findings about hosts that are no peers", n)
	}
}

func TestAPeerThatHearsNothingFromUsIsOneWay(t *testing.T) {
	t.Parallel()
	port := freePort(t)
	a := prober(t, port, 7, func(probe.Outcome, time.Duration) {}, peer(8))
	// The other host asks, and answers nothing.
	c, err := net.DialUDP("udp4", &net.UDPAddr{IP: peer(8).Addr.AsSlice(), Port: int(port)},
		&net.UDPAddr{IP: peer(7).Addr.AsSlice(), Port: int(port)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	question := make([]byte, 64)
	copy(question, "FLP1\x01")
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(period / 2):
				_, _ = c.Write(question)
			}
		}
	}()
	await(t, a, peer(8), func(f probe.Finding) bool { return f.OneWay })
}

func TestTheRateDoesNotGrowWithTheCluster(t *testing.T) {
	t.Parallel()
	port := freePort(t)
	var peers []probe.Peer
	for i := range 250 {
		peers = append(peers, peer(byte(i+1)))
	}
	asked := make(chan struct{}, 1000)
	prober(t, port, 251, func(probe.Outcome, time.Duration) { asked <- struct{}{} }, peers...)
	<-asked // the first round is over
	time.Sleep(5 * time.Millisecond)
	if n := len(asked); n > 36 {
		t.Errorf("a round asked %d times, want at most 3 times 12 peers", n+1)
	}
}

func TestAskWorksWithoutADaemon(t *testing.T) {
	t.Parallel()
	port := freePort(t)
	prober(t, port, 9, func(probe.Outcome, time.Duration) {}, peer(10))
	deadline := time.Now().Add(20 * time.Second)
	for {
		got, err := probe.Ask(t.Context(), peer(10).Addr, port, []probe.Target{{Addr: peer(9).Addr, MTU: 1450}})
		if err == nil && got[peer(9).Addr].Lost == 0 && got[peer(9).Addr].PathMTU == 1450 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("Ask = %+v, %v", got, errors.Join(err))
		}
	}
}

func TestPeersThatWeHaveTrafficWithAreAsked(t *testing.T) {
	t.Parallel()
	port := freePort(t)
	// Among many, one by chance would be found late: rounds ask three of them.
	var peers []probe.Peer
	for i := range 250 {
		p := peer(byte(i + 1))
		p.Public = netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)})
		peers = append(peers, p)
	}
	busy := peers[99]
	asked := make(chan struct{}, 1)
	p := probe.New(probe.Options{
		Port: port, Period: period, Observe: func(probe.Outcome, time.Duration) {}, Admit: limiter(),
		Log: slog.New(slog.DiscardHandler),
		Site: func() probe.Site {
			return probe.Site{Locals: []netip.Addr{peer(252).Addr}, Peers: peers}
		},
		Busy: func() map[netip.Addr]bool {
			select {
			case asked <- struct{}{}:
			default:
			}
			return map[netip.Addr]bool{busy.Public: true}
		},
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	defer func() { cancel(); <-done }()
	<-asked
	need.Until(t, "the busy peer is asked", 20*time.Second, func() bool {
		_, found := p.Findings()[busy.Subnet]
		return found
	})
}

func TestNoProberWithoutPort(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := probe.New(probe.Options{}).Run(ctx); err != nil {
		t.Errorf("Run = %v, want nil", err)
	}
}
