package ip

import "testing"

// FuzzMessages reads netlink messages of any content. The kernel is trusted to send none that is not well-formed; which process sent a
// datagram is checked elsewhere, and whatever stands in one, nothing panics or hangs.
func FuzzMessages(f *testing.F) {
	f.Add([]byte{20, 0, 0, 0, 24, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 24, 0, 0})
	f.Add([]byte{36, 0, 0, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 24, 0, 0, 1, 0, 0, 0, 8, 0, 1, 0, 10, 5, 0, 1, 4, 0, 2, 0})
	links := names{1: "lo", 2: "eth0"}
	f.Fuzz(func(_ *testing.T, b []byte) {
		bodies := [][]byte{b}
		for m := range split(b) {
			bodies = append(bodies, m.data)
		}
		for _, body := range bodies {
			decodeAddr(body, links)
			decodeNeigh(body, links)
			decodeRoute(body, links)
			decodeDefault(body, links)
			decodeLink(body)
			host(body, links, "eth0")
			lastUse(body)
			acceptsRA(body)
			address(body)
			for range attributes(body) {
			}
		}
	})
}
