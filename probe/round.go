package probe

import (
	"context"
	"net/netip"
	"slices"
	"time"
)

const (
	smallSize = 100 // bytes of the IP packet
	smalls    = 3   // small questions to each peer in a round
	pace      = 2 * time.Millisecond
	lookEvery = 10 * time.Millisecond
	// WaitTime is how long a round waits for answers.
	WaitTime = time.Second
)

// Sizes are the sizes of IP packets, in bytes, that are tried when full ones get lost.
var Sizes = []int{1450, 1400, 1350, 1280, 1200, 1000, 576}

// Result is what one round has found about one peer.
type Result struct {
	At         time.Time
	Sent, Lost int
	Refused    int           // of those sent: the peer's kernel said that nothing listens on the port
	RoundTrip  time.Duration // the best; 0: nothing came back
	PathMTU    int           // the largest packet that came back; 0: only small ones did, or none
	Version    string        // of the daemon that answered
}

// Silent reports that packets reach the peer and no daemon answers there.
func (r Result) Silent() bool { return r.Refused > 0 && r.Refused+r.Lost == r.Sent }

// Down reports that nothing came back.
func (r Result) Down() bool { return r.Lost == r.Sent }

// Small reports that answers come, but none to packets of a size.
func (r Result) Small(mtu int) bool { return !r.Down() && !r.Silent() && r.PathMTU < mtu }

// Target is whom to ask.
type Target struct {
	Addr netip.Addr
	MTU  int  // of the network: the largest packet that must pass
	Full bool // full packets got lost before: try smaller ones as well
}

// round asks all targets and waits for their answers, but not longer than WaitTime.
func round(ctx context.Context, s *socket, targets []Target, version string) map[netip.Addr]Result {
	flights := map[netip.Addr][]*flight{}
	for _, t := range targets {
		sizes := slices.Repeat([]int{smallSize}, smalls)
		if t.MTU > smallSize {
			sizes = append(sizes, t.MTU)
		}
		for _, size := range Sizes {
			if t.Full && size < t.MTU {
				sizes = append(sizes, size)
			}
		}
		for _, size := range sizes {
			flights[t.Addr] = append(flights[t.Addr], s.ask(t.Addr, size, version))
			pause(ctx, pace)
		}
	}
	deadline := time.Now().Add(WaitTime)
	for s.missing() > 0 && time.Now().Before(deadline) && ctx.Err() == nil {
		pause(ctx, lookEvery)
		s.refusals()
	}
	s.refusals() // what is left of them would take room from the next round's
	s.forget()
	out := make(map[netip.Addr]Result, len(flights))
	for addr, fs := range flights {
		out[addr] = summary(fs)
	}
	return out
}

func summary(flights []*flight) Result {
	r := Result{At: time.Now()}
	for _, f := range flights {
		small := f.size == smallSize
		if small {
			r.Sent++
		}
		switch {
		case f.closed && small:
			r.Refused++
		case !f.done && small:
			r.Lost++
		}
		if !f.done || f.closed {
			continue
		}
		r.Version = f.from
		if small {
			if r.RoundTrip == 0 || f.back < r.RoundTrip {
				r.RoundTrip = f.back
			}
		} else {
			r.PathMTU = max(r.PathMTU, f.size)
		}
	}
	return r
}

// Ask makes one round from a local address, without a daemon on this host.
func Ask(ctx context.Context, local netip.Addr, port uint16, targets []Target) (map[netip.Addr]Result, error) {
	s, err := open(ctx, local, 0, port)
	if err != nil {
		return nil, err
	}
	received := make(chan struct{})
	go func() {
		defer close(received)
		s.receive(func(p packet, from netip.AddrPort, _ int) {
			if p.kind == answer {
				s.land(p, from.Addr())
			}
		})
	}()
	out := round(ctx, s, targets, "")
	err = s.conn.Close()
	<-received
	return out, err
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
