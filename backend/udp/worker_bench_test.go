package udp_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"flanneld/backend/udp"
	"flanneld/subnet"
)

// BenchmarkWorker carries packets of 64 bytes to and from as many peers, each packet another one's, without the
// kernel's part. Sockets and device are in memory.
func BenchmarkWorker(b *testing.B) {
	for _, n := range peerCounts {
		peers := manyPeers(n)
		self := []subnet.Lease{lease("10.200.0.0/24", "192.0.2.1"), lease("fd00:200::/64", "2001:db8::1")}
		w := udp.NewWorker(prefixes("10.0.0.0/8", "fd00::/16"), self, peers, true)
		w.Discard = true
		for i, name := range []string{"IPv4", "IPv6"} {
			var packets [][]byte
			var messages []udp.Message
			six, own := i == 1, self[i].Subnet.Addr().Next()
			for range 1024 {
				l := peers[2*rand.IntN(n)+i]
				out := flow{six: six, src: own, dst: l.Subnet.Addr().Next(), hops: 64, dontFrag: true}
				in := flow{six: six, src: out.dst, dst: own, hops: 64, dontFrag: true}
				packets = append(packets, from(out.packet(make([]byte, 64))))
				messages = append(messages, udp.Message{From: l.PublicIP, Data: in.packet(make([]byte, 64))})
			}
			run := func(direction string, give func()) {
				b.Run(fmt.Sprintf("%s %s/%d", name, direction, n), func(b *testing.B) {
					for done := 0; done < b.N; done += len(packets) {
						give()
						w.Step()
					}
				})
			}
			run("sent", func() { w.Packets = packets })
			run("received", func() { w.Messages = messages })
		}
	}
}
