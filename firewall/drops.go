package firewall

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// NonPeer is a sender whose tunnel packets were dropped within the last minutes.
type NonPeer struct {
	Addr    netip.Addr `json:"address"`
	Packets uint64     `json:"packets"`
}

// String is how a line of the log names it.
func (n NonPeer) String() string { return fmt.Sprintf("%s (%d packets)", n.Addr, n.Packets) }

// Status is what an operator wants to know of the firewall.
type Status struct {
	Drift    int       // objects that others had changed
	Dropped  uint64    // packets of hosts that are no peers to the tunnel, since the start
	NonPeers []NonPeer // who sent most of them, first
	Problems []string  // what stands in the way of the network's packets
}

// drops adds up what a counter says that starts anew with each table.
type drops struct {
	before, last uint64 // of earlier tables, of this one
	readAt       time.Time
	nonPeers     []NonPeer
	saidAt       time.Time
	said         uint64
}

func (d *drops) restart() { d.before, d.last = d.before+d.last, 0 }

func (d *drops) total() uint64 { return d.before + d.last }

const (
	// sayEvery is the least time between two log lines about hosts that are no peers.
	sayEvery = time.Minute
	// readEvery is the least time between two looks at the counters.
	readEvery = time.Second
	// maxShown bounds the hosts that are no peers that are shown.
	maxShown = 10
)

// dropsLocked reads what was dropped, and says so if it has become more.
func (f *Firewall) dropsLocked() {
	d := &f.drops
	if !f.known || len(f.rules.Ingress.Tunnels) == 0 || time.Since(d.readAt) < readEvery {
		return
	}
	d.readAt = time.Now()
	packets, nonPeers, err := f.edge.dropped(f.have)
	if err != nil {
		f.log.Debug("counters not readable", "error", err)
		return
	}
	if packets < d.last { // somebody has written the table anew
		d.restart()
	}
	d.last = packets
	// The first packets of a new peer may arrive before its record does.
	nonPeers = slices.DeleteFunc(nonPeers, func(s NonPeer) bool { return f.rules.Ingress.Peers.has(s.Addr) })
	slices.SortFunc(nonPeers, func(a, b NonPeer) int {
		return cmp.Or(cmp.Compare(b.Packets, a.Packets), a.Addr.Compare(b.Addr))
	})
	d.nonPeers = nonPeers[:min(len(nonPeers), maxShown)]
	n := d.total()
	if len(nonPeers) == 0 {
		d.said = n
	}
	if n > d.said && time.Since(d.saidAt) >= sayEvery {
		f.log.Warn("dropped tunnel packets from hosts that are not peers", "packets", n-d.said, "senders", d.nonPeers)
		d.said, d.saidAt = n, time.Now()
	}
}

// Status returns the facts, read from the kernel as far as they are there.
func (f *Firewall) Status() Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dropsLocked()
	s := Status{Drift: f.drift, Dropped: f.drops.total(), NonPeers: slices.Clone(f.drops.nonPeers),
		Problems: slices.Clone(f.problems)}
	if f.failed != nil {
		s.Problems = append(s.Problems, f.failed.Error())
	}
	return s
}
