package udp

import (
	"net/netip"
	"sync/atomic"
	"time"

	"golang.org/x/sys/cpu"

	"flanneld/backend/udp/offload"
)

// path is the way to one underlay address: all leases of a host share it, and it lives on in the next table.
type path struct {
	addr    netip.Addr
	family  family
	learned atomic.Uint64 // end of validity in Unix seconds << 16 | path MTU; 0: none
	used    atomic.Bool   // packets were sent on it; read far more often than written

	_ cpu.CacheLinePad // what is above is read for each packet, what is below is written
	// What was carried, by any worker.
	sentPackets, sentBytes, receivedPackets, receivedBytes atomic.Uint64
}

const (
	// learnedFor is how long a path MTU is believed (net.ipv4.route.mtu_expires).
	learnedFor = 10 * time.Minute
	// Lower ones are not believed: net.ipv4.route.min_pmtu, and RFC 8200, section 5.
	minPathMTU4 = 552
	minPathMTU6 = 1280
)

// sent notes that packets were sent.
func (p *path) sent(packets, bytes int) {
	if !p.used.Load() {
		p.used.Store(true)
	}
	p.sentPackets.Add(uint64(packets))
	p.sentBytes.Add(uint64(bytes))
}

// received notes that packets were received.
func (p *path) received(packets, bytes int) {
	p.receivedPackets.Add(uint64(packets))
	p.receivedBytes.Add(uint64(bytes))
}

// traffic returns what was carried.
func (p *path) traffic() offload.Traffic {
	return offload.Traffic{SentPackets: p.sentPackets.Load(), SentBytes: p.sentBytes.Load(),
		ReceivedPackets: p.receivedPackets.Load(), ReceivedBytes: p.receivedBytes.Load()}
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
