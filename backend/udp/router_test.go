package udp_test

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"

	"flanneld/backend/udp"
)

func newRouter() *udp.Worker { return udp.NewWorker(testNetworks, testSelf, testPeers, true) }

// from makes a packet that the device hands over.
func from(p []byte) []byte { return append(udp.Plain(), p...) }

func tcpFlow(six bool) flow {
	return flow{six: six, tcp: true, src: pod(six, 1), dst: pod(six, 2), hops: 64, dontFrag: true, flags: ack}
}

// icmpType returns type and code of an ICMP error that was written to the device.
func icmpType(t *testing.T, b []byte) [2]byte {
	t.Helper()
	p := b[10:]
	if p[0]>>4 == 6 {
		if p[6] != 58 || !bytes.Equal(p[8:24], netip.MustParseAddr("fd00:5:0:1::").AsSlice()) {
			t.Fatalf("not an ICMP error of ours: %x", p)
		}
		if sum := udp.Sum(p[40:], udp.Sum(append(slices.Clone(p[8:40]), 0, 58, byte((len(p)-40)>>8), byte(len(p)-40)),
			0)); sum != 0xffff {
			t.Errorf("wrong checksum in %x", p)
		}
		return [2]byte(p[40:42])
	}
	if p[9] != 1 || !bytes.Equal(p[12:16], []byte{10, 5, 1, 0}) || udp.Sum(p[:20], 0) != 0xffff ||
		udp.Sum(p[20:], 0) != 0xffff {
		t.Fatalf("not a good ICMP error of ours: %x", p)
	}
	return [2]byte(p[20:22])
}

func TestWhatCannotBeForwardedIsAnswered(t *testing.T) {
	change := func(f func(*flow)) func(bool) []byte {
		return func(six bool) []byte {
			fl := tcpFlow(six)
			f(&fl)
			return fl.packet(make([]byte, 1000))
		}
	}
	echo := func(kind4, kind6 byte, host byte) func(bool) []byte {
		return func(six bool) []byte {
			f := flow{six: six, src: pod(six, 1), dst: pod(six, host), hops: 64}
			p := f.packet(make([]byte, 20))
			if six {
				p[6], p[40] = 58, kind6
			} else {
				p[9], p[20] = 1, kind4
			}
			return p
		}
	}
	for _, test := range []struct {
		name         string
		packet       func(six bool) []byte
		want4, want6 [2]byte // zero: none
		counter      string
	}{
		{"no lease for the destination", change(func(f *flow) { f.dst = pod(f.six, 77) }), [2]byte{3, 0}, [2]byte{1, 0},
			"dropped: no lease for the destination"},
		{"the last hop", change(func(f *flow) { f.hops = 1 }), [2]byte{11, 0}, [2]byte{3, 0},
			"dropped: time to live exceeded"},
		{"no hop at all", change(func(f *flow) { f.hops = 0 }), [2]byte{11, 0}, [2]byte{3, 0},
			"dropped: time to live exceeded"},
		{"no lease for a ping: silence", echo(8, 128, 77), [2]byte{}, [2]byte{}, "dropped: no lease for the destination"},
		{"no lease for an ICMP error: silence", echo(3, 1, 77), [2]byte{}, [2]byte{},
			"dropped: no lease for the destination"},
		{"a source that is no host: silence", change(func(f *flow) {
			f.hops, f.src = 1, netip.MustParseAddr("224.0.0.5")
			if f.six {
				f.src = netip.MustParseAddr("ff02::5")
			}
		}), [2]byte{}, [2]byte{}, "dropped: time to live exceeded"},
		{"a multicast destination: silence", change(func(f *flow) {
			f.dst = netip.MustParseAddr("224.0.0.5")
			if f.six {
				f.dst = netip.MustParseAddr("ff02::5")
			}
		}), [2]byte{}, [2]byte{}, "dropped: no lease for the destination"},
	} {
		for _, six := range []bool{false, true} {
			w := newRouter()
			p := test.packet(six)
			w.Packets = [][]byte{from(bytes.Clone(p))}
			w.Step()
			if len(w.Sent) != 0 || w.Count(test.counter) != 1 {
				t.Errorf("%s: %d sent, counter %d", test.name, len(w.Sent), w.Count(test.counter))
			}
			want := test.want4
			if six {
				want = test.want6
			}
			switch {
			case want == [2]byte{} && len(w.Written) > 0:
				t.Errorf("%s: answered by %x", test.name, w.Written[0])
			case want != [2]byte{} && len(w.Written) != 1:
				t.Errorf("%s: %d answers", test.name, len(w.Written))
			case want != [2]byte{}:
				if got := icmpType(t, w.Written[0]); got != want {
					t.Errorf("%s: ICMP %v, want %v", test.name, got, want)
				}
				if !bytes.Contains(w.Written[0], p[:28]) {
					t.Errorf("%s: the packet is not quoted as it came", test.name)
				}
			}
		}
	}
}

