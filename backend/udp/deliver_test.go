package udp_test

import (
	"flanneld/backend/udp"
)

// deliver has a worker receive packets from the host of a number: those of one size that follow each other in one
// message, as UDP_GRO merges them.
func deliver(w *udp.Worker, from byte, packets ...[]byte) {
	var m udp.Message
	flush := func() {
		if len(m.Data) > 0 {
			w.Messages = append(w.Messages, m)
		}
		m = udp.Message{}
	}
	short := false
	for _, p := range packets {
		addr := peerAddr(p[0]>>4 == 6, from)
		if m.From != addr || len(p) > m.Size || short || len(m.Data)+len(p) > 65000 {
			flush()
			m.From, m.Size, short = addr, len(p), false
		}
		m.Data = append(m.Data, p...)
		short = len(p) < m.Size
	}
	flush()
	w.Step()
}
