package udp_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"flanneld/backend/udp"
	"flanneld/backend/udp/offload"
	"flanneld/ip"
	"flanneld/ip/iptest"
)

// site is a host of which the test plays the pods (in0), the process in user space (the device flannel0, a socket) and
// the wire (the TAP device eth0).
type site struct {
	t                    *testing.T
	pods, device, wire   int
	socket               *net.UDPConn
	programs             *offload.Programs
	carried, left, total int
}

// kernelPeers are what the programs are told of testPeers: the second one takes nothing from the kernel.
var kernelPeers = offload.Peers{
	Routes: map[netip.Prefix]offload.Route{
		testPeers[0].Subnet: {Host: testPeers[0].PublicIP, Kernel: true},
		testPeers[2].Subnet: {Host: testPeers[2].PublicIP},
	},
	Hosts: map[netip.Addr]netip.Addr{
		testPeers[0].PublicIP: testPeers[0].PublicIP, testPeers[2].PublicIP: testPeers[2].PublicIP,
	},
}

func newSite(t *testing.T) *site {
	t.Helper()
	iptest.Namespace(t)
	var one unix.CPUSet
	one.Set(0)
	_ = unix.SchedSetaffinity(0, &one) // of the thread alone: what is written is carried in the order of the writes
	s := &site{t: t}
	open := func(fd int, err error) int {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Close(fd) })
		return fd
	}
	s.pods = open(udp.OpenDevice("in0", true))
	s.device = open(udp.OpenDevice("flannel0", false))
	s.wire = open(ip.OpenTUN("eth0", unix.IFF_TAP|unix.IFF_NO_PI))
	iptest.Run(t, `sysctl -q -w net.ipv6.conf.all.disable_ipv6=1 net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=0
		sysctl -q -w net.ipv4.conf.in0.rp_filter=0 net.ipv4.conf.flannel0.rp_filter=0 net.ipv4.conf.eth0.rp_filter=0
		ip link set in0 up
		ip link set flannel0 mtu 1472 up
		ip link set eth0 address 02:00:00:00:00:01 up
		ip addr add 10.5.1.1/32 dev in0
		ip route add 10.5.1.0/24 dev in0
		ip addr add 10.5.1.0/32 dev flannel0
		ip route add 10.5.0.0/16 dev flannel0
		ip route add 198.51.100.0/24 dev in0
		ip addr add 192.0.2.1/24 dev eth0
		ip neigh add 192.0.2.2 lladdr 02:00:00:00:00:02 nud permanent dev eth0
		ip neigh add 192.0.2.3 lladdr 02:00:00:00:00:03 nud permanent dev eth0`)
	s.programs = loadPrograms(t, "flannel0")
	if n, err := s.programs.Attach(); n != 2 || err != nil {
		t.Fatalf("attached %d programs: %v", n, err)
	}
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 8285})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	s.socket = conn
	return s
}

// loadPrograms loads the programs for a device of the host of the tests.
func loadPrograms(t *testing.T, name string) *offload.Programs {
	t.Helper()
	device, _, err := ip.Ethernet(name)
	if err != nil {
		t.Fatal(err)
	}
	link, isEthernet, err := ip.Ethernet("eth0")
	if err != nil || !isEthernet {
		t.Fatal(isEthernet, err)
	}
	p, err := offload.Load(offload.Spec{
		Name: name, Slot: uint16(name[0]), Device: device, Underlay: link, Port: 8285,
		Local: testSelf[0].PublicIP, Own: testSelf[0].PublicIP,
		Self: testSelf[0].Subnet, Network: testNetworks[0],
	})
	if err != nil {
		if errors.Is(err, unix.EPERM) && os.Getenv("CI") == "" {
			t.Skipf("%v (root is needed)", err)
		}
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	if err := p.Set(kernelPeers); err != nil {
		t.Fatal(err)
	}
	return p
}

// read returns the next packet of a device, without the first bytes; nil: there is none within patience (ms).
func (s *site) read(fd, skip, patience int) []byte {
	s.t.Helper()
	buf := make([]byte, 1<<17)
	for {
		n, err := unix.Read(fd, buf)
		switch {
		case err == nil:
			return bytes.Clone(buf[skip:n])
		case !errors.Is(err, unix.EAGAIN):
			s.t.Fatal(err)
		}
		if ready, _ := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, patience); ready == 0 {
			return nil
		}
	}
}

