package ip_test

import (
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"flanneld/ip"
	"flanneld/ip/iptest"
)

// A device keeps the route to each peer, and the source address with it.
func TestPacketsComeFromTheNewLocalAddressAtOnce(t *testing.T) {
	v4 := cluster(1)
	v4.FDB[0].Dst = netip.MustParseAddr("192.0.2.9")
	for name, tt := range map[string]struct {
		scope    ip.Scope
		want     ip.State
		inner    string // what the packets are sent to
		old, now string
	}{
		"IPv4": {scope, v4, "10.0.1.7", "192.0.2.1", "192.0.2.3"},
		"IPv6": {scope6, vxlan6("fd00:18::1", "fd00:18::9"), "fd00:5:0:22::7", "fd00:18::1", "fd00:18::3"},
	} {
		t.Run(name, func(t *testing.T) {
			iptest.Namespace(t)
			iptest.Run(t, `ip link add eth0 type veth peer name far0
				ip addr add 192.0.2.1/24 dev eth0
				ip addr add 192.0.2.3/24 dev eth0
				ip addr add fd00:18::1/64 dev eth0 nodad
				ip addr add fd00:18::3/64 dev eth0 nodad
				ip link set eth0 up
				ip link set far0 up
				ip neigh add 192.0.2.9 lladdr 02:00:00:00:00:09 dev eth0
				ip neigh add fd00:18::9 lladdr 02:00:00:00:00:09 dev eth0`)
			wire := packetSocket(t)
			k := kernel(t)
			applyIn(t, k, tt.scope, tt.want)
			for _, local := range []string{tt.old, tt.now, tt.old} {
				tt.want.Links[0].VXLAN.Local = netip.MustParseAddr(local)
				applyIn(t, k, tt.scope, tt.want)
				send(t, tt.inner)
				if got := wire.source(); got != tt.want.Links[0].VXLAN.Local {
					t.Fatalf("a packet comes from %s, want %s", got, local)
				}
				if have, err := k.Dump(tt.scope); err != nil || len(ip.Diff(have.Snapshot(), tt.want.Snapshot())) != 0 {
					t.Fatalf("the kernel holds %v (%v), want %v", have, err, tt.want)
				}
			}
		})
	}
}

// applyIn has the kernel hold a state of a scope.
func applyIn(t *testing.T, k *ip.LinuxKernel, s ip.Scope, want ip.State) {
	t.Helper()
	have, err := k.Dump(s)
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Apply(ip.Diff(have.Snapshot(), want.Snapshot())); err != nil {
		t.Fatal(err)
	}
}

// send sends one UDP datagram.
func send(t *testing.T, to string) {
	t.Helper()
	a := netip.MustParseAddr(to)
	family, dst := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Port: 9, Addr: a.As16()})
	if a.Is4() {
		family, dst = unix.AF_INET, &unix.SockaddrInet4{Port: 9, Addr: a.As4()}
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM, 0)
	if err == nil {
		defer unix.Close(fd)
		err = unix.Sendto(fd, []byte("x"), 0, dst)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// wire hears all packets that arrive at the far end.
type wire struct {
	t  *testing.T
	fd int
}

func packetSocket(t *testing.T) wire {
	t.Helper()
	const protocols = unix.ETH_P_ALL<<8 | unix.ETH_P_ALL>>8 // in network order
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM, protocols)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	timeout := unix.NsecToTimeval(int64(time.Minute))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
		t.Fatal(err)
	}
	return wire{t, fd}
}

// source returns where the next tunnel packet comes from.
func (w wire) source() netip.Addr {
	w.t.Helper()
	const udp, port = 17, 8472
	for b := make([]byte, 2048); ; {
		n, from, err := unix.Recvfrom(w.fd, b, 0)
		if err != nil {
			w.t.Fatal(err)
		}
		l, ok := from.(*unix.SockaddrLinklayer)
		if !ok || l.Pkttype == unix.PACKET_OUTGOING || n < 48 {
			continue
		}
		switch p := b[:n]; {
		case p[0]>>4 == 4 && p[9] == udp && int(p[22])<<8+int(p[23]) == port:
			return netip.AddrFrom4([4]byte(p[12:16]))
		case p[0]>>4 == 6 && p[6] == udp && int(p[42])<<8+int(p[43]) == port:
			return netip.AddrFrom16([16]byte(p[8:24]))
		}
	}
}
