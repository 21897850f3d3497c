package probe

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"
)

// overhead of the IP and UDP headers, in bytes.
func overhead(a netip.Addr) int {
	if a.Is4() {
		return 28
	}
	return 48
}

// flight is a question that is under way.
type flight struct {
	target netip.Addr
	sent   time.Time
	size   int // of the IP packet
	back   time.Duration
	from   string // version of who answered
	done   bool
}

// socket sends questions from one local address and takes in the answers.
type socket struct {
	conn *net.UDPConn
	port uint16 // that daemons answer on

	mu      sync.Mutex // guards all below
	flights map[uint64]*flight
}

// open binds to an address. Packets are never fragmented on the way out (IP_PMTUDISC_PROBE: nor held back by what the kernel
// believes of the path).
func open(ctx context.Context, local netip.Addr, localPort, port uint16) (*socket, error) {
	config := net.ListenConfig{Control: func(network, _ string, c syscall.RawConn) (err error) {
		level, option := syscall.IPPROTO_IP, syscall.IP_MTU_DISCOVER
		if network == "udp6" {
			level, option = syscall.IPPROTO_IPV6, syscall.IPV6_MTU_DISCOVER
		}
		return errors.Join(c.Control(func(fd uintptr) { err = syscall.SetsockoptInt(int(fd), level, option, syscall.IP_PMTUDISC_PROBE) }), err)
	}}
	network := "udp4"
	if local.Is6() {
		network = "udp6"
	}
	conn, err := config.ListenPacket(ctx, network, netip.AddrPortFrom(local, localPort).String())
	if err != nil {
		return nil, fmt.Errorf("open probe socket: %w", err)
	}
	return &socket{conn: conn.(*net.UDPConn), port: port, flights: map[uint64]*flight{}}, nil
}

// ask sends one question of a size, the IP header included. An error counts as a loss: the size may be too large for the device.
func (s *socket) ask(target netip.Addr, size int, version string) *flight {
	f := &flight{target: target, sent: time.Now(), size: size}
	nonce := rand.Uint64()
	s.mu.Lock()
	s.flights[nonce] = f
	s.mu.Unlock()
	b := packet{question, nonce, version}.encode(size - overhead(target))
	_, _ = s.conn.WriteToUDPAddrPort(b, netip.AddrPortFrom(target, s.port))
	return f
}

// land takes in an answer, if it is one to a question of ours.
func (s *socket) land(p packet, from netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f, ok := s.flights[p.nonce]
	if ok && !f.done && f.target == from {
		f.done, f.back, f.from = true, max(time.Since(f.sent), 1), p.version
	}
}

// missing returns how many questions have no answer yet.
func (s *socket) missing() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, f := range s.flights {
		if !f.done {
			n++
		}
	}
	return n
}

// forget ends the wait for all answers; the flights may be read from then on.
func (s *socket) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flights = map[uint64]*flight{}
}

// receive hands packets to f until the socket is closed.
func (s *socket) receive(f func(p packet, from netip.AddrPort, size int)) {
	b := make([]byte, 64<<10)
	for {
		n, from, err := s.conn.ReadFromUDPAddrPort(b)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // an ICMP error that came back for a question
		}
		if p, ok := decode(b[:n]); ok {
			f(p, netip.AddrPortFrom(from.Addr().Unmap(), from.Port()), n)
		}
	}
}