// where returns which of two devices can be read.
func (s *site) where(a, b int) int {
	s.t.Helper()
	fds := []unix.PollFd{{Fd: int32(a), Events: unix.POLLIN}, {Fd: int32(b), Events: unix.POLLIN}}
	if n, err := unix.Poll(fds, 5000); n == 0 {
		s.t.Fatalf("no packet anywhere: %v", err)
	}
	if fds[0].Revents != 0 {
		return a
	}
	return b
}

func (s *site) write(fd int, b []byte) {
	s.t.Helper()
	if _, err := unix.Write(fd, b); err != nil {
		s.t.Fatalf("write %d bytes: %v", len(b), err)
	}
}

// outgoing returns a random packet of a pod as the pods' device gives it; cutsUDP says whether that takes UDP of any
// size.
func outgoing(r *rand.Rand, cutsUDP bool) (given []byte) {
	f := randomFlow(r, 1, []byte{2, 2, 2, 2, 3, 9}[r.IntN(6)])
	f.six, f.src, f.dst = false, pod(false, 1), pod(false, []byte{2, 2, 2, 2, 3, 9}[r.IntN(6)])
	f.hops = []byte{2, 3, 64, 64, 255}[r.IntN(5)]
	f.class |= byte(r.IntN(4))
	if r.IntN(2) == 0 {
		f.tcp = f.tcp || !cutsUDP
		size := 100 + r.IntN(1300)
		if f.tcp {
			f.flags = []byte{ack, ack | psh, ack | fin, ack | ece}[r.IntN(4)]
		}
		return f.super(randomBytes(r, min(size+1+r.IntN(60*size), 64000)), size)
	}
	p := f.packet(randomBytes(r, r.IntN(1400)))
	switch r.IntN(6) {
	case 0:
		p[6] |= 0x20 // more fragments
		p[6] &^= 0x40
		mend(p)
	case 1:
		p = withOptions(p)
	}
	return append(udp.Plain(), p...)
}

// withOptions puts options that do nothing behind an IPv4 header.
func withOptions(p []byte) []byte {
	p = append(append(bytes.Clone(p[:20]), 1, 1, 1, 0), p[20:]...)
	p[0] = 0x46
	binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
	mend(p)
	return p
}

// mend makes the checksum of an IPv4 header right.
func mend(p []byte) {
	p[10], p[11] = 0, 0
	binary.BigEndian.PutUint16(p[10:], ^udp.Sum(p[:int(p[0]&15)*4], 0))
}

// TestThePathsSendTheSame gives packets to the device, and what the kernel sends must be what the worker sends, byte by
// byte; what it does not send must reach the worker.
func TestThePathsSendTheSame(t *testing.T) {
	s := newSite(t)
	r, seed := random()
	for i := range 300 {
		b := outgoing(r, udp.CutsUDP(s.pods))
		seen := append(bytes.Clone(b[:10]), hopLess(b[10:])...)
		w := udp.NewWorker(testNetworks, testSelf, testPeers, true)
		w.Packets = [][]byte{bytes.Clone(seen)}
		w.Step()
		s.write(s.pods, b)
		s.total++
		if s.where(s.wire, s.device) == s.device {
			s.left++
			for p := s.read(s.device, 10, 0); p != nil; p = s.read(s.device, 10, 0) {
				if b[1] == 0 && !bytes.Equal(p, seen[10:]) {
					t.Fatalf("seed %d, packet %d: changed\n got %x\nwant %x", seed, i, head(p), head(seen[10:]))
				}
			}
			continue
		}
		s.carried++
		for j, want := range w.Sent {
			s.sameDatagram(s.read(s.wire, 0, 5000), want)
			if t.Failed() {
				t.Fatalf("seed %d, packet %d, datagram %d of %d", seed, i, j, len(w.Sent))
			}
		}
		if len(w.Sent) == 0 || len(w.Written) > 0 {
			t.Fatalf("seed %d, packet %d: sent by the kernel alone: %x", seed, i, head(seen[10:]))
		}
	}
	t.Logf("%d packets, %d carried, %d left to user space: %v", s.total, s.carried, s.left, s.programs.Counters())
	if s.carried < s.total/4 || s.left < s.total/10 {
		t.Errorf("of %d packets %d were carried, %d left", s.total, s.carried, s.left)
	}
	s.countsEachPeer()
}

