package udp

import (
	"fmt"
	"iter"
	"math/bits"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"flanneld/backend/udp/offload"
	"flanneld/ip"
	"flanneld/subnet"
)

// What the tests of this package see of its inside.

// Desired is the pure function from leases to the kernel's state.
func Desired(networks []netip.Prefix, self []subnet.Lease, mtu int) ip.State {
	s := ip.NewDesired(desired("flannel0", networks, self, mtu)...).Snapshot()
	return ip.State{Links: slices.Collect(s.Links.All()), Addrs: slices.Collect(s.Addrs.All()),
		Routes: slices.Collect(s.Routes.All())}
}

// Table is the table of one host.
type Table struct{ t *table }

// NewTable makes a table from nothing.
func NewTable(networks []netip.Prefix, self, peers []subnet.Lease) Table {
	return Table{newTables(networks).next(self, nil, subnet.PeersOf(peers...))}
}

// Tables makes one table after the other.
type Tables struct{ t *tables }

// NewTables starts with no peers.
func NewTables(networks []netip.Prefix) Tables { return Tables{newTables(networks)} }

// Next returns the table for these leases and addresses.
func (t Tables) Next(self []subnet.Lease, locals []netip.Addr, peers subnet.Peers) Table {
	return Table{t.t.next(self, locals, peers)}
}

// Change returns the table after one change of a lease.
func (t Tables) Change(old, now *subnet.Lease) Table {
	t.t.change(old, now)
	t.t.settle()
	return Table{t.t.freeze(nil, nil)}
}

// Route returns the underlay address of the host of an address; the zero value if there is none.
func (t Table) Route(dst netip.Addr) netip.Addr {
	if p := t.t.route(dst); p != nil {
		return p.addr
	}
	return netip.Addr{}
}

// Host returns the public address of the peer with an underlay address; the zero value if there is none.
func (t Table) Host(addr netip.Addr) netip.Addr {
	if p := t.t.host(addr); p != nil {
		return p.addr
	}
	return netip.Addr{}
}

// Traffic returns what a worker has carried to and from a host.
func (f *Worker) Traffic(host netip.Addr) offload.Traffic { return f.table.Load().host(host).traffic() }

// Learn has the path to a host take in a path MTU.
func (t Table) Learn(addr netip.Addr, mtu int) { t.t.host(addr).learn(mtu, time.Now()) }

// Learned returns the path MTU that the path to a host has taken in; 0: none.
func (t Table) Learned(addr netip.Addr) int { return int(t.t.host(addr).learned.Load() & 0xffff) }

// Probes returns how many hash tables a search may look into.
func (t Table) Probes() int { return len(t.t.peers[ipv4]) + len(t.t.peers[ipv6]) }

// Copied counts the pages of an earlier table's hash tables that are not in this one.
func (t Table) Copied(from Table) int {
	n := 0
	for f := range families {
		n += copied(from.t.hosts[f], t.t.hosts[f])
		for i := range min(len(t.t.peers[f]), len(from.t.peers[f])) {
			n += copied(from.t.peers[f][i].index, t.t.peers[f][i].index)
		}
	}
	return n
}

func copied(from, to index) int {
	n := 0
	for i := range from.pages {
		if i >= len(to.pages) || &from.pages[i].slots[0] != &to.pages[i].slots[0] {
			n++
		}
	}
	return n
}

// An index with all that is in it, for a test.
type (
	Path  = path
	Index = index
	Draft = draft
)

// SameHash returns the i-th of the keys that have one hash with each other.
func SameHash(i uint64) (k struct{ High, Low uint64 }) {
	k.High, k.Low = i, bits.RotateLeft64(i, 29)
	return k
}

func (x *index) Find(high, low uint64) *Path { return x.find(key{high, low}) }

func (x *index) All() iter.Seq[*Path] { return x.all() }

func (d *draft) Put(high, low uint64, to *Path) bool { return d.put(key{high, low}, to) }

func (d *draft) Delete(high, low uint64) bool { return d.delete(key{high, low}) }

func (d *draft) Freeze() Index { return d.freeze() }

// Wrong says what an index must not be.
func (x *index) Wrong() string {
	all := 0
	for i, p := range x.pages {
		used := 0
		for _, e := range p.slots {
			if e.to != nil {
				used++
			}
		}
		if int(p.used) != used || 2*used > len(p.slots) {
			return fmt.Sprintf("page %d has %d slots, %d of them used, and counts %d", i, len(p.slots), used, p.used)
		}
		all += used
	}
	if n := len(x.pages); all > n*pageFill || n > minPages && all < n*pageFill/8 {
		return fmt.Sprintf("%d pages for %d paths", n, all)
	}
	return ""
}

// Check names the counter that a packet from a host falls under; empty if it is to be delivered.
func (t Table) Check(from, src, dst netip.Addr) string {
	host := t.t.host(from)
	if host == nil {
		return counterNames[dropSender]
	}
	return counterNames[t.t.check(host, src, dst)]
}

// Split returns the packets that one packet for the device, behind its virtio-net header, stands for; nil if it is not
// well-formed.
func Split(b []byte) [][]byte {
	v, p := parseVnet(b), b[vnetSize:]
	if v.gso == gsoNone {
		return [][]byte{p}
	}
	h, ok := parse(p)
	if !ok {
		return nil
	}
	s, ok := newSegmenter(p, h, v)
	if !ok {
		return nil
	}
	var out [][]byte
	for i := range s.count() {
		out = append(out, s.whole(i, nil))
	}
	return out
}

// Super returns the virtio-net header of a packet that stands for many: size is the payload of each, start the length
// of the IP header.
func Super(six, tcp bool, size, start int) []byte {
	v := vnet{flags: vnetNeedsChecksum, gso: gsoUDP, segment: uint16(size), checksumStart: uint16(start),
		checksumOffset: 6}
	if tcp {
		v.gso, v.checksumOffset = gsoTCP4, 16
		if six {
			v.gso = gsoTCP6
		}
	}
	b := make([]byte, vnetSize)
	v.put(b)
	return b
}

// Plain is the virtio-net header of a packet that stands for itself.
func Plain() []byte { return make([]byte, vnetSize) }

// Intact reports whether all checksums of a TCP or UDP packet are right.
func Intact(p []byte) bool {
	h, ok := parse(p)
	return ok && h.total == len(p) && intact(p, &h)
}

// Sum is the checksum of a piece.
func Sum(b []byte, to uint16) uint16 { return sum(b, to) }

// OpenDevice opens a TUN device with one queue, with all offloads or none, and returns its descriptor.
func OpenDevice(name string, offload bool) (int, error) {
	d, err := openDevice(name, 1, offload, nil)
	if err != nil {
		return 0, err
	}
	return d.queues[0], nil
}

// CutsUDP reports whether devices cut UDP packets of any size, which kernels before 6.2 do not.
func CutsUDP(fd int) bool {
	return unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, offloadTCP|offloadUDP) == nil
}

// Unfinished reports whether a kernel has left the checksum of a packet to its network card.
func Unfinished(p []byte) bool {
	h, ok := parse(p)
	r := newRun()
	r.tcp = true
	if ok {
		r.start(p[:h.total], &h)
	}
	return ok && r.complete().flags != 0
}
