package lab_test

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"flanneld/lab"
)

// overhead is what the tunnel adds to a packet of the family of an address, in bytes.
func (n network) overhead(a netip.Addr) int {
	n.families = lab.IPv6
	if a.Is4() {
		n.families = lab.IPv4
	}
	return 1500 - n.mtu()
}

// deviceMTU is that of the device which takes packets to an address.
func (n network) deviceMTU(a netip.Addr) int {
	if n.backend == "udp" { // one device for both
		return n.mtu()
	}
	return 1500 - n.overhead(a)
}

// tooBigPacketsComeBack looks at what a backend that adds bytes to a packet makes of those that do not fit.
func tooBigPacketsComeBack(s *site) {
	for _, a := range s.pods[1].Addrs {
		dev := s.device(a)
		if ra := must[string](s.t)(s.hosts[0].Output("cat /proc/sys/net/ipv6/conf/" + dev + "/accept_ra")); ra != "0\n" {
			s.t.Errorf("accept_ra of %s is %q", dev, ra)
		}
		s.podIsToldTheMTU(a)
		s.smallerPathIsNoHole(a)
	}
}

// wireFormIsThatOfFlannel looks at the underlay while pods speak.
func wireFormIsThatOfFlannel(s *site) {
	for i, a := range s.pods[1].Addrs {
		switch s.backend {
		case "host-gw":
			s.packetsTravelAsTheyAre(s.pods[0].Addrs[i], a)
		case "wireguard":
			s.packetsAreHidden(s.pods[0].Addrs[i], a)
		default:
			s.packetsTravelInTheTunnel(a)
		}
	}
}

// packetsTravelAsTheyAre sends full datagrams from pod to pod and looks for them.
func (s *site) packetsTravelAsTheyAre(from, to netip.Addr) {
	s.t.Helper()
	wire := must[*lab.Capture](s.t)(s.hosts[0].Capture("eth0"))
	defer wire.Stop()
	conn := must[net.Conn](s.t)(s.pods[0].Dial(s.ctx, "udp", netip.AddrPortFrom(to, 9).String()))
	defer conn.Close()
	headers := 20 + 8
	if to.Is6() {
		headers = 40 + 8
	}
	s.await(func() error {
		_, _ = conn.Write(make([]byte, s.mtu()-headers)) // the ICMP error for an earlier one comes back
		for _, d := range wire.Seen() {
			if d.Src.Addr() == from && d.Dst.Addr() == to && d.Size == s.mtu() {
				return nil
			}
		}
		return fmt.Errorf("no full packet from %s to %s", from, to)
	})
}

// packetsTravelInTheTunnel pings a pod with a full packet.
func (s *site) packetsTravelInTheTunnel(to netip.Addr) {
	s.t.Helper()
	wire := must[*lab.Capture](s.t)(s.hosts[0].Capture("eth0"))
	defer wire.Stop()
	_, err := s.pods[0].Ping(s.ctx, to, lab.PingOptions{Size: s.mtu(), DontFragment: true})
	s.ok(err)
	dst := to.AsSlice()
	s.await(func() error {
		seen := wire.Seen()
		for _, d := range seen {
			header, ok := s.tunnelHeader(d)
			if ok && bytes.Contains(d.Payload[header:min(len(d.Payload), header+40)], dst) && d.Size == s.mtu()+s.overhead(to) &&
				d.Src.Addr() == s.hosts[0].AddrOf(to) && d.Dst.Addr() == s.hosts[1].AddrOf(to) {
				return nil
			}
		}
		return fmt.Errorf("no full packet to %s among %d datagrams: %+.200v", to, len(seen), seen)
	})
}