// countsEachPeer holds what the programs have counted of each peer against what they have counted of all, and looks
// whether a peer that comes back begins anew.
func (s *site) countsEachPeer() {
	s.t.Helper()
	all, sum := s.programs.Counters(), offload.Traffic{}
	for _, t := range s.programs.Traffic() {
		sum = sum.Add(t)
	}
	want := offload.Traffic{
		SentPackets: all["sent packets"], SentBytes: all["sent bytes"],
		ReceivedPackets: all["received packets"], ReceivedBytes: all["received bytes"],
	}
	if nothing := (offload.Traffic{}); sum != want || sum == nothing {
		s.t.Errorf("the traffic of the peers is %+v, that of all is %+v", sum, want)
	}
	for _, peers := range []offload.Peers{{}, kernelPeers} {
		if err := s.programs.Set(peers); err != nil {
			s.t.Fatal(err)
		}
		for host, t := range s.programs.Traffic() {
			if len(peers.Routes) == 0 || t.SentPackets+t.ReceivedPackets != 0 {
				s.t.Errorf("peers %v: %s has %+v", peers, host, t)
			}
		}
	}
}

// sameDatagram compares a frame on the wire with a datagram of the worker.
func (s *site) sameDatagram(frame []byte, want udp.Datagram) {
	s.t.Helper()
	if len(frame) < 42 {
		s.t.Errorf("frame of %d bytes, want a datagram of %d", len(frame), len(want.Data))
		return
	}
	h := frame[14:34]
	to, _ := netip.AddrFromSlice(h[16:20])
	if udp.Sum(h, 0) != 0xffff || h[0] != 0x45 || h[1] != want.Class || h[9] != 17 || to != want.To ||
		!bytes.Equal(h[12:16], []byte{192, 0, 2, 1}) || h[6] != 0x40 ||
		int(binary.BigEndian.Uint16(h[2:])) != len(frame)-14 {
		s.t.Errorf("outer header %x, want class %x, to %s", h, want.Class, want.To)
	}
	u := frame[34:42]
	if wantPorts := []byte{0x20, 0x5d, 0x20, 0x5d}; !bytes.Equal(u[:4], wantPorts) ||
		int(binary.BigEndian.Uint16(u[4:])) != len(frame)-34 || u[6]|u[7] != 0 {
		s.t.Errorf("UDP header %x of %d bytes", u, len(frame)-34)
	}
	if !bytes.Equal(frame[:6], []byte{2, 0, 0, 0, 0, to.As4()[3]}) {
		s.t.Errorf("frame to %x", frame[:6])
	}
	if !bytes.Equal(frame[42:], want.Data) {
		s.t.Errorf("payload:\n got %x\nwant %x", head(frame[42:]), head(want.Data))
	}
}

// arriving returns a random frame on the wire, most of them right, and what the socket would make of it; ok is false if
// the kernel drops it before.
func arriving(r *rand.Rand) (frame []byte, m udp.Message, ok bool) {
	f := randomFlow(r, 2, 1)
	f.six, f.src, f.dst, f.class = false, pod(false, 2), pod(false, 1), f.class|byte(r.IntN(4))
	from := byte(2)
	switch r.IntN(12) {
	case 0:
		from = 3 // whose packet it is not
	case 1:
		from = 77
	case 2:
		f.src = netip.AddrFrom4([4]byte{198, 51, 100, 7}) // outside of the network
	case 3:
		f.src = testSelf[0].PublicIP
	case 4:
		f.dst = pod(false, 4)
	case 5:
		f.src = pod(false, 9)
	case 6:
		f.src, from = pod(false, 3), 3
	}
	inner := f.packet(randomBytes(r, r.IntN(1300)))
	switch r.IntN(12) {
	case 0:
		inner = withOptions(inner)
	case 1:
		inner = append(inner, 1, 2, 3) // more than it says
	case 2:
		inner = inner[:len(inner)-1]
	case 3:
		inner[0] = 0x65
	case 4:
		inner[6] |= 0x20
		mend(inner)
	}
	m = udp.Message{From: peerAddr(false, from), Data: inner, Class: byte(r.IntN(256))}
	frame, ok = encapsulate(m, r.IntN(10))
	return frame, m, ok
}

