package main

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"syscall"
	"time"
)

const (
	pingTries = 3
	pingWait  = 400 * time.Millisecond
	pingSize  = 64 // bytes, of a packet that only asks whether anybody is there
)

// pings reports whether an address answers an ICMP echo.
func pings(ctx context.Context, a netip.Addr) bool {
	p, err := dialPinger(ctx, a)
	if err != nil {
		return false
	}
	defer p.conn.Close()
	for range pingTries {
		if _, ok, err := p.ask(pingSize, pingWait); ok || err != nil || ctx.Err() != nil {
			return ok
		}
	}
	return false
}

// pinger sends ICMP echo requests to one address (RFC 792, RFC 4443). No program here links golang.org/x/net/icmp, and
// this one must stay small.
type pinger struct {
	conn           *net.IPConn
	request, reply byte // types of the two messages
	header         int  // bytes of the IP header
	id, seq        uint16
}

// dialPinger needs CAP_NET_RAW.
func dialPinger(ctx context.Context, a netip.Addr) (*pinger, error) {
	p := &pinger{request: 8, reply: 0, header: 20, id: uint16(rand.Uint32())}
	network, level, option, probe := "ip4:icmp", syscall.IPPROTO_IP, syscall.IP_MTU_DISCOVER, syscall.IP_PMTUDISC_PROBE
	if a.Is6() {
		p = &pinger{request: 128, reply: 129, header: 40, id: p.id}
		network, level, option, probe = "ip6:ipv6-icmp", syscall.IPPROTO_IPV6, syscall.IPV6_MTU_DISCOVER,
			syscall.IPV6_PMTUDISC_PROBE
	}
	c, err := (&net.Dialer{}).DialContext(ctx, network, a.String())
	if err != nil {
		return nil, err
	}
	p.conn = c.(*net.IPConn)
	// Packets are not fragmented, so that one that is too big for the path gets lost.
	raw, err := p.conn.SyscallConn()
	if err == nil {
		err = errors.Join(raw.Control(func(fd uintptr) { err = syscall.SetsockoptInt(int(fd), level, option, probe) }), err)
	}
	if err != nil {
		return nil, errors.Join(err, p.conn.Close())
	}
	return p, nil
}

// ask sends one packet of that size, IP header included, and waits for its answer. ok is false when none came in time,
// or when the packet is bigger than the device takes.
func (p *pinger) ask(size int, wait time.Duration) (roundTrip time.Duration, ok bool, err error) {
	p.seq++
	echo := make([]byte, size-p.header)
	echo[0] = p.request
	// Type, code, checksum, identifier, sequence number; the kernel computes the checksum of ICMPv6.
	binary.BigEndian.PutUint16(echo[4:], p.id)
	binary.BigEndian.PutUint16(echo[6:], p.seq)
	if p.header == 20 {
		binary.BigEndian.PutUint16(echo[2:], checksum(echo))
	}
	start := time.Now()
	if err := p.conn.SetReadDeadline(start.Add(wait)); err != nil {
		return 0, false, err
	}
	if _, err := p.conn.Write(echo); errors.Is(err, syscall.EMSGSIZE) {
		return 0, false, nil
	} else if err != nil {
		return 0, false, err
	}
	return p.await(echo, start)
}

// await reads until the answer or the end of the wait. An IPConn hands IPv4 packets over without their header.
func (p *pinger) await(echo []byte, start time.Time) (time.Duration, bool, error) {
	b := make([]byte, 1<<16)
	for {
		n, _, err := p.conn.ReadFromIP(b)
		took := time.Since(start)
		if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
			return 0, false, nil
		}
		if err != nil {
			return 0, false, err
		}
		if n >= len(echo) && b[0] == p.reply && string(b[4:8]) == string(echo[4:8]) {
			return took, true, nil
		}
	}
}

// checksum is that of RFC 1071.
func checksum(b []byte) uint16 {
	sum := uint32(0)
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	if len(b)%2 == 1 {
		sum += uint32(b[len(b)-1]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
