package main

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"time"
)

const (
	pingTries = 3
	pingWait  = 400 * time.Millisecond
)

// pings reports whether an address answers an ICMP echo.
func pings(ctx context.Context, a netip.Addr) bool {
	network, ask, answer := "ip4:icmp", byte(8), byte(0)
	if a.Is6() {
		network, ask, answer = "ip6:ipv6-icmp", 128, 129
	}
	c, err := (&net.Dialer{}).DialContext(ctx, network, a.String())
	if err != nil {
		return false
	}
	defer c.Close()
	// Type, code, checksum, identifier, sequence number; the kernel computes the checksum of ICMPv6.
	echo := make([]byte, 16)
	echo[0] = ask
	binary.BigEndian.PutUint16(echo[4:], uint16(os.Getpid()))
	binary.BigEndian.PutUint16(echo[6:], uint16(rand.Uint32()))
	if a.Is4() {
		binary.BigEndian.PutUint16(echo[2:], checksum(echo))
	}
	for range pingTries {
		if _, err := c.Write(echo); err != nil || ctx.Err() != nil {
			return false
		}
		if awaitEcho(c, echo, answer) {
			return true
		}
	}
	return false
}

// awaitEcho reads until the answer or the end of the wait. An IPConn hands IPv4 packets over without their header.
func awaitEcho(c net.Conn, echo []byte, answer byte) bool {
	if c.SetReadDeadline(time.Now().Add(pingWait)) != nil {
		return false
	}
	b := make([]byte, 1500)
	for {
		n, _, err := c.(*net.IPConn).ReadFromIP(b)
		if err != nil {
			return false
		}
		if n >= len(echo) && b[0] == answer && string(b[4:8]) == string(echo[4:8]) {
			return true
		}
	}
}

// checksum is that of RFC 1071 over an even number of bytes.
func checksum(b []byte) uint16 {
	sum := uint32(0)
	for i := 0; i < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
