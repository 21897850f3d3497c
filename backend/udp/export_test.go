package udp

import (
	"net/netip"
	"slices"

	"flanneld/ip"
	"flanneld/subnet"
)

// What the tests of this package see of its inside.

// Desired is the pure function from leases to the kernel's state.
func Desired(networks []netip.Prefix, self []subnet.Lease, mtu int) ip.State {
	s := ip.NewDesired(desired(networks, self, mtu)...).Snapshot()
	return ip.State{Links: slices.Collect(s.Links.All()), Addrs: slices.Collect(s.Addrs.All()), Routes: slices.Collect(s.Routes.All())}
}

// Table is the table of one host.
type Table struct{ t *table }

// NewTable makes a table with paths of its own.
func NewTable(networks []netip.Prefix, self, peers []subnet.Lease) Table {
	return Table{newTable(networks, self, peers, map[netip.Addr]*path{})}
}

// Local has the host have underlay addresses of its own.
func (t Table) Local(addrs ...netip.Addr) { t.t.locals = addrs }

// Route returns the underlay address of the host of an address; the zero value if there is none.
func (t Table) Route(dst netip.Addr) netip.Addr {
	if p := t.t.route(dst); p != nil {
		return p.addr
	}
	return netip.Addr{}
}

// Check names the counter that a packet from a host falls under; empty if it is to be delivered.
func (t Table) Check(from, src, dst netip.Addr) string {
	host := t.t.host(from)
	if host == nil {
		return counterNames[dropSender]
	}
	return counterNames[t.t.check(host, src, dst)]
}

// Split returns the packets that one packet for the device, behind its virtio-net header, stands for; nil if it is not well-formed.
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

// Super returns the virtio-net header of a packet that stands for many: size is the payload of each, start the length of the IP
// header.
func Super(six, tcp bool, size, start int) []byte {
	v := vnet{flags: vnetNeedsChecksum, gso: gsoUDP, segment: uint16(size), checksumStart: uint16(start), checksumOffset: 6}
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
