package udp

// sendQueue collects what is to be sent, so that many packets go out in one call. Datagrams of one size to the same
// peer that follow each other are one message.
type sendQueue struct {
	merge   bool // the socket can take several datagrams in one message
	msgs    []outbound
	pieces  [][]byte
	headers []byte
}

// Capacity of a sendQueue: a packet of full size in segments of usual size fits in.
const (
	outMessages = 64
	outPieces   = 512
	outHeaders  = 16 << 10
	maxHeader   = 160 // bytes, of IP and transport headers that are written anew for each segment
)

func newSendQueue(merge bool) sendQueue {
	return sendQueue{
		merge: merge, msgs: make([]outbound, 0, outMessages),
		pieces: make([][]byte, 0, outPieces), headers: make([]byte, 0, outHeaders),
	}
}

// full reports whether there may be no room for one more datagram.
func (o *sendQueue) full() bool {
	return len(o.msgs) == cap(o.msgs) || len(o.pieces)+2 > cap(o.pieces) || len(o.headers)+maxHeader > cap(o.headers)
}

func (o *sendQueue) reset() { o.msgs, o.pieces, o.headers = o.msgs[:0], o.pieces[:0], o.headers[:0] }

// header returns n bytes, at most maxHeader, that last until the next reset.
func (o *sendQueue) header(n int) []byte {
	at := len(o.headers)
	o.headers = o.headers[:at+n]
	return o.headers[at:]
}

// add adds a datagram of one piece, a whole packet.
func (o *sendQueue) add(to *path, class uint8, packet []byte) {
	m := o.message(to, class, len(packet), 1, maxSegments)
	o.pieces = append(o.pieces, packet)
	m.pieces = o.pieces[len(o.pieces)-len(m.pieces)-1:]
}

// addSegment adds a datagram of two pieces. No message gets more than limit of them.
func (o *sendQueue) addSegment(to *path, class uint8, header, payload []byte, limit int) {
	m := o.message(to, class, len(header)+len(payload), 2, limit)
	o.pieces = append(o.pieces, header, payload)
	m.pieces = o.pieces[len(o.pieces)-len(m.pieces)-2:]
}

// message returns the message that a datagram goes into, counted already.
func (o *sendQueue) message(to *path, class uint8, size, each, limit int) *outbound {
	if n := len(o.msgs); n > 0 && o.merge {
		m := &o.msgs[n-1]
		if !m.closed && m.to == to && m.class == class && m.each == each && m.limit == limit && size <= m.size &&
			m.bytes+size <= maxMessage {
			m.bytes, m.count = m.bytes+size, m.count+1
			m.closed = size < m.size || m.count == limit
			return m
		}
	}
	o.msgs = append(o.msgs, outbound{to: to, class: class, each: each, size: size, bytes: size, count: 1, limit: limit,
		closed: limit == 1})
	return &o.msgs[len(o.msgs)-1]
}

// seal keeps the next datagram out of the last message.
func (o *sendQueue) seal() {
	if n := len(o.msgs); n > 0 {
		o.msgs[n-1].closed = true
	}
}
