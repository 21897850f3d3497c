package udp

import (
	"encoding/binary"
	"math/bits"
)

// blockSize is what addBlocks adds in one step, in bytes.
const blockSize = 64

// sum adds b, as big-endian words of 16 bits, to a ones' complement sum that is folded to 16 bits (RFC 1071). Pieces
// but the last one must be of even length.
//
// Words of any size and either byte order give the same sum but for the order of its two bytes, so that eight bytes are
// added at a time, with the carry of one addition going into the next, or whole blocks by the processor's vectors.
func sum(b []byte, to uint16) uint16 {
	acc := uint64(bits.ReverseBytes16(to))
	if vectors && len(b) >= blockSize {
		n := len(b) &^ (blockSize - 1)
		acc += addBlocks(&b[0], n) // far below 2^64 for any packet
		b = b[n:]
	}
	var carry uint64
	for len(b) >= 64 {
		w := (*[64]byte)(b)
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(w[0:]), 0)
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(w[8:]), carry)
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(w[16:]), carry)
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(w[24:]), carry)
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(w[32:]), carry)
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(w[40:]), carry)
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(w[48:]), carry)
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(w[56:]), carry)
		acc += carry
		b = b[64:]
	}
	for len(b) >= 8 {
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(b), 0)
		acc += carry
		b = b[8:]
	}
	acc = acc>>32 + acc&(1<<32-1) // leaves room for the rest
	if len(b) >= 4 {
		acc += uint64(binary.LittleEndian.Uint32(b))
		b = b[4:]
	}
	if len(b) >= 2 {
		acc += uint64(binary.LittleEndian.Uint16(b))
		b = b[2:]
	}
	if len(b) == 1 {
		acc += uint64(b[0])
	}
	acc = acc>>32 + acc&(1<<32-1)
	acc = acc>>16 + acc&0xffff
	acc = acc>>16 + acc&0xffff
	acc = acc>>16 + acc&0xffff
	return bits.ReverseBytes16(uint16(acc))
}

// add returns the ones' complement sum of two folded ones.
func add(a, b uint16) uint16 {
	s := uint32(a) + uint32(b)
	return uint16(s>>16 + s&0xffff)
}

// pseudo returns the sum of the pseudo header of TCP and UDP; addrs are the source and destination as they stand in the
// packet, size the length of transport header and payload in bytes.
func pseudo(addrs []byte, protocol uint8, size int) uint16 {
	s := add(uint16(protocol), uint16(size))
	return sum(addrs, add(s, uint16(size>>16)))
}

// replace updates a checksum when one word of what it covers changes (RFC 1624, equation 3).
func replace(checksum, from, to uint16) uint16 { return ^add(add(^checksum, ^from), to) }