func TestErrorsAreLimited(t *testing.T) {
	w := newRouter()
	f := tcpFlow(false)
	f.dst = pod(false, 77)
	for range 1000 {
		w.Packets = append(w.Packets, from(f.packet(nil)))
	}
	w.Step()
	if n := len(w.Written); n < 10 || n > 200 || n+w.Count("ICMP errors withheld") != 1000 {
		t.Errorf("%d errors, %d withheld", n, w.Count("ICMP errors withheld"))
	}
}

func TestPathMTUIsLearnedAndTold(t *testing.T) {
	for _, six := range []bool{false, true} {
		w := newRouter()
		host := peerAddr(six, 2)
		w.MTU[host] = 1400
		fits := 1372
		if six {
			fits = 1352
		}
		f := tcpFlow(six)
		send := func(b []byte) {
			w.Packets = [][]byte{b}
			w.Step()
		}
		send(from(f.packet(make([]byte, 1400)))) // teaches, and is lost
		if len(w.Sent) != 0 {
			t.Fatalf("%d sent", len(w.Sent))
		}
		send(from(f.packet(make([]byte, 1400))))
		send(f.super(make([]byte, 20000), 1400))
		if len(w.Written) != 2 || w.Count("dropped: too big for the path") != 2 {
			t.Fatalf("%d errors, %d dropped", len(w.Written), w.Count("dropped: too big for the path"))
		}
		for _, b := range w.Written {
			want, mtu := [2]byte{3, 4}, int(binary.BigEndian.Uint16(b[10+26:]))
			if six {
				want, mtu = [2]byte{2, 0}, int(binary.BigEndian.Uint32(b[10+44:]))
			}
			if got := icmpType(t, b); got != want || mtu != fits {
				t.Errorf("ICMP %v with MTU %d, want %v with %d", got, mtu, want, fits)
			}
		}
		headers := f.start() + 20
		send(from(f.packet(make([]byte, fits-headers))))
		send(f.super(make([]byte, 20000), fits-headers))
		if len(w.Sent) != 1+(20000+fits-headers-1)/(fits-headers) {
			t.Errorf("%d datagrams of what fits", len(w.Sent))
		}
		f.dst = pod(six, 3)
		before := len(w.Sent)
		if send(from(f.packet(make([]byte, 1400)))); len(w.Sent) != before+1 {
			t.Error("the path to another peer has shrunk too")
		}
	}
}

func TestPacketsThatMayBeFragmentedAre(t *testing.T) {
	f := flow{src: pod(false, 1), dst: pod(false, 2), hops: 64, id: 7}
	payload := bytes.Repeat([]byte("0123456789"), 300)
	for name, packet := range map[string][]byte{
		"one packet":   from(f.packet(payload)),
		"three in one": f.super(payload, 1200),
	} {
		w := newRouter()
		w.MTU[peerAddr(false, 2)] = 1000
		want := udp.Split(packet)
		w.Packets = [][]byte{bytes.Clone(packet)} // teaches the path MTU
		w.Step()
		w.Packets, w.Sent = [][]byte{bytes.Clone(packet)}, nil
		w.Step()
		var got []byte
		for i, d := range w.Sent {
			if len(want) == 0 {
				t.Fatalf("%s: datagram %d of %d is too much", name, i, len(w.Sent))
			}
			p, whole := d.Data, hopLess(bytes.Clone(want[0]))
			place := binary.BigEndian.Uint16(p[6:])
			if len(p) > 972 || udp.Sum(p[:20], 0) != 0xffff || int(place&0x1fff)*8 != len(got) ||
				!bytes.Equal(p[4:6], whole[4:6]) {
				t.Errorf("%s: datagram %d is wrong: %x", name, i, head(p))
			}
			if got = append(got, p[20:]...); place&0x2000 != 0 {
				continue
			}
			if !bytes.Equal(got, whole[20:]) {
				t.Errorf("%s: the fragments up to datagram %d do not make the packet", name, i)
			}
			want, got = want[1:], nil
		}
		if len(want) > 0 || len(w.Written) > 0 {
			t.Errorf("%s: %d packets are missing, %d ICMP errors", name, len(want), len(w.Written))
		}
	}
}

