package udp_test

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"flanneld/backend/udp"
	"flanneld/ip/iptest"

	"golang.org/x/sys/unix"
)

// oracle is a router of the kernel between two devices, the second of which has no offloads, so that the kernel itself
// cuts what it is given whole.
type oracle struct {
	t       *testing.T
	in, out int
}

func newOracle(t *testing.T) *oracle {
	iptest.Namespace(t)
	o := &oracle{t: t}
	for _, d := range []struct {
		name    string
		fd      *int
		offload bool
	}{{"in0", &o.in, true}, {"out0", &o.out, false}} {
		fd, err := udp.OpenDevice(d.name, d.offload)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Close(fd) })
		*d.fd = fd
		iptest.Run(t, "sysctl -q -w net.ipv4.conf."+d.name+".rp_filter=0 net.ipv6.conf."+d.name+
			".router_solicitations=0\nip link set "+d.name+" up")
	}
	iptest.Run(t, `sysctl -q -w net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv4.conf.all.rp_filter=0
		ip addr add 10.5.1.1/32 dev in0
		ip addr add fd00:5:0:1::1/128 dev in0 nodad
		ip route add 10.5.1.0/24 dev in0
		ip route add 10.5.2.0/24 dev out0
		ip -6 route add fd00:5:0:1::/64 dev in0
		ip -6 route add fd00:5:0:2::/64 dev out0`)
	return o
}

// flow returns one that the devices of this kernel take in any size.
func (o *oracle) flow(r *rand.Rand) flow {
	f := randomFlow(r, 1, 2)
	f.tcp = f.tcp || !udp.CutsUDP(o.in)
	return f
}

// route has the kernel forward a packet, behind its virtio-net header, and returns the n packets that come out.
func (o *oracle) route(b []byte, n int) [][]byte {
	o.t.Helper()
	if _, err := unix.Write(o.in, b); err != nil {
		o.t.Fatalf("write %d bytes: %v", len(b), err)
	}
	var out [][]byte
	buf := make([]byte, 1<<17)
	for len(out) < n {
		got, err := unix.Read(o.out, buf)
		if err == unix.EAGAIN {
			if ready, _ := unix.Poll([]unix.PollFd{{Fd: int32(o.out), Events: unix.POLLIN}}, 5000); ready == 0 {
				o.t.Fatalf("%d packets came out of the kernel, want %d", len(out), n)
			}
			continue
		}
		if err != nil {
			o.t.Fatal(err)
		}
		p := bytes.Clone(buf[10:got])
		if p[0]>>4 == 6 && p[24] == 0xff {
			continue // the kernel's own multicast
		}
		if buf[0]|buf[1] != 0 {
			o.t.Fatal("the kernel left work to a device that has no offloads")
		}
		out = append(out, p)
	}
	return out
}

func TestSegmentsAreThoseOfTheKernel(t *testing.T) {
	o := newOracle(t)
	r, seed := random()
	for i := range 400 {
		f := o.flow(r)
		size := 8 + r.IntN(1393) // kernels cut into no smaller ones, nor merge them
		payload := randomBytes(r, min(size+1+r.IntN(60*size), 64000))
		if f.tcp {
			f.flags = []byte{ack, ack | psh, ack | fin, ack | psh | fin, ack | ece}[r.IntN(5)]
		}
		b := f.super(payload, size)
		w := udp.NewWorker(testNetworks, testSelf, testPeers, true)
		w.Packets = [][]byte{bytes.Clone(b)}
		w.Step()
		if w.Wrong != nil {
			t.Fatalf("seed %d, packet %d: %v", seed, i, w.Wrong)
		}
		n := (len(payload) + size - 1) / size
		if len(w.Sent) != n {
			t.Fatalf("seed %d, packet %d: %d datagrams, want %d", seed, i, len(w.Sent), n)
		}
		for j, want := range o.route(b, n) {
			if got := w.Sent[j].Data; !bytes.Equal(got, want) {
				t.Fatalf("seed %d, packet %d of %+v, segment %d of %d of %d bytes:\n got %x\nwant %x", seed, i, f, j, n, size,
					head(got), head(want))
			}
		}
	}
}

