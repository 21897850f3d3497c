package probe

import (
	"bytes"
	"testing"
)

// FuzzPacket reads what any host may send to the probe port.
func FuzzPacket(f *testing.F) {
	f.Add(packet{kind: question, nonce: 7, version: "v1"}.encode(minSize))
	f.Add(packet{kind: answer, version: "a version that is longer than any version has a right to be"}.encode(1400))
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, ok := decode(b)
		if !ok {
			return
		}
		if again, ok := decode(p.encode(len(b))); !ok || again != p {
			t.Errorf("%+v is read back as %+v, %t", p, again, ok)
		}
		if n := len(p.encode(len(b))); n > max(len(b), minSize) {
			t.Errorf("the answer to %d bytes has %d", len(b), n)
		}
	})
}

// FuzzRefuser reads control messages of any content, as they stand beside an error.
func FuzzRefuser(f *testing.F) {
	f.Add(bytes.Repeat([]byte{64, 0, 0, 0, 0, 0, 0, 0, 11, 0, 0, 0, 2, 3, 3, 2}, 4))
	f.Fuzz(func(_ *testing.T, b []byte) { refuser(b) })
}
