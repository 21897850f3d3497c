package udp_test

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"

	"flanneld/backend/udp"
	"flanneld/subnet"
)

// flow describes packets of one flow.
type flow struct {
	six, tcp bool
	src, dst netip.Addr
	hops     uint8
	class    uint8
	dontFrag bool
	id       uint16
	seq      uint32
	flags    uint8
	options  []byte // of TCP, a multiple of 4 bytes
}

// Flags of TCP.
const (
	fin = 1 << iota
	syn
	rst
	psh
	ack
	urg
	ece
	cwr
)

// packet builds one packet with right checksums.
func (f flow) packet(payload []byte) []byte {
	b := f.headers(len(payload))
	b = append(b, payload...)
	start := f.start()
	binary.BigEndian.PutUint16(b[f.field():], 0)
	c := ^udp.Sum(b[start:], f.pseudo(len(b)-start))
	if c == 0 && !f.tcp {
		c = 0xffff
	}
	binary.BigEndian.PutUint16(b[f.field():], c)
	return b
}

// super builds a packet of any size that stands for many of the size given, as the kernel hands it over.
func (f flow) super(payload []byte, size int) []byte {
	b := append(f.headers(len(payload)), payload...)
	binary.BigEndian.PutUint16(b[f.field():], f.pseudo(len(b)-f.start()))
	return append(udp.Super(f.six, f.tcp, size, f.start()), b...)
}

func (f flow) start() int {
	if f.six {
		return 40
	}
	return 20
}

// field is the place of the transport checksum.
func (f flow) field() int {
	if f.tcp {
		return f.start() + 16
	}
	return f.start() + 6
}

func (f flow) protocol() uint8 {
	if f.tcp {
		return 6
	}
	return 17
}

func (f flow) pseudo(size int) uint16 {
	b := append(f.src.AsSlice(), f.dst.AsSlice()...)
	b = append(b, 0, f.protocol(), byte(size>>8), byte(size))
	return udp.Sum(b, 0)
}

func (f flow) headers(payload int) []byte {
	transport := f.transport(payload)
	total := len(transport) + payload
	if f.six {
		b := []byte{0x60 | f.class>>4, f.class << 4, 0x12, 0x34, byte(total >> 8), byte(total), f.protocol(), f.hops}
		b = append(append(b, f.src.AsSlice()...), f.dst.AsSlice()...)
		return append(b, transport...)
	}
	total += 20
	b := []byte{0x45, f.class, byte(total >> 8), byte(total), byte(f.id >> 8), byte(f.id), 0, 0, f.hops, f.protocol(), 0,
		0}
	if f.dontFrag {
		b[6] = 0x40
	}
	b = append(append(b, f.src.AsSlice()...), f.dst.AsSlice()...)
	binary.BigEndian.PutUint16(b[10:], ^udp.Sum(b, 0))
	return append(b, transport...)
}

func (f flow) transport(payload int) []byte {
	if !f.tcp {
		return []byte{0x12, 0x34, 0x56, 0x78, byte((8 + payload) >> 8), byte(8 + payload), 0, 0}
	}
	b := []byte{0x12, 0x34, 0x56, 0x78}
	b = binary.BigEndian.AppendUint32(b, f.seq)
	b = append(b, 1, 2, 3, 4, byte(5+len(f.options)/4)<<4, f.flags, 0xff, 0, 0, 0, 0, 0)
	return append(b, f.options...)
}

// The hosts of the tests: this one has 10.5.1.0/24, the peer 10.5.2.0/24, and the same numbers in IPv6.
var (
	testNetworks = prefixes("10.5.0.0/16", "fd00:5::/48")
	testSelf     = []subnet.Lease{lease("10.5.1.0/24", "192.0.2.1"), lease("fd00:5:0:1::/64", "2001:db8::1")}
	testPeers    = []subnet.Lease{
		lease("10.5.2.0/24", "192.0.2.2"), lease("fd00:5:0:2::/64", "2001:db8::2"),
		lease("10.5.3.0/24", "192.0.2.3"), lease("fd00:5:0:3::/64", "2001:db8::3"),
	}
)

// pod returns the address of a pod on the host of that number.
func pod(six bool, host byte) netip.Addr {
	if six {
		return netip.AddrFrom16([16]byte{0xfd, 0, 0, 5, 0, 0, 0, host, 15: 9})
	}
	return netip.AddrFrom4([4]byte{10, 5, host, 9})
}

// peerAddr returns the underlay address of the host of that number.
func peerAddr(six bool, host byte) netip.Addr {
	if six {
		return netip.AddrFrom16([16]byte{0x20, 1, 0x0d, 0xb8, 15: host})
	}
	return netip.AddrFrom4([4]byte{192, 0, 2, host})
}

// randomFlow returns a flow from a pod of one host to a pod of another.
func randomFlow(r *rand.Rand, from, to byte) flow {
	six := r.IntN(2) == 0
	f := flow{
		six: six, tcp: r.IntN(2) == 0, src: pod(six, from), dst: pod(six, to), hops: byte(2 + r.IntN(200)),
		class:    byte(r.IntN(64)) << 2,
		dontFrag: r.IntN(2) == 0, id: uint16(r.Uint32()), seq: r.Uint32(), flags: ack,
	}
	if f.tcp && r.IntN(2) == 0 {
		f.options = []byte{1, 1, 8, 10, byte(r.Uint32()), 2, 3, 4, 5, 6, 7, 8}
	}
	return f
}

func randomBytes(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func random() (*rand.Rand, uint64) {
	seed := rand.Uint64()
	return rand.New(rand.NewPCG(seed, 0)), seed
}
