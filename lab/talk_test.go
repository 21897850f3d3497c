package lab_test

import (
	"bytes"
	"io"
	"net"
	"net/netip"
	"time"

	"flanneld/lab"
)

// talk is one TCP connection to an echo server.
type talk struct{ conn net.Conn }

// talk connects a namespace to a server in another one, which lives as long as the test.
func (c *cluster) talk(from, to *lab.Namespace, at netip.Addr) *talk {
	c.t.Helper()
	l := must[net.Listener](c.t)(to.Listen("tcp", netip.AddrPortFrom(at, 0).String()))
	c.t.Cleanup(func() { _ = l.Close() })
	go func() {
		if conn, err := l.Accept(); err == nil {
			_, _ = io.Copy(conn, conn) // until the client closes
			_ = conn.Close()
		}
	}()
	conn := must[net.Conn](c.t)(from.Dial(c.ctx, "tcp", l.Addr().String()))
	c.t.Cleanup(func() { _ = conn.Close() })
	t := &talk{conn}
	c.ok(t.goesOn())
	return t
}

// goesOn sends enough for full packets and waits for the echo.
func (t *talk) goesOn() error {
	_ = t.conn.SetDeadline(time.Now().Add(patience))
	sent := bytes.Repeat([]byte("still there?"), 1<<13)
	go func() { _, _ = t.conn.Write(sent) }() // what could not be sent is missing below
	_, err := io.ReadFull(t.conn, make([]byte, len(sent)))
	return err
}
