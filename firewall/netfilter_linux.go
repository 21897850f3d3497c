package firewall

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

const (
	answerTime = 10 * time.Second
	// buffers hold a transaction that fills the sets for ten thousand peers, in bytes.
	buffers = 8 << 20
	// readTries is how often a dump is repeated that a transaction of whomever has interrupted.
	readTries = 5
)

// netfilter is a socket to nf_tables of one network namespace. One goroutine uses it at a time, except for port.
type netfilter struct {
	conn *nftables.Conn // nil: to be opened
	nl   *netlink.Conn  // what conn talks through
	port atomic.Uint32  // netlink port of the socket, which the kernel names as the author of what it does
}

// with calls f with an open socket. After an error answers may still be under way, so the socket is not used again.
func (n *netfilter) with(f func(c *nftables.Conn) error) error {
	if n.conn == nil {
		if err := n.open(); err != nil {
			return fmt.Errorf("open nf_tables: %w", err)
		}
	}
	err := n.nl.SetDeadline(time.Now().Add(answerTime))
	if err == nil {
		err = f(n.conn)
	}
	if err != nil {
		n.close()
	}
	return err
}

func (n *netfilter) open() error {
	conn, err := nftables.New(nftables.AsLasting(), nftables.WithSockOptions(func(c *netlink.Conn) error {
		n.nl = c
		port, err := portOf(c)
		n.port.Store(port)
		return errors.Join(err, c.SetReadBuffer(buffers), c.SetWriteBuffer(buffers))
	}))
	n.conn = conn
	return err
}

// portOf returns the netlink port that the kernel has given to a socket.
func portOf(c *netlink.Conn) (uint32, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var port uint32
	var failed error
	err = raw.Control(func(fd uintptr) {
		addr, err := unix.Getsockname(int(fd))
		if own, ok := addr.(*unix.SockaddrNetlink); ok {
			port = own.Pid
		}
		failed = err
	})
	return port, errors.Join(err, failed)
}

// own implements edge.
func (n *netfilter) own(port uint32) bool { return port != 0 && port == n.port.Load() }

func (n *netfilter) close() {
	if n.conn != nil {
		_ = n.conn.CloseLasting()
	}
	n.conn = nil
}

// generation implements edge.
func (n *netfilter) generation() (g uint32, err error) {
	err = n.with(func(*nftables.Conn) error {
		g, err = n.askGeneration()
		return err
	})
	return g, err
}

func (n *netfilter) askGeneration() (uint32, error) {
	reply, err := n.nl.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETGEN, Flags: netlink.Request},
		Data:   []byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, 0},
	})
	if err != nil {
		return 0, err
	}
	for _, m := range reply {
		ad, err := netlink.NewAttributeDecoder(m.Data[4:])
		if err != nil {
			return 0, err
		}
		ad.ByteOrder = binary.BigEndian
		for ad.Next() {
			if ad.Type() == unix.NFTA_GEN_ID {
				return ad.Uint32(), nil
			}
		}
	}
	return 0, errors.New("the kernel names no generation of the ruleset")
}

// consistent calls read until no transaction came in between. On a host whose ruleset never rests, the last outcome
// stands: a wrong difference is seen again, and repaired twice at worst.
func (n *netfilter) consistent(read func(c *nftables.Conn) error) error {
	return n.with(func(c *nftables.Conn) error {
		for range readTries {
			before, err := n.askGeneration()
			if err != nil {
				return err
			}
			if err := read(c); err != nil {
				return err
			}
			if after, err := n.askGeneration(); err != nil || after == before {
				return err
			}
		}
		return nil
	})
}
