package udp

// accept checks the datagrams of one message and hands on those that are to be believed.
func (w *worker) accept(t *table, m *inbound) {
	if len(m.data) == 0 {
		w.counters.add(dropMalformed, 1)
		return
	}
	size := m.size
	if size <= 0 {
		size = len(m.data)
	}
	from := t.host(m.from)
	if from == nil {
		w.counters.add(dropSender, (len(m.data)+size-1)/size)
		return
	}
	packets, bytes := 0, 0
	for rest := m.data; len(rest) > 0; {
		p := rest[:min(size, len(rest))]
		rest = rest[len(p):]
		h, ok := parse(p)
		if !ok {
			w.counters.add(dropMalformed, 1)
			continue
		}
		p = p[:h.total]
		if why := t.check(from, h.src, h.dst); why != passed {
			w.counters.add(why, 1)
			continue
		}
		if !decapsulate(p, &h, m.class&ecnMask) {
			w.counters.add(dropCongestion, 1)
			continue
		}
		packets, bytes = packets+1, bytes+len(p)
		if !w.run.add(p, &h) {
			w.deliver()
			w.run.start(p, &h)
		}
	}
	w.counters.add(receivedPackets, packets)
	w.counters.add(receivedBytes, bytes)
	from.received(packets, bytes)
}

// decapsulate carries the congestion mark of the outer header over to the packet; false: the packet must be dropped,
// which is the only mark that it can bear (RFC 6040, section 4.2).
func decapsulate(p []byte, h *header, outer uint8) bool {
	switch inner := h.class & ecnMask; {
	case outer == ecnCE && inner == notECT:
		return false
	case outer == ecnCE && inner != ecnCE, outer == ect1 && inner == ect0:
		h.setECN(p, outer)
	}
	return true
}

// deliver writes the run to the device.
func (w *worker) deliver() {
	if w.run.count == 0 {
		return
	}
	count := w.run.count
	if err := w.edge.Write(w.run.finish()); err != nil {
		w.counters.add(dropWrite, count)
	}
}
