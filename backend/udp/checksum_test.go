package udp_test

import (
	"encoding/binary"
	"fmt"
	"testing"

	"flanneld/backend/udp"
)

// slowSum adds word by word (RFC 1071).
func slowSum(b []byte, to uint16) uint16 {
	s := uint64(to)
	for len(b) >= 2 {
		s += uint64(binary.BigEndian.Uint16(b))
		b = b[2:]
	}
	if len(b) == 1 {
		s += uint64(b[0]) << 8
	}
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}

func TestSumAgreesWithTheSlowOne(t *testing.T) {
	r, seed := random()
	for range 20000 {
		b := randomBytes(r, r.IntN(300))
		if r.IntN(4) == 0 {
			for i := range b {
				b[i] = 0xff
			}
		}
		b, to := b[min(r.IntN(8), len(b)):], uint16(r.Uint32())
		if got, want := udp.Sum(b, to), slowSum(b, to); got != want {
			t.Fatalf("seed %d: sum of %d bytes: got %#x, want %#x", seed, len(b), got, want)
		}
	}
}

func BenchmarkSum(b *testing.B) {
	for _, size := range []int{20, 64, 1400, 65000} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			data := make([]byte, size)
			b.SetBytes(int64(size))
			for range b.N {
				udp.Sum(data, 1)
			}
		})
	}
}
