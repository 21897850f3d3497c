package wireguard

import (
	"errors"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/conn"
)

// unstick is how long after a change of routes or addresses the kernel chooses the source of each packet. Within that
// time a peer that lives has answered on the new way (a keepalive comes 10 s after the last packet), and later packets
// leave the way that its packets came.
const unstick = answerTime

// bind is the library's socket, which sends many datagrams by one system call, and each from the address that the last
// one was sent to. Both fail where the network has changed: the kernel refuses datagrams that are larger than the path
// instead of cutting them into fragments (udp_send_skb in net/ipv4/udp.c), and a source that is no longer there. Those
// are sent one by one, from where the kernel likes.
type bind struct {
	conn.Bind
	moved *moved
}

// moved is when routes or addresses of the host have changed last, in nanoseconds since 1970.
type moved struct{ at atomic.Int64 }

func (m *moved) note() { m.at.Store(time.Now().UnixNano()) }

func (m *moved) recently() bool { return time.Now().UnixNano()-m.at.Load() < int64(unstick) }

// Send implements conn.Bind.
func (b *bind) Send(packets [][]byte, to conn.Endpoint) error {
	if b.moved.recently() {
		to = sourceless(to)
	}
	err := b.Bind.Send(packets, to)
	if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EMSGSIZE) && !errors.Is(err, unix.ENETUNREACH) {
		return err
	}
	to = sourceless(to)
	var errs []error
	for i := range packets { // what was sent already is dropped by the peer, as a packet that was replayed
		errs = append(errs, b.Bind.Send(packets[i:i+1], to))
	}
	return errors.Join(errs...)
}

// sourceless returns a copy: others use the endpoint at the same time.
func sourceless(e conn.Endpoint) conn.Endpoint {
	if e, ok := e.(*conn.StdNetEndpoint); ok {
		return &conn.StdNetEndpoint{AddrPort: e.AddrPort}
	}
	return e
}
