package udp

import (
	"errors"
	"net/netip"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// worker carries packets in both directions between one queue of the device and its sockets. It belongs to one
// goroutine, but for the counters.
type worker struct {
	edge     edge
	table    *atomic.Pointer[table]
	errors   *rate.Limiter // of ICMP errors, shared by all workers
	counters *counters

	arena   []byte // packets read from the device
	out     sendQueue
	in      []inbound
	run     run
	reply   [maxError6]byte
	segment []byte // one that is fragmented
	faulty  func(dst netip.Addr, mtu int)
}

const (
	// burst is how many packets are read from the device before they are sent.
	burst = 64
	// largest is the largest packet with its virtio-net header, in bytes.
	largest   = vnetSize + 1<<16
	arenaSize = 2 * largest
	// bulky packets are sent at once: to collect more of them gains nothing, and they would leave the processor's cache.
	bulky = 8 << 10
	// errorsPerSecond and errorsBurst limit the ICMP errors.
	errorsPerSecond, errorsBurst = 200, 50
)

func newWorker(e edge, t *atomic.Pointer[table], errors *rate.Limiter, c *counters, merge bool) *worker {
	w := &worker{edge: e, table: t, errors: errors, counters: c, arena: make([]byte, arenaSize), out: newSendQueue(merge),
		run: newRun()}
	w.faulty = w.learn
	return w
}

// newInbox returns space for what one receive takes in.
func newInbox(messages int) []inbound {
	in := make([]inbound, messages)
	for i := range in {
		in[i].buf = make([]byte, 1<<16)
	}
	return in
}

// loop carries packets until the edge says that the worker shall end; an error says that the device is gone.
func (w *worker) loop() error {
	for {
		moved, err := w.fromDevice()
		if err != nil {
			return err
		}
		for f := range families {
			moved = w.fromSocket(f) || moved
		}
		if !moved && !w.edge.Wait(false) {
			return nil
		}
	}
}

// fromDevice sends a burst of packets from the device and reports whether there were any.
func (w *worker) fromDevice() (moved bool, err error) {
	t := w.table.Load()
	used := 0
	for range burst {
		if len(w.arena)-used < largest {
			break
		}
		n, err := w.edge.Read(w.arena[used:])
		if errors.Is(err, errAgain) {
			break
		}
		if err != nil {
			w.flush()
			return moved, err
		}
		moved = true
		w.forward(t, w.arena[used:used+n])
		used += (n + 63) &^ 63
		if n > bulky {
			break
		}
	}
	w.flush()
	return moved, nil
}

// fromSocket delivers what has come in from the socket of a family and reports whether there was anything.
func (w *worker) fromSocket(f family) (moved bool) {
	n, err := w.edge.Receive(f, w.in)
	if err != nil {
		if !errors.Is(err, errAgain) {
			w.edge.Faults(w.faulty)
		}
		return false
	}
	t := w.table.Load()
	for i := range w.in[:n] {
		w.accept(t, &w.in[i])
	}
	w.deliver()
	return n > 0
}

// learn takes in that the path to a peer has a smaller MTU.
func (w *worker) learn(dst netip.Addr, mtu int) {
	if to := w.table.Load().host(dst); to != nil {
		to.learn(mtu, time.Now())
	}
}

// report answers a packet with an ICMP error, if that may be.
func (w *worker) report(t *table, what icmpError, p []byte, h *header, mtu int) {
	own := t.own[h.family]
	if !own.IsValid() || !mayReport(what, p, h) {
		return
	}
	if !w.errors.Allow() {
		w.counters.add(icmpWithheld, 1)
		return
	}
	n := putError(w.reply[:], what, p, h, own, mtu)
	if err := w.edge.Answer(h.src, w.reply[:n]); err != nil {
		w.counters.add(icmpFailed, 1)
		return
	}
	w.counters.add(icmpSent, 1)
}