func TestCongestionMarksAreCarried(t *testing.T) {
	const not, ect1, ect0, ce = 0, 1, 2, 3
	for _, six := range []bool{false, true} {
		for inner := byte(0); inner < 4; inner++ {
			w := newRouter()
			f := tcpFlow(six)
			f.class = 0x40 | inner
			w.Packets = [][]byte{from(f.packet(nil)), f.super(make([]byte, 5000), 1000)}
			w.Step()
			for _, d := range w.Sent {
				if d.Class != inner {
					t.Errorf("mark %d sent under %d", inner, d.Class)
				}
			}
			for outer, want := range []byte{not: inner, ect1: []byte{not, ect1, ect1, ce}[inner], ect0: inner, ce: ce} {
				w := udp.NewWorker(testNetworks, testPeers[:2], testSelf, true)
				w.Messages = []udp.Message{{From: peerAddr(six, 1), Data: f.packet([]byte("x")), Class: 0xb8 | byte(outer)}}
				w.Step()
				if inner == not && outer == ce {
					if len(w.Written) != 0 || w.Count("dropped: congestion mark on a packet that cannot carry it") != 1 {
						t.Error("a mark was lost")
					}
					continue
				}
				wantFlow := f
				wantFlow.class = 0x40 | want
				if got := w.Written[0][10:]; !bytes.Equal(got, wantFlow.packet([]byte("x"))) {
					t.Errorf("inner %d, outer %d:\n got %x\nwant %x", inner, outer, got, wantFlow.packet([]byte("x")))
				}
			}
		}
	}
}

func TestOnlyWhatPeersMaySendIsDelivered(t *testing.T) {
	good := func(six bool) flow {
		return flow{six: six, src: pod(six, 2), dst: pod(six, 1), hops: 9}
	}
	for _, test := range []struct {
		name   string
		sender byte
		change func(f *flow)
		cut    int
		want   string // counter
	}{
		{"a peer's packet", 2, func(*flow) {}, 0, "received packets"},
		{"from outside of the network by way of a peer", 2, func(f *flow) {
			f.src = netip.MustParseAddr("203.0.113.5")
			if f.six {
				f.src = netip.MustParseAddr("2001:db8:9::5")
			}
		}, 0, "received packets"},
		{"a sender that is no peer", 99, func(*flow) {}, 0, "dropped: sender is no peer"},
		{"a peer with another's source", 3, func(*flow) {}, 0, "dropped: source is not the sender's"},
		{"a source of ours", 2, func(f *flow) { f.src = pod(f.six, 1) }, 0, "dropped: source is not the sender's"},
		{"a source that nobody leases", 2, func(f *flow) { f.src = pod(f.six, 77) }, 0,
			"dropped: source is not the sender's"},
		{"to another host", 2, func(f *flow) { f.dst = pod(f.six, 3) }, 0, "dropped: destination is not ours"},
		{"to the outside", 2, func(f *flow) {
			f.dst = netip.MustParseAddr("203.0.113.5")
			if f.six {
				f.dst = netip.MustParseAddr("2001:db8:9::5")
			}
		}, 0, "dropped: destination is not ours"},
		{"cut off", 2, func(*flow) {}, 1, "dropped: malformed"},
		{"empty", 2, func(*flow) {}, 1 << 10, "dropped: malformed"},
	} {
		for _, six := range []bool{false, true} {
			f := good(six)
			test.change(&f)
			p := f.packet([]byte("hello"))
			w := newRouter()
			w.Messages = []udp.Message{{From: peerAddr(six, test.sender), Data: p[:max(0, len(p)-test.cut)]}}
			w.Step()
			if w.Count(test.want) != 1 {
				t.Errorf("%s (IPv6 %t): counter %q is %d", test.name, six, test.want, w.Count(test.want))
			}
			delivered := test.want == "received packets"
			if (len(w.Written) == 1) != delivered || delivered && !bytes.Equal(w.Written[0][10:], p) {
				t.Errorf("%s (IPv6 %t): %d delivered", test.name, six, len(w.Written))
			}
		}
	}
}