// encapsulate returns the frame of a message; false: one that the kernel drops.
func encapsulate(m udp.Message, variant int) (frame []byte, ok bool) {
	src := m.From.As4()
	udpHeader := []byte{0x30, 0x39, 0x20, 0x5d, byte((8 + len(m.Data)) >> 8), byte(8 + len(m.Data)), 0, 0}
	h := []byte{0x45, m.Class, 0, 0, 0, 1, 0x40, 0, 9, 17, 0, 0, src[0], src[1], src[2], src[3], 192, 0, 2, 1}
	binary.BigEndian.PutUint16(h[2:], uint16(28+len(m.Data)))
	mend(h)
	ok = true
	switch variant {
	case 1, 2: // the checksum of a socket
		pseudo := append(bytes.Clone(h[12:20]), 0, 17, udpHeader[4], udpHeader[5])
		c := ^udp.Sum(m.Data, udp.Sum(udpHeader, udp.Sum(pseudo, 0)))
		if c == 0 {
			c = 0xffff
		}
		binary.BigEndian.PutUint16(udpHeader[6:], c)
	case 3: // a wrong one
		binary.BigEndian.PutUint16(udpHeader[6:], 1)
		ok = false
	case 4:
		h[10] ^= 0x55
		ok = false
	}
	frame = append([]byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0}, h...)
	return append(append(frame, udpHeader...), m.Data...), ok
}

// TestThePathsDeliverTheSame puts frames on the wire, and what the kernel gives the pods must be what the worker gives
// them, byte by byte; all else must reach the worker's socket, or nobody.
func TestThePathsDeliverTheSame(t *testing.T) {
	s := newSite(t)
	r, seed := random()
	buf := make([]byte, 1<<16)
	last := uint16(0)
	for i := range 300 {
		frame, m, ok := arriving(r)
		s.write(s.wire, frame)
		last++
		end := tcpFlow(false)
		end.src, end.dst, end.id, end.hops = pod(false, 2), pod(false, 1), last, 77
		plain, _ := encapsulate(udp.Message{From: peerAddr(false, 2), Data: end.packet(nil)}, 0)
		s.write(s.wire, plain)
		w := udp.NewWorker(testNetworks, testSelf, testPeers, true)
		w.Messages = []udp.Message{m}
		w.Messages[0].Data = bytes.Clone(m.Data)
		w.Step()
		var got []byte
		for {
			p := s.read(s.pods, 10, 5000)
			if p == nil {
				t.Fatalf("seed %d, frame %d: the packet behind it is lost", seed, i)
			}
			if p[8] == 76 && binary.BigEndian.Uint16(p[4:]) == last {
				break
			}
			if p[12] == 10 && p[13] == 5 && p[14] == 1 {
				continue // an answer of the host itself
			}
			got = p
		}
		s.total++
		n := s.receive(buf)
		switch {
		case got != nil:
			s.carried++
			if n >= 0 || !ok || len(w.Written) != 1 || !bytes.Equal(got, hopLess(w.Written[0][10:])) {
				t.Fatalf("seed %d, frame %d %x: delivered %x, and %d bytes to the socket; the worker delivers %x", seed, i,
					head(frame), head(got), n, w.Written)
			}
		case n >= 0:
			s.left++
			if !ok || !bytes.Equal(buf[:n], m.Data) {
				t.Fatalf("seed %d, frame %d: the socket got %x, want %x", seed, i, head(buf[:n]), head(m.Data))
			}
		}
	}
	t.Logf("%d frames, %d carried, %d left to user space: %v", s.total, s.carried, s.left, s.programs.Counters())
	if s.carried < s.total/8 || s.left < s.total/10 {
		t.Errorf("of %d frames %d were carried, %d left", s.total, s.carried, s.left)
	}
	s.countsEachPeer()
}