// TestRunsAreCutAgainByTheKernel merges random packets and has the kernel cut what came of it: the same packets must
// come out, but for the hop that the kernel counts.
func TestRunsAreCutAgainByTheKernel(t *testing.T) {
	o := newOracle(t)
	r, seed := random()
	merged := 0
	for i := range 150 {
		packets := randomSequence(r, o.flow)
		w := udp.NewWorker(testNetworks, testPeers[:2], testSelf, true)
		deliver(w, 1, packets...)
		merged += len(packets) - len(w.Written)
		var got [][]byte
		for _, b := range w.Written {
			n := len(udp.Split(b))
			got = append(got, o.route(b, n)...)
		}
		if len(got) != len(packets) {
			t.Fatalf("seed %d, sequence %d: %d packets, want %d", seed, i, len(got), len(packets))
		}
		for j, p := range packets {
			if !bytes.Equal(got[j], hopLess(p)) {
				t.Fatalf("seed %d, sequence %d, packet %d:\n got %x\nwant %x", seed, i, j, head(got[j]), head(hopLess(p)))
			}
		}
	}
	if merged == 0 {
		t.Error("nothing was merged")
	}
}

// TestPacketsThatAKernelHasNotFinishedAreFinished delivers packets, most of them larger than the device takes, whose
// checksums a kernel has left undone.
func TestPacketsThatAKernelHasNotFinishedAreFinished(t *testing.T) {
	o := newOracle(t)
	r, seed := random()
	for i := range 300 {
		f := o.flow(r)
		if f.flags = ack; f.tcp {
			f.flags = []byte{ack, ack | psh, ack | ece, ack | cwr}[r.IntN(4)]
		}
		payload := randomBytes(r, 1+r.IntN(1400))
		if f.tcp && r.IntN(2) == 0 {
			payload = randomBytes(r, 1400+r.IntN(60000))
		}
		whole := f.super(payload, 1)
		undone := whole[len(udp.Super(f.six, f.tcp, 1, f.start())):]
		for _, offload := range []bool{true, false} {
			if !offload && len(payload) > 1400 {
				continue // then no kernel is asked to send such packets
			}
			w := udp.NewWorker(testNetworks, testPeers[:2], testSelf, offload)
			deliver(w, 1, bytes.Clone(undone))
			if len(w.Written) != 1 {
				t.Fatalf("seed %d, packet %d: %d packets written, want 1", seed, i, len(w.Written))
			}
			var got []byte
			n := len(udp.Split(w.Written[0]))
			for _, p := range o.route(w.Written[0], n) {
				data, right := contents(p)
				if !right {
					t.Fatalf("seed %d, packet %d of %+v: a wrong checksum: %x", seed, i, f, head(p))
				}
				got = append(got, data...)
			}
			if !bytes.Equal(got, payload) {
				t.Fatalf("seed %d, packet %d of %+v: %d bytes in %d packets, want %d", seed, i, f, len(got), n, len(payload))
			}
		}
	}
}

// contents returns what a packet of TCP or UDP carries, and whether its checksum is right.
func contents(p []byte) (data []byte, right bool) {
	start, protocol, addrs := 20, p[9], p[12:20]
	if p[0]>>4 == 6 {
		start, protocol, addrs = 40, p[6], p[8:40]
	}
	pseudo := append(bytes.Clone(addrs), 0, protocol, byte((len(p)-start)>>8), byte(len(p)-start))
	headers := start + 8
	if protocol == 6 {
		headers = start + int(p[start+12]>>4)*4
	}
	return p[headers:], udp.Sum(p[start:], udp.Sum(pseudo, 0)) == 0xffff
}

// randomSequence returns packets of some flows, mostly in order, with all that ends a run thrown in.
func randomSequence(r *rand.Rand, flowOf func(*rand.Rand) flow) [][]byte {
	var packets [][]byte
	for range 1 + r.IntN(4) {
		f := flowOf(r)
		size := 1 + r.IntN(1400)
		for range 1 + r.IntN(40) {
			n := size
			switch r.IntN(20) {
			case 0:
				n = 1 + r.IntN(size)
			case 1:
				n = min(size+r.IntN(20), 1400)
			case 2:
				f.seq += 7
			case 3:
				f.id += uint16(r.IntN(3))
			case 4:
				f.class = byte(r.IntN(64)) << 2
			case 5:
				if f.tcp {
					f.flags = []byte{ack | psh, ack | fin, ack | urg, ack | ece, ack | cwr, syn, rst}[r.IntN(7)]
				}
			}
			packets = append(packets, f.packet(randomBytes(r, n)))
			f.seq, f.id, f.flags = f.seq+uint32(n), f.id+1, ack
		}
	}
	return packets
}

func head(b []byte) []byte { return b[:min(len(b), 72)] }

// hopLess returns a packet with one hop less.
func hopLess(p []byte) []byte {
	p = bytes.Clone(p)
	if p[0]>>4 == 6 {
		p[7]--
		return p
	}
	p[8]--
	mend(p)
	return p
}
