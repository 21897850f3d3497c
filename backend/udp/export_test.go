package udp

import (
	"net/netip"

	"flanneld/ip"
	"flanneld/subnet"
)

// What the tests of this package see of its inside.

// Desired is the pure function from leases to the kernel's state.
func Desired(networks []netip.Prefix, self []subnet.Lease, mtu int) ip.State {
	return desired(networks, self, mtu)
}

// Table is the table of one host.
type Table struct{ t *table }

// NewTable makes a table with paths of its own.
func NewTable(networks []netip.Prefix, self, peers []subnet.Lease) Table {
	return Table{newTable(networks, self, peers, map[netip.Addr]*path{})}
}

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
