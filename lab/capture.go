package lab

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// Datagram is a UDP datagram, or a packet inside an IPv4 packet, as it was seen on a wire.
type Datagram struct {
	Protocol     int            // of the outer packet: UDP or IPIP
	Src, Dst     netip.AddrPort // port 0 where the protocol has none
	DontFragment bool           // IPv6: always
	Size         int            // of the whole IP packet, in bytes
	Payload      []byte         // a copy
}

// Capture collects the datagrams that pass an interface.
type Capture struct {
	file *os.File
	done sync.WaitGroup

	mu   sync.Mutex // guards all below
	seen []Datagram
}

// Capture starts to collect what passes an interface of the namespace.
func (n *Namespace) Capture(link string) (*Capture, error) {
	var fd int
	err := n.Do(func() error {
		l, err := net.InterfaceByName(link)
		if err != nil {
			return err
		}
		const all = unix.ETH_P_ALL<<8 | unix.ETH_P_ALL>>8 // in network order
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
			return err
		}
		return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all & 0xffff, Ifindex: l.Index})
	})
	if err != nil {
		return nil, fmt.Errorf("capture on %s: %w", link, err)
	}
	c := &Capture{file: os.NewFile(uintptr(fd), "capture")} // a non-blocking file: Close ends a Read
	c.done.Go(c.collect)
	return c, nil
}

func (c *Capture) collect() {
	b := make([]byte, 64<<10)
	for {
		n, err := c.file.Read(b)
		if err != nil {
			return
		}
		if d, ok := parse(b[:n]); ok {
			c.mu.Lock()
			c.seen = append(c.seen, d)
			c.mu.Unlock()
		}
	}
}

// Seen returns what has passed so far.
func (c *Capture) Seen() []Datagram {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.seen)
}

// Stop ends the capture.
func (c *Capture) Stop() {
	_ = c.file.Close()
	c.done.Wait()
}

// parse reads an IP packet without options or extension headers.
func parse(b []byte) (d Datagram, ok bool) {
	var src, dst netip.Addr
	var rest []byte
	switch {
	case len(b) >= ipv4Header+8 && b[0] == 0x45:
		src, dst, rest = netip.AddrFrom4([4]byte(b[12:])), netip.AddrFrom4([4]byte(b[16:])), b[ipv4Header:]
		d.Protocol, d.DontFragment = int(b[9]), b[6]&0x40 != 0
	case len(b) >= ipv6Header+8 && b[0]>>4 == 6:
		src, dst, rest = netip.AddrFrom16([16]byte(b[8:])), netip.AddrFrom16([16]byte(b[24:])), b[ipv6Header:]
		d.Protocol, d.DontFragment = int(b[6]), true
	}
	d.Size = len(b)
	switch d.Protocol {
	case unix.IPPROTO_UDP:
		d.Src = netip.AddrPortFrom(src, binary.BigEndian.Uint16(rest))
		d.Dst = netip.AddrPortFrom(dst, binary.BigEndian.Uint16(rest[2:]))
		d.Payload = slices.Clone(rest[8:])
	case unix.IPPROTO_IPIP:
		d.Src, d.Dst = netip.AddrPortFrom(src, 0), netip.AddrPortFrom(dst, 0)
		d.Payload = slices.Clone(rest)
	default:
		return d, false
	}
	return d, true
}
