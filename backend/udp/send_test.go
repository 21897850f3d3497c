package udp_test

import (
	"bytes"
	"net/netip"
	"testing"

	"flanneld/backend/udp"
	"flanneld/backend/udp/offload"
)

func TestSocketsThatTakeNoMessagesOfManyDatagrams(t *testing.T) {
	r, seed := random()
	for range 50 {
		f := randomFlow(r, 1, 2)
		b := f.super(randomBytes(r, 1+r.IntN(60000)), 1200)
		workers := map[string]*udp.Worker{"many": newRouter(), "one by one": newRouter(),
			"no merging": udp.NewWorker(testNetworks, testSelf, testPeers, false)}
		workers["one by one"].Refuse = func(n int) bool { return n > 1 }
		for name, w := range workers {
			w.Full = r.IntN(3)
			w.Packets = [][]byte{bytes.Clone(b)}
			if w.Step(); w.Wrong != nil {
				t.Fatalf("seed %d: %s: %v", seed, name, w.Wrong)
			}
		}
		want := workers["many"].Sent
		for name, w := range workers {
			if len(w.Sent) != len(want) {
				t.Fatalf("seed %d: %s: %d datagrams, want %d", seed, name, len(w.Sent), len(want))
			}
			for i, d := range w.Sent {
				if !bytes.Equal(d.Data, want[i].Data) {
					t.Fatalf("seed %d: %s: datagram %d differs", seed, name, i)
				}
			}
		}
	}
}

func TestAMessageThatIsNeverTakenIsDroppedAndCounted(t *testing.T) {
	w := newRouter()
	w.Refuse = func(int) bool { return true }
	w.Packets = [][]byte{tcpFlow(false).super(make([]byte, 10000), 1000), from(tcpFlow(true).packet(nil))}
	w.Step()
	if got := w.Count("dropped: not sent by the socket"); got != 11 || len(w.Sent) != 0 {
		t.Errorf("%d dropped, want 11; %d sent", got, len(w.Sent))
	}
}

func TestABurstToSomePeersKeepsItsOrder(t *testing.T) {
	r, seed := random()
	w := newRouter()
	var want [][]byte
	for range 500 {
		f := randomFlow(r, 1, byte(2+r.IntN(2)))
		p := f.packet(randomBytes(r, 30+r.IntN(3)))
		w.Packets = append(w.Packets, from(bytes.Clone(p)))
		want = append(want, hopLess(p))
	}
	if w.Step(); w.Wrong != nil {
		t.Fatalf("seed %d: %v", seed, w.Wrong)
	}
	if len(w.Sent) != len(want) {
		t.Fatalf("seed %d: %d datagrams, want %d", seed, len(w.Sent), len(want))
	}
	for i, d := range w.Sent {
		if !bytes.Equal(d.Data, want[i]) {
			t.Fatalf("seed %d: datagram %d:\n got %x\nwant %x", seed, i, d.Data, want[i])
		}
	}
}

func TestSmallPacketsOfOneSizeGoOutInOneMessage(t *testing.T) {
	w := newRouter()
	f := flow{src: pod(false, 1), dst: pod(false, 2), hops: 64}
	for range 64 {
		w.Packets = append(w.Packets, from(f.packet(make([]byte, 64))))
	}
	if w.Step(); w.Calls != 1 || len(w.Sent) != 64 {
		t.Errorf("%d calls for %d datagrams", w.Calls, len(w.Sent))
	}
}

func TestNoPacketAllocates(t *testing.T) {
	w := newRouter()
	w.Discard = true
	super, small := tcpFlow(false).super(make([]byte, 60000), 1400),
		from(flow{six: true, src: pod(true, 1), dst: pod(true, 2), hops: 64}.packet(make([]byte, 64)))
	var segments []byte
	f := flow{tcp: true, src: pod(false, 2), dst: pod(false, 1), hops: 9, dontFrag: true, flags: ack}
	for range 20 {
		segments = append(segments, f.packet(make([]byte, 1400))...)
		f.seq, f.id = f.seq+1400, f.id+1
	}
	packets := [][]byte{super, small, small}
	messages := []udp.Message{{From: peerAddr(false, 2), Data: segments, Size: 1440}}
	if n := testing.AllocsPerRun(100, func() {
		w.Packets, w.Messages = packets, messages
		w.Step()
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if w.Count("sent packets") == 0 || w.Count("received packets") == 0 {
		t.Error("nothing was carried")
	}
}

func TestTrafficIsCountedForEachPeer(t *testing.T) {
	r, seed := random()
	w := newRouter()
	want := map[netip.Addr]offload.Traffic{}
	for range 200 {
		n := byte(2 + r.IntN(2))
		f, back := randomFlow(r, 1, n), randomFlow(r, n, 1)
		w.Packets = append(w.Packets, f.super(randomBytes(r, 1+r.IntN(20000)), 1200))
		in := back.packet(randomBytes(r, 30))
		host := peerAddr(back.six, n)
		w.Messages = append(w.Messages, udp.Message{From: host, Data: in})
		want[host] = want[host].Add(offload.Traffic{ReceivedPackets: 1, ReceivedBytes: uint64(len(in))})
	}
	w.Step()
	for _, d := range w.Sent {
		want[d.To] = want[d.To].Add(offload.Traffic{SentPackets: 1, SentBytes: uint64(len(d.Data))})
	}
	for host, traffic := range want {
		if got := w.Traffic(host); got != traffic {
			t.Errorf("seed %d: %s has %+v, want %+v", seed, host, got, traffic)
		}
	}
	if len(want) < 2 {
		t.Errorf("seed %d: %d hosts", seed, len(want))
	}
}
