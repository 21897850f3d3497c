package udp

import "errors"

// forward routes one packet from the device, b with its virtio-net header, into the send queue.
func (w *worker) forward(t *table, b []byte) {
	if len(b) < vnetSize {
		w.counters.add(dropMalformed, 1)
		return
	}
	v, p := parseVnet(b), b[vnetSize:]
	h, ok := parse(p)
	if !ok {
		w.counters.add(dropMalformed, 1)
		return
	}
	p = p[:h.total]
	to := t.route(h.dst)
	if to == nil {
		w.counters.add(dropNoRoute, 1)
		w.report(t, noRoute, p, &h, 0)
		return
	}
	if h.hops <= 1 {
		w.counters.add(dropExpired, 1)
		w.report(t, hopsExceeded, p, &h, 0)
		return
	}
	if v.gso != gsoNone {
		w.forwardSegments(t, p, &h, v, to)
		return
	}
	limit := to.limit()
	if len(p) > limit && h.dontFrag {
		w.counters.add(dropTooBig, 1)
		w.report(t, tooBig, p, &h, limit)
		return
	}
	h.decrementHops(p)
	if v.flags&vnetNeedsChecksum != 0 && !completeChecksum(p, v) {
		w.counters.add(dropMalformed, 1)
		return
	}
	if len(p) > limit {
		w.forwardFragments(p, &h, to, limit)
		return
	}
	if w.out.full() {
		w.flush()
	}
	w.out.add(to, h.class&ecnMask, p)
}

// forwardSegments sends a packet that the kernel has left whole.
func (w *worker) forwardSegments(t *table, p []byte, h *header, v vnet, to *path) {
	s, ok := newSegmenter(p, *h, v)
	if !ok {
		w.counters.add(dropMalformed, 1)
		return
	}
	size := s.headers + s.size
	if limit := to.limit(); min(size, len(p)) > limit {
		if h.dontFrag {
			w.counters.add(dropTooBig, 1)
			w.report(t, tooBig, p, h, limit)
			return
		}
		h.decrementHops(p)
		w.fragmentSegments(&s, to, limit)
		return
	}
	h.decrementHops(p)
	n := s.count()
	limit := perMessage(n, size)
	w.out.seal()
	for i := range n {
		if w.out.full() {
			w.flush()
		}
		b := w.out.header(s.headers)
		w.out.addSegment(to, h.class&ecnMask, b, s.segment(i, b), limit)
	}
}

// fragmentSegments sends the segments of a packet that do not fit the path and may be fragmented.
func (w *worker) fragmentSegments(s *segmenter, to *path, limit int) {
	for i := range s.count() {
		w.flush() // it sends from the segment before
		w.segment = s.whole(i, w.segment[:0])
		if h, _ := parse(w.segment); h.total > limit {
			w.forwardFragments(w.segment, &h, to, limit)
		} else {
			w.out.add(to, h.class&ecnMask, w.segment)
		}
	}
}

// forwardFragments sends a packet that does not fit the path and may be fragmented.
func (w *worker) forwardFragments(p []byte, h *header, to *path, limit int) {
	f := newFragmenter(p, *h, limit)
	n := f.count()
	w.out.seal()
	for i := range n {
		if w.out.full() {
			w.flush()
		}
		b := w.out.header(h.size)
		w.out.addSegment(to, h.class&ecnMask, b, f.fragment(i, b), maxSegments)
	}
}

// flush sends what is in the send queue.
func (w *worker) flush() {
	for rest := w.out.msgs; len(rest) > 0; {
		n, err := w.edge.Send(rest)
		for i := range rest[:n] {
			w.sent(&rest[i])
		}
		if rest = rest[n:]; err != nil {
			w.sendAgain(&rest[0], err)
			rest = rest[1:]
		}
	}
	w.out.reset()
}

func (w *worker) sent(m *outbound) {
	w.counters.add(sentPackets, m.count)
	w.counters.add(sentBytes, m.bytes)
	m.to.sent(m.count, m.bytes)
}

// sendTries bounds how often one message is sent: the socket may report what became of an earlier one, or be full.
const sendTries = 4

// sendAgain takes care of a message that the socket refused.
func (w *worker) sendAgain(m *outbound, err error) {
	one := [1]outbound{*m}
	for range sendTries {
		if errors.Is(err, errAgain) {
			if !w.edge.Wait(true) {
				break
			}
		} else {
			w.edge.Faults(w.faulty)
		}
		var n int
		if n, err = w.edge.Send(one[:]); n == 1 {
			w.sent(m)
			return
		}
		if m.count > 1 && !errors.Is(err, errAgain) {
			w.out.merge = w.out.merge && !errors.Is(err, errSingly)
			w.sendSingly(m)
			return
		}
	}
	w.counters.add(dropSend, m.count)
}

// sendSingly sends the datagrams of a message one by one: not every device and path takes them together.
func (w *worker) sendSingly(m *outbound) {
	for at := 0; at < len(m.pieces); at += m.each {
		d := outbound{to: m.to, class: m.class, pieces: m.pieces[at : at+m.each], each: m.each, count: 1}
		for _, p := range d.pieces {
			d.bytes += len(p)
		}
		d.size = d.bytes
		one := [1]outbound{d}
		if n, err := w.edge.Send(one[:]); n == 0 {
			w.sendAgain(&d, err)
		} else {
			w.sent(&d)
		}
	}
}