// packetsAreHidden sends datagrams with a text from pod to pod, and wants neither it nor the addresses on the wire.
func (s *site) packetsAreHidden(from, to netip.Addr) {
	s.t.Helper()
	wire := must[*lab.Capture](s.t)(s.hosts[0].Capture("eth0"))
	defer wire.Stop()
	l := must[net.PacketConn](s.t)(s.pods[1].ListenPacket("udp", netip.AddrPortFrom(to, 9).String()))
	defer l.Close()
	conn := must[net.Conn](s.t)(s.pods[0].Dial(s.ctx, "udp", l.LocalAddr().String()))
	defer conn.Close()
	secret := bytes.Repeat([]byte("attack at dawn, "), 50)
	port := map[bool]uint16{true: 51820, false: 51821}[to.Is4()]
	s.await(func() error {
		_, _ = conn.Write(secret) // the ICMP error for an earlier one comes back
		for _, d := range wire.Seen() {
			if d.Dst.Port() == port && d.Src.Port() == port && d.Size > len(secret) && d.Dst.Addr() == s.hosts[1].AddrOf(to) {
				return nil
			}
		}
		return fmt.Errorf("no packet from %s to %s", from, to)
	})
	s.ok(l.SetReadDeadline(time.Now().Add(patience)))
	got := make([]byte, 2*len(secret))
	if n, _, err := l.ReadFrom(got); err != nil || !bytes.Equal(got[:n], secret) {
		s.t.Errorf("%d bytes arrived, want the %d that were sent: %v", n, len(secret), err)
	}
	for _, d := range wire.Seen() {
		if bytes.Contains(d.Payload, secret[:16]) || bytes.Contains(d.Payload, append(from.AsSlice(), to.AsSlice()...)) {
			s.t.Errorf("a datagram from %s to %s shows what is in the tunnel: %x", d.Src, d.Dst, d.Payload)
		}
	}
}

// tunnelHeader returns where the inner IP packet starts in a datagram of the tunnel.
func (s *site) tunnelHeader(d lab.Datagram) (int, bool) {
	switch s.backend {
	case "udp":
		return 0, d.Dst.Port() == 8285 && d.Src.Port() == 8285
	case "ipip":
		return 0, d.Protocol == unix.IPPROTO_IPIP
	}
	// RFC 7348: flags with the bit for a valid VNI, reserved, VNI, reserved; then an Ethernet frame.
	return 8 + 14, d.Dst.Port() == 8472 && bytes.HasPrefix(d.Payload, []byte{8, 0, 0, 0, 0, 0, 1, 0})
}

// podIsToldTheMTU has a pod whose own MTU is too large send what does not fit.
func (s *site) podIsToldTheMTU(to netip.Addr) {
	s.t.Helper()
	p := must[*lab.Pod](s.t)(s.hosts[0].Pod())
	port := strings.TrimPrefix(p.Name()[strings.LastIndex(p.Name(), "-"):], "-")
	s.ok(s.hosts[0].Run("ip link set "+port+" mtu 1500", "ip link set cni0 mtu 1500"))
	s.ok(p.Run("ip link set eth0 mtu 1500"))
	s.toldMTU(p, to, s.deviceMTU(to), 1500)
}

// toldMTU sends packets of a size until the pod knows the path MTU.
func (s *site) toldMTU(p *lab.Pod, to netip.Addr, want, size int) {
	s.t.Helper()
	pings := must[*lab.Pings](s.t)(p.Pings(to, lab.PingOptions{Size: size, DontFragment: true}))
	defer pings.Cut()
	s.await(func() error {
		out, err := p.Output("ip route get " + to.String())
		if err == nil && !strings.Contains(out+" ", fmt.Sprintf(" mtu %d ", want)) {
			err = fmt.Errorf("the pod was not told the MTU %d: %s", want, out)
		}
		return err
	})
	// the other pod's link has s.mtu()
	_, err := p.Ping(s.ctx, to, lab.PingOptions{Size: min(want, s.mtu()), DontFragment: true})
	s.ok(err)
}

// smallerPathIsNoHole makes the path between the hosts smaller than their interfaces say. vxlan's packets over IPv4 are
// then fragmented on the way, as WireGuard's always are; over IPv6, and by the udp backend, which never has its packets
// fragmented, the pod is told.
func (s *site) smallerPathIsNoHole(to netip.Addr) {
	s.t.Helper()
	const path = 1400
	peer := s.hosts[1].AddrOf(to)
	route := netip.PrefixFrom(peer, peer.BitLen()).String()
	s.ok(s.hosts[0].Run(fmt.Sprintf("ip route add %s dev eth0 mtu %d", route, path)))
	defer func() { s.ok(s.hosts[0].Run("ip route del " + route)) }()
	if s.backend == "ipip" {
		return // the outer header says "don't fragment" where the inner one does, and nobody is told: as with flannel
	}
	if s.backend == "udp" || s.backend == "vxlan" && to.Is6() {
		s.toldMTU(s.pods[0], to, path-s.overhead(to), s.mtu())
		return
	}
	_, err := s.pods[0].Ping(s.ctx, to, lab.PingOptions{Size: s.mtu(), DontFragment: true})
	s.ok(err)
}
