package udp

import (
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"

	"flanneld/subnet"

	"golang.org/x/time/rate"
)

// Message is what a socket received in one call.
type Message struct {
	From  netip.Addr
	Data  []byte
	Size  int // of each datagram, 0: a single one
	Class uint8
}

// Datagram is one that was sent.
type Datagram struct {
	To    netip.Addr
	Class uint8
	Data  []byte
}

// Worker is a worker between a device and sockets in memory. It keeps to the limits of the kernel's sockets, and fails
// on demand.
type Worker struct {
	Packets  [][]byte // to be read from the device, each behind its virtio-net header
	Messages []Message
	Sent     []Datagram
	Written  [][]byte
	Wrong    error            // a limit of the kernel was not kept
	Refuse   func(n int) bool // says which messages of n datagrams the sockets do not take
	MTU      map[netip.Addr]int
	Full     int  // how many sends find the socket full
	Discard  bool // count only

	Calls int // of Send and Write
	w     *worker
	count counters
	table atomic.Pointer[table]
	learn []func(func(netip.Addr, int))
}

// NewWorker returns one with the table of a host.
func NewWorker(networks []netip.Prefix, self, peers []subnet.Lease, merge bool) *Worker {
	f := &Worker{MTU: map[netip.Addr]int{}}
	f.table.Store(NewTable(networks, self, peers).t)
	f.w = newWorker(f, &f.table, rate.NewLimiter(errorsPerSecond, errorsBurst), &f.count, merge)
	f.w.in = newInbox(4)
	f.w.run.tcp, f.w.run.udp = merge, merge
	return f
}

// Step carries all that is there in both directions.
func (f *Worker) Step() {
	for len(f.Packets) > 0 {
		_, _ = f.w.fromDevice()
	}
	for len(f.Messages) > 0 {
		f.w.fromSocket(ipv4)
		f.w.fromSocket(ipv6)
	}
}

// Count returns a counter.
func (f *Worker) Count(name string) int {
	for i, n := range counterNames {
		if n == name {
			return int(f.count[i].Load())
		}
	}
	panic("no counter " + name)
}

// Read implements edge.
func (f *Worker) Read(b []byte) (int, error) {
	if len(f.Packets) == 0 {
		return 0, errAgain
	}
	n := copy(b, f.Packets[0])
	f.Packets = f.Packets[1:]
	return n, nil
}

// Write implements edge.
func (f *Worker) Write(pieces [][]byte) error {
	f.Calls++
	if len(pieces) > maxPieces {
		f.Wrong = fmt.Errorf("%d pieces written at once", len(pieces))
	}
	if f.Discard {
		return nil
	}
	var whole []byte
	for _, p := range pieces {
		whole = append(whole, p...)
	}
	f.Written = append(f.Written, whole)
	return nil
}

// Answer implements edge. The packet counts as written.
func (f *Worker) Answer(_ netip.Addr, p []byte) error {
	f.Written = append(f.Written, append(make([]byte, vnetSize), p...))
	return nil
}

// Receive implements edge.
func (f *Worker) Receive(of family, in []inbound) (int, error) {
	n := 0
	for n < len(in) && len(f.Messages) > 0 && familyOf(f.Messages[0].From) == of {
		m := f.Messages[0]
		f.Messages = f.Messages[1:]
		in[n].data = in[n].buf[:copy(in[n].buf, m.Data)]
		in[n].from, in[n].size, in[n].class = m.From, m.Size, m.Class
		n++
	}
	if n == 0 {
		return 0, errAgain
	}
	return n, nil
}

var errRefused = errors.New("refused")

// Send implements edge.
func (f *Worker) Send(out []outbound) (int, error) {
	f.Calls++
	if f.Full > 0 {
		f.Full--
		return 0, errAgain
	}
	for i := range out {
		m := &out[i]
		if m.to.family != out[0].to.family {
			return i, nil
		}
		if f.Refuse != nil && f.Refuse(m.count) {
			return i, errRefused
		}
		if mtu := f.MTU[m.to.addr]; mtu > 0 && m.size+overhead(m.to.addr) > mtu {
			f.learn = append(f.learn, func(learn func(netip.Addr, int)) { learn(m.to.addr, mtu) })
			return i, errRefused
		}
		f.check(m)
		if !f.Discard {
			f.take(m)
		}
	}
	return len(out), nil
}

// check holds a message against what udp_send_skb and udp_cmsg_send demand.
func (f *Worker) check(m *outbound) {
	if m.count > maxSegments || m.bytes > 65507 || m.count < 1 || len(m.pieces) != m.count*m.each {
		f.Wrong = fmt.Errorf("message of %d datagrams, %d bytes, %d pieces", m.count, m.bytes, len(m.pieces))
	}
	total := 0
	for i := 0; i < len(m.pieces); i += m.each {
		size := 0
		for _, p := range m.pieces[i : i+m.each] {
			size += len(p)
		}
		if last := i+m.each == len(m.pieces); size > m.size || size < m.size && !last {
			f.Wrong = fmt.Errorf("datagram of %d bytes in a message of %d bytes each", size, m.size)
		}
		total += size
	}
	if total != m.bytes {
		f.Wrong = fmt.Errorf("message of %d bytes says %d", total, m.bytes)
	}
}

func (f *Worker) take(m *outbound) {
	for i := 0; i < len(m.pieces); i += m.each {
		d := Datagram{To: m.to.addr, Class: m.class}
		for _, p := range m.pieces[i : i+m.each] {
			d.Data = append(d.Data, p...)
		}
		f.Sent = append(f.Sent, d)
	}
}

// Faults implements edge.
func (f *Worker) Faults(tooBig func(dst netip.Addr, mtu int)) {
	for _, learn := range f.learn {
		learn(tooBig)
	}
	f.learn = nil
}

// Wait implements edge.
func (f *Worker) Wait(bool) bool { return true }
