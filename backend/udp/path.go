package udp

import (
	"net/netip"
	"sync/atomic"
	"time"
)

// path is the way to one underlay address: all leases of a host share it, and it lives on in the next table.
type path struct {
	addr    netip.Addr
	family  family
	learned atomic.Uint64 // end of validity in Unix seconds << 16 | path MTU; 0: none
	used    atomic.Bool   // packets were sent on it; read far more often than written
}

const (
	// learnedFor is how long a path MTU is believed (net.ipv4.route.mtu_expires).
	learnedFor = 10 * time.Minute
	// Lower ones are not believed: net.ipv4.route.min_pmtu, and RFC 8200, section 5.
	minPathMTU4 = 552
	minPathMTU6 = 1280
)

// use notes that packets were sent.
func (p *path) use() {
	if !p.used.Load() {
		p.used.Store(true)
	}
}

// learn takes in a path MTU, in bytes with the outer headers.
func (p *path) learn(mtu int, now time.Time) {
	least := minPathMTU4
	if p.family == ipv6 {
		least = minPathMTU6
	}
	mtu = max(mtu, least)
	if mtu > 1<<16-1 {
		return
	}
	p.learned.Store(uint64(now.Add(learnedFor).Unix())<<16 | uint64(mtu))
}

// limit returns the largest packet that fits into a datagram on this path, as far as it is known.
func (p *path) limit() int {
	l := p.learned.Load()
	if l == 0 {
		return 1<<16 - 1
	}
	if time.Now().Unix() >= int64(l>>16) {
		p.learned.CompareAndSwap(l, 0)
		return 1<<16 - 1
	}
	return int(l&0xffff) - overhead(p.addr)
}
