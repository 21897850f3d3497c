package lab_test

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"flanneld/lab"
)

// plainPeer speaks the protocol as plainly as it can be spoken: each packet of its device is the payload of one
// datagram, and each datagram is written to the device. It knows one host.
type plainPeer struct {
	device *os.File
	conns  map[byte]*net.UDPConn   // by IP version
	to     map[byte]netip.AddrPort // the host

	mu    sync.Mutex // guards all below
	count int        // datagrams received
	wrong error
}

// newPlainPeer starts one on a machine without a daemon. The device has one address and the network's route of each
// family.
func newPlainPeer(c *cluster, h, other *lab.Host) *plainPeer {
	c.t.Helper()
	p := &plainPeer{conns: map[byte]*net.UDPConn{}, to: map[byte]netip.AddrPort{
		4: netip.AddrPortFrom(other.Addr, 8285), 6: netip.AddrPortFrom(other.Addr6, 8285),
	}}
	c.ok(h.Do(func() error {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		r, err := unix.NewIfreq("plain0")
		if err != nil {
			return err
		}
		r.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, r); err != nil {
			return err
		}
		p.device = os.NewFile(uintptr(fd), "plain0")
		for version, addr := range map[byte]netip.Addr{4: h.Addr, 6: h.Addr6} {
			conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, 8285)))
			if err != nil {
				return err
			}
			p.conns[version] = conn
		}
		return nil
	}))
	c.ok(h.Run("ip link set plain0 mtu 1452 up",
		"ip addr add 10.5.77.0/32 dev plain0", "ip route add 10.5.0.0/16 dev plain0",
		"ip addr add fd00:5:0:77::/128 dev plain0", "ip -6 route add fd00:5::/48 dev plain0"))
	go p.send()
	for version, conn := range p.conns {
		go p.receive(version, conn)
	}
	c.t.Cleanup(func() {
		_ = p.device.Close()
		for _, conn := range p.conns {
			_ = conn.Close()
		}
	})
	return p
}

func (p *plainPeer) send() {
	b := make([]byte, 1<<16)
	for {
		n, err := p.device.Read(b)
		if err != nil {
			return
		}
		version := b[0] >> 4
		_, _ = p.conns[version].WriteToUDPAddrPort(b[:n], p.to[version]) // what is lost is sent again by TCP
	}
}

func (p *plainPeer) receive(version byte, conn *net.UDPConn) {
	b := make([]byte, 1<<16)
	for {
		n, err := conn.Read(b)
		if err != nil {
			return
		}
		p.note(checkPacket(b[:n], version))
		_, _ = p.device.Write(b[:n]) // what it does not take shows by what is missing
	}
}

func (p *plainPeer) note(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.count++
	if p.wrong == nil {
		p.wrong = err
	}
}

// checkPacket says why a datagram is not exactly one raw IP packet.
func checkPacket(b []byte, version byte) error {
	size := 0
	switch {
	case len(b) < 20 || b[0]>>4 != version:
		return fmt.Errorf("no packet of IP version %d: %x", version, b)
	case version == 4:
		size = int(binary.BigEndian.Uint16(b[2:]))
	case len(b) >= 40:
		size = 40 + int(binary.BigEndian.Uint16(b[4:]))
	}
	if size != len(b) || size > 1452 {
		return fmt.Errorf("a packet of %d bytes in a datagram of %d", size, len(b))
	}
	return nil
}

func TestUDPSpeaksWithAPlainPeer(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	e := c.etcd(network{"udp", lab.Dual}.config())
	ours, plain := c.host("ours"), c.host("plain")
	c.ok(e.Put(c.ctx, "subnets/10.5.77.0-24&fd00:5:0:77::-64",
		fmt.Sprintf(`{"PublicIP":%q,"PublicIPv6":%q}`, plain.Addr, plain.Addr6)))
	d := c.flanneld(ours, e)
	peer := newPlainPeer(c, plain, ours)
	pod := must[*lab.Pod](t)(ours.Pod())
	for i, addr := range []netip.Addr{netip.MustParseAddr("10.5.77.0"), netip.MustParseAddr("fd00:5:0:77::")} {
		_, err := pod.Ping(c.ctx, addr, lab.PingOptions{Size: 1452, DontFragment: true})
		c.ok(err)
		_, err = plain.Ping(c.ctx, pod.Addrs[i], lab.PingOptions{Size: 1452, DontFragment: true})
		c.ok(err)
		c.transfer(pod.Namespace, plain.Namespace, addr, 5<<20)
		c.transfer(plain.Namespace, pod.Namespace, pod.Addrs[i], 5<<20)
	}
	peer.mu.Lock()
	defer peer.mu.Unlock()
	if peer.wrong != nil || peer.count < 4000 {
		t.Errorf("%d datagrams, %v", peer.count, peer.wrong)
	}
	if n := c.datapath(d)["dropped: malformed"]; n != 0 {
		t.Errorf("%d malformed", n)
	}
}
