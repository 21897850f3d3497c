package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

// PingOptions say how to ping. The zero value: 56 bytes of data as usual, every 10 ms.
type PingOptions struct {
	Interval     time.Duration
	Size         int // of the whole IP packet in bytes; 0: as usual
	DontFragment bool
}

// PingStats are the outcome of a stream of pings.
type PingStats struct {
	Sent, Received int
	RTT            []time.Duration // of the answered, in the order of their sending
	// LostAt is when those were sent that were not answered.
	LostAt []time.Time
	// LongestGap is the longest time between two pings of which none in between was answered.
	LongestGap time.Duration
}

// Lost returns how many pings were not answered.
func (s PingStats) Lost() int { return s.Sent - s.Received }

func (s PingStats) String() string {
	text := fmt.Sprintf("%d of %d pings lost, longest gap %s", s.Lost(), s.Sent, s.LongestGap.Round(time.Millisecond))
	if n := len(s.LostAt); n > 0 {
		text += fmt.Sprintf(", the first was sent at %s, the last at %s", s.LostAt[0].UTC().Format(clock),
			s.LostAt[n-1].UTC().Format(clock))
	}
	return text
}

// clock is the form of a time that can be found in the logs of the daemons.
const clock = "15:04:05.000"

// Pings is a running stream of pings.
type Pings struct {
	dst  netip.Addr
	o    PingOptions
	conn *net.IPConn
	id   int
	stop chan struct{}
	sent sync.WaitGroup

	mu     sync.Mutex // guards all below
	probes []probe    // by sequence number
	err    error      // of the last send that failed
}

// probe is one ping.
type probe struct {
	at  time.Time
	rtt time.Duration // 0: not answered
}

const (
	ipv4Header, ipv6Header, icmpHeader = 20, 40, 8 // bytes
	usualData                          = 56        // bytes
	maxProbes                          = 1 << 16
	pingBuffer                         = 4 << 20 // bytes
	// lateAnswer is how long Stop waits for the answers to the pings of the last recentPings: those to earlier ones have
	// come, or never will. A virtual machine on a busy host stops for longer than a second.
	lateAnswer  = 10 * time.Second
	recentPings = time.Second
)

// Pings starts to ping an address from inside the namespace.
func (n *Namespace) Pings(dst netip.Addr, o PingOptions) (*Pings, error) {
	if o.Interval == 0 {
		o.Interval = 10 * time.Millisecond
	}
	p := &Pings{dst: dst, o: o, stop: make(chan struct{})}
	err := n.Do(func() (err error) {
		network := "ip4:icmp"
		if dst.Is6() {
			network = "ip6:ipv6-icmp"
		}
		p.conn, err = net.DialIP(network, nil, &net.IPAddr{IP: dst.AsSlice()})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open ping socket: %w", err)
	}
	if err := p.setUp(); err != nil {
		_ = p.conn.Close()
		return nil, err
	}
	go p.receive()
	p.sent.Go(p.send)
	return p, nil
}

// setUp sets the socket to never fragment, and takes a number that tells its pings from others'.
func (p *Pings) setUp() error {
	raw, err := p.conn.SyscallConn()
	if err != nil {
		return fmt.Errorf("set up ping socket: %w", err)
	}
	err = raw.Control(func(fd uintptr) {
		p.id = int(fd)
		// What has waited in a queue on the way comes all at once.
		if err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, pingBuffer); err != nil {
			return
		}
		if !p.o.DontFragment {
			return
		}
		if p.dst.Is4() {
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO)
		} else {
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DO)
		}
	})
	return err
}

// send sends until Stop is called.
func (p *Pings) send() {
	ticks := time.NewTicker(p.o.Interval)
	defer ticks.Stop()
	for seq := 0; seq < maxProbes; seq++ {
		p.sendOne(seq)
		select {
		case <-p.stop:
			return
		case <-ticks.C:
		}
	}
}

