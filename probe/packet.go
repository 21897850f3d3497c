package probe

import (
	"bytes"
	"encoding/binary"
)

// A packet, in network byte order; an answer has the size of its question, so that nobody is flooded through us:
//
//	0 "FLP1"   4 kind   5 length of the version   8 nonce   16 version of the sender, zeroes up to the size
const (
	magic   = "FLP1"
	minSize = 64 // bytes of payload
	maxText = 40

	question byte = 1
	answer   byte = 2
)

type packet struct {
	kind    byte
	nonce   uint64
	version string
}

// encode returns the packet in size bytes.
func (p packet) encode(size int) []byte {
	b := make([]byte, max(size, minSize))
	copy(b, magic)
	text := p.version[:min(len(p.version), maxText)]
	b[4], b[5] = p.kind, byte(len(text))
	binary.BigEndian.PutUint64(b[8:], p.nonce)
	copy(b[16:], text)
	return b
}

// decode reads a packet; ok is false if it is none.
func decode(b []byte) (p packet, ok bool) {
	if len(b) < minSize || !bytes.HasPrefix(b, []byte(magic)) || b[5] > maxText {
		return packet{}, false
	}
	p = packet{kind: b[4], nonce: binary.BigEndian.Uint64(b[8:]), version: string(b[16 : 16+b[5]])}
	return p, p.kind == question || p.kind == answer
}