// receive returns how many bytes the socket has got; -1: nothing.
func (s *site) receive(buf []byte) int {
	s.t.Helper()
	conn, err := s.socket.SyscallConn()
	if err != nil {
		s.t.Fatal(err)
	}
	got := -1
	err = conn.Read(func(fd uintptr) bool {
		if n, _, err := unix.Recvfrom(int(fd), buf, unix.MSG_DONTWAIT); err == nil {
			got = n
		}
		return true
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return got
}

// TestProgramsGoWithTheirDevice has others detach and change what is attached, and deletes the device: the filters of
// others stay, and nothing of ours.
func TestProgramsGoWithTheirDevice(t *testing.T) {
	s := newSite(t)
	if n, err := s.programs.Attach(); n != 0 || err != nil {
		t.Fatalf("attached %d programs again: %v", n, err)
	}
	device, _, err := ip.Ethernet("flannel0")
	if err != nil {
		t.Fatal(err)
	}
	underlay, _, err := ip.Ethernet("eth0")
	if err != nil {
		t.Fatal(err)
	}
	if err := ip.DetachPrograms("flannel0", ip.Hook{Link: underlay}); err != nil {
		t.Fatal(err)
	}
	if n, err := s.programs.Attach(); n != 1 || err != nil {
		t.Fatalf("attached %d programs again, want 1: %v", n, err)
	}
	next, other := loadPrograms(t, "flannel0"), loadPrograms(t, "in0")
	if n, err := other.Attach(); n != 2 || err != nil {
		t.Fatalf("attached %d programs of another device: %v", n, err)
	}
	if n, err := next.Attach(); n != 2 || err != nil {
		t.Fatalf("replaced %d programs: %v", n, err)
	}
	attached := func(name string) bool {
		t.Helper()
		n, err := ip.Hook{Link: underlay, Device: name}.Attached()
		if err != nil {
			t.Fatal(err)
		}
		return n != 0
	}
	if !attached("flannel0") || !attached("in0") {
		t.Error("not the programs of both devices are at the underlay")
	}
	if n, err := (ip.Hook{Link: device, Egress: true, Device: "flannel0"}).Attached(); n == 0 || err != nil {
		t.Errorf("program %d at the device: %v", n, err)
	}
	k, err := ip.NewKernel(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	if err := k.Apply([]ip.Op{{Delete: true, Object: ip.Link{Name: "flannel0"}}}); err != nil {
		t.Fatal(err)
	}
	if attached("flannel0") || !attached("in0") {
		t.Error("the program of the deleted device is still at the underlay, or that of the other is not")
	}
}

// TestProgramsAreThoseOfTheSource holds the checksum of the source against that of which the programs were made.
func TestProgramsAreThoseOfTheSource(t *testing.T) {
	sum := sha256.New()
	for _, name := range []string{"datapath.c", "kernel.h", "generate.sh"} {
		b, err := os.ReadFile("offload/" + name)
		if err != nil {
			t.Fatal(err)
		}
		sum.Write(b)
	}
	want, err := os.ReadFile("offload/source.sha256")
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprintf("%x\n", sum.Sum(nil)); got != string(want) {
		t.Errorf("run go generate ./backend/udp/offload: the programs were made from %s, the source is %s", want, got)
	}
}

// TestAttachingTakesNoMoreThanTheDropInGives has the capabilities of the unit with its drop-in: programs are found
// again by the names of filters, and those that a run with all capabilities has left are reported.
func TestAttachingTakesNoMoreThanTheDropInGives(t *testing.T) {
	s := newSite(t)
	all := capabilities(t)
	confined := all
	confined[0].Effective &^= 1 << unix.CAP_SYS_ADMIN
	within := func(caps [2]unix.CapUserData, f func()) {
		t.Helper()
		setCapabilities(t, caps)
		defer setCapabilities(t, all)
		f()
	}
	if iptest.Run(t, "tc filter show dev eth0 ingress") == "" { // the kernel attaches without a qdisc
		within(confined, func() {
			_, attach := s.programs.Attach()
			for name, err := range map[string]error{"attach": attach, "detach": ip.DetachPrograms("flannel0")} {
				if err == nil || !strings.Contains(err.Error(), "flannelctl cleanup") {
					t.Errorf("%s beside programs of another run: %v", name, err)
				}
			}
		})
	}
	if err := ip.DetachPrograms("flannel0"); err != nil {
		t.Fatal(err)
	}
	within(confined, func() {
		for _, want := range []int{2, 0} {
			if n, err := s.programs.Attach(); n != want || err != nil {
				t.Errorf("attached %d programs, want %d: %v", n, want, err)
			}
		}
		if err := ip.DetachPrograms("flannel0"); err != nil {
			t.Error(err)
		}
		if n, err := s.programs.Attach(); n != 2 || err != nil {
			t.Errorf("attached %d programs after they were detached, want 2: %v", n, err)
		}
	})
}

// capabilities returns those of this thread.
func capabilities(t *testing.T) (caps [2]unix.CapUserData) {
	t.Helper()
	h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	if err := unix.Capget(&h, &caps[0]); err != nil {
		t.Fatal(err)
	}
	return caps
}

func setCapabilities(t *testing.T, caps [2]unix.CapUserData) {
	t.Helper()
	h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	if err := unix.Capset(&h, &caps[0]); err != nil {
		t.Fatal(err)
	}
}