func (p *Pings) sendOne(seq int) {
	var kind icmp.Type = ipv4.ICMPTypeEcho
	header := ipv4Header + icmpHeader
	if p.dst.Is6() {
		kind, header = ipv6.ICMPTypeEchoRequest, ipv6Header+icmpHeader
	}
	size := usualData
	if p.o.Size != 0 {
		size = max(0, p.o.Size-header)
	}
	m := icmp.Message{Type: kind, Body: &icmp.Echo{ID: p.id, Seq: seq, Data: make([]byte, size)}}
	b, err := m.Marshal(nil) // the kernel sums ICMPv6 up by itself
	if err != nil {
		panic(err) // no outside input
	}
	p.mu.Lock()
	p.probes = append(p.probes, probe{at: time.Now()})
	p.mu.Unlock()
	if _, err := p.conn.Write(b); err != nil { // counts as lost: a route may be missing for a moment
		p.mu.Lock()
		p.err = err
		p.mu.Unlock()
	}
}

// receive takes in answers until the socket is closed.
func (p *Pings) receive() {
	proto := ipv4.ICMPTypeEcho.Protocol()
	if p.dst.Is6() {
		proto = ipv6.ICMPTypeEchoRequest.Protocol()
	}
	b := make([]byte, 64<<10)
	for {
		n, _, err := p.conn.ReadFromIP(b) // without the IPv4 header, unlike Read
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // such as an ICMP error that the kernel passes on
		}
		m, err := icmp.ParseMessage(proto, b[:n])
		if err != nil || m.Type != ipv4.ICMPTypeEchoReply && m.Type != ipv6.ICMPTypeEchoReply {
			continue
		}
		if echo, ok := m.Body.(*icmp.Echo); ok && echo.ID == p.id {
			p.answered(echo.Seq)
		}
	}
}

func (p *Pings) answered(seq int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if seq < len(p.probes) && p.probes[seq].rtt == 0 {
		p.probes[seq].rtt = time.Since(p.probes[seq].at)
	}
}

// String says from where to where.
func (p *Pings) String() string { return p.conn.LocalAddr().String() + " to " + p.dst.String() }

// Stats returns the outcome so far.
func (p *Pings) Stats() PingStats {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := PingStats{Sent: len(p.probes)}
	var last time.Time
	for i, pr := range p.probes {
		if i == 0 {
			last = pr.at
		}
		if pr.rtt == 0 {
			s.LostAt = append(s.LostAt, pr.at)
			s.LongestGap = max(s.LongestGap, pr.at.Sub(last))
			continue
		}
		s.Received++
		s.RTT = append(s.RTT, pr.rtt)
		s.LongestGap = max(s.LongestGap, pr.at.Sub(last))
		last = pr.at
	}
	return s
}

// Cut ends the stream and returns the outcome so far: what is on its way counts as lost.
func (p *Pings) Cut() PingStats {
	close(p.stop)
	p.sent.Wait()
	_ = p.conn.Close()
	return p.Stats()
}

// Stop ends the stream, waits for answers that are late, and returns the outcome.
func (p *Pings) Stop() PingStats {
	close(p.stop)
	p.sent.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), lateAnswer)
	defer cancel()
	since := time.Now().Add(-recentPings)
	_ = Await(ctx, func() error {
		if lost := p.Stats().LostAt; len(lost) > 0 && lost[len(lost)-1].After(since) {
			return errors.New("answers are missing")
		}
		return nil
	})
	s := p.Stats()
	_ = p.conn.Close()
	return s
}

// Ping pings once, and once again every 100 ms until there is an answer; it returns the round-trip time.
func (n *Namespace) Ping(ctx context.Context, dst netip.Addr, o PingOptions) (time.Duration, error) {
	o.Interval = 100 * time.Millisecond
	p, err := n.Pings(dst, o)
	if err != nil {
		return 0, err
	}
	defer p.conn.Close()
	defer p.sent.Wait()
	defer close(p.stop)
	err = Await(ctx, func() error {
		if s := p.Stats(); s.Received == 0 {
			p.mu.Lock()
			defer p.mu.Unlock()
			return errors.Join(fmt.Errorf("%s: no answer from %s to %d pings", n.name, dst, s.Sent), p.err)
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	return p.Stats().RTT[0], nil
}
