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
	closed bool // the target's kernel says that nothing listens there
}

// socket sends questions from one local address and takes in the answers.
type socket struct {
	conn *net.UDPConn
	port uint16 // that daemons answer on

	mu      sync.Mutex // guards all below
	flights map[uint64]*flight
}

// open binds to an address. Packets are never fragmented on the way out (IP_PMTUDISC_PROBE: nor held back by what the
// kernel believes of the path). The kernel keeps ICMP errors for refusals to read.
func open(ctx context.Context, local netip.Addr, localPort, port uint16) (*socket, error) {
	config := net.ListenConfig{Control: func(network, _ string, c syscall.RawConn) (err error) {
		level, discover, errs := syscall.IPPROTO_IP, syscall.IP_MTU_DISCOVER, syscall.IP_RECVERR
		if network == "udp6" {
			level, discover, errs = syscall.IPPROTO_IPV6, syscall.IPV6_MTU_DISCOVER, syscall.IPV6_RECVERR
		}
		return errors.Join(c.Control(func(fd uintptr) {
			err = errors.Join(syscall.SetsockoptInt(int(fd), level, discover, syscall.IP_PMTUDISC_PROBE),
				syscall.SetsockoptInt(int(fd), level, errs, 1))
		}), err)
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

// ask sends one question of a size, the IP header included. An error counts as a loss: the size may be too large for
// the device.
func (s *socket) ask(target netip.Addr, size int, version string) *flight {
	f := &flight{target: target, sent: time.Now(), size: size}
	nonce := rand.Uint64()
	s.mu.Lock()
	s.flights[nonce] = f
	s.mu.Unlock()
	s.send(packet{question, nonce, version}.encode(size-overhead(target)), netip.AddrPortFrom(target, s.port))
	return f
}

// send sends one packet, which may get lost as any may. An error may be that of an earlier packet, which the kernel
// tells once.
func (s *socket) send(b []byte, to netip.AddrPort) {
	for range 3 {
		if _, err := s.conn.WriteToUDPAddrPort(b, to); err == nil || errors.Is(err, syscall.EMSGSIZE) {
			return
		}
	}
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

// refusals takes in what the kernel has kept of ICMP errors: a port unreachable from the target itself says that the
// way there is open.
func (s *socket) refusals() {
	raw, err := s.conn.SyscallConn()
	if err != nil {
		return
	}
	b, oob := make([]byte, minSize), make([]byte, 256)
	for {
		var n, oobn int
		read := raw.Control(func(fd uintptr) {
			n, oobn, _, _, err = syscall.Recvmsg(int(fd), b, oob, syscall.MSG_ERRQUEUE|syscall.MSG_DONTWAIT)
		})
		if read != nil || err != nil {
			return // no more of them
		}
		if p, ok := decode(b[:n]); ok && p.kind == question {
			s.refuse(p, refuser(oob[:oobn]))
		}
	}
}

// refuse ends the wait for an answer that the target's kernel has refused.
func (s *socket) refuse(p packet, by netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f, ok := s.flights[p.nonce]; ok && !f.done && f.target == by {
		f.done, f.closed = true, true
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
