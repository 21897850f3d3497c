package udp_test

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"

	"flanneld/backend/udp"
)

// FuzzForward gives the router anything as a packet of the device, with and without the kernel's offloads. Nothing
// breaks, and no limit of the sockets is passed.
func FuzzForward(f *testing.F) {
	for _, six := range []bool{false, true} {
		f.Add(tcpFlow(six).super(make([]byte, 5000), 1000))
		f.Add(from(flow{six: six, src: pod(six, 1), dst: pod(six, 2), hops: 2}.packet([]byte("x"))))
		f.Add(flow{six: six, src: pod(six, 1), dst: pod(six, 2), hops: 2}.super(make([]byte, 100), 1))
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, merge := range []bool{false, true} {
			w := udp.NewWorker(testNetworks, testSelf, testPeers, merge)
			w.MTU[peerAddr(false, 3)], w.MTU[peerAddr(true, 3)] = 600, 1280
			for range 2 { // the second time with the path's MTU known
				w.Packets = [][]byte{bytes.Clone(b[:min(len(b), 1<<16)])}
				w.Step()
			}
			if w.Wrong != nil {
				t.Fatal(w.Wrong)
			}
		}
	})
}

// FuzzAccept gives the worker anything as a message of a peer. What is delivered is for us, and well-formed for the
// kernel.
func FuzzAccept(f *testing.F) {
	good := flow{src: pod(false, 2), dst: pod(false, 1), hops: 9}
	good6 := flow{six: true, tcp: true, flags: ack, src: pod(true, 2), dst: pod(true, 1), hops: 9}
	f.Add(bytes.Repeat(good.packet(make([]byte, 50)), 3), uint16(78), byte(0))
	f.Add(good6.packet(make([]byte, 50)), uint16(0), byte(3))
	f.Fuzz(func(t *testing.T, b []byte, size uint16, class byte) {
		for _, six := range []bool{false, true} {
			w := newRouter()
			w.Messages = []udp.Message{{From: peerAddr(six, 2), Data: bytes.Clone(b), Size: int(size), Class: class}}
			w.Step()
			if w.Wrong != nil {
				t.Fatal(w.Wrong)
			}
			for _, p := range w.Written {
				if len(p) < 10+20 || len(p) > 10+1<<16 || udp.Split(p) == nil {
					t.Fatalf("not for the kernel: %x", p)
				}
			}
		}
	})
}

// FuzzRuns changes packets of some flows at random places. Whatever is merged, cutting it again gives the packets as
// they came.
func FuzzRuns(f *testing.F) {
	f.Add(uint64(1), []byte{}, false)
	f.Add(uint64(2), []byte{0, 3, 1}, true)
	f.Fuzz(func(t *testing.T, seed uint64, changes []byte, mend bool) {
		r := rand.New(rand.NewPCG(seed, 0))
		packets := randomSequence(r, func(r *rand.Rand) flow { return randomFlow(r, 1, 2) })
		for len(changes) >= 3 {
			p := packets[int(changes[0])%len(packets)]
			p[int(changes[1])%min(len(p), 80)] ^= changes[2]
			if mend && p[0] == 0x45 {
				p[10], p[11] = 0, 0
				binary.BigEndian.PutUint16(p[10:], ^udp.Sum(p[:20], 0))
			}
			changes = changes[3:]
		}
		if slices.ContainsFunc(packets, udp.Unfinished) {
			t.Skip("such packets are cut otherwise")
		}
		var alone [][]byte // what a worker delivers that merges nothing
		for _, merge := range []bool{false, true} {
			w := udp.NewWorker(testNetworks, testPeers[:2], testSelf, merge)
			for _, p := range packets {
				w.Messages = append(w.Messages, udp.Message{From: peerAddr(p[0]>>4 == 6, 1), Data: bytes.Clone(p)})
			}
			w.Step()
			var got [][]byte
			for _, b := range w.Written {
				got = append(got, udp.Split(b)...)
			}
			if !merge {
				alone = got
				continue
			}
			if len(got) != len(alone) {
				t.Fatalf("%d packets, want %d", len(got), len(alone))
			}
			for i := range got {
				if !bytes.Equal(unnumbered(got[i]), unnumbered(alone[i])) {
					t.Fatalf("packet %d:\n got %x\nwant %x", i, head(got[i]), head(alone[i]))
				}
			}
		}
	})
}

// unnumbered returns a packet without the identification that means nothing: that of a packet which cannot be
// fragmented (RFC 6864).
func unnumbered(p []byte) []byte {
	if p[0]>>4 != 4 || len(p) < 20 || p[6]&0x40 == 0 {
		return p
	}
	p = bytes.Clone(p)
	clear(p[4:6])
	clear(p[10:12])
	return p
}

// FuzzOptions reads the object "Backend" of the network configuration.
func FuzzOptions(f *testing.F) {
	f.Add([]byte(`{"Type":"udp","Port":8285,"MTU":1400,"Offload":false}`))
	f.Add([]byte(`{"Port":-1}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if o, err := udp.ParseOptions(raw); err == nil && (o.Port == 0 || o.MTU < 0 || o.MTU >= 1<<16) {
			t.Errorf("got %+v", o)
		}
	})
}
