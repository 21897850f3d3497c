package ip

import (
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// socket is a NETLINK_ROUTE socket for dumps and batches, opened by the library. One goroutine uses it at a time.
//
// A Handle of the library does not do: its socket cannot be asked for the texts of errors, and it sends one message and
// receives its answer, which costs thirty thousand round trips for ten thousand peers where a batch needs one.
type socket struct {
	sockets map[int]*nl.SocketHandle // the form in which requests of the library want it
	fd      int
	in      []byte

	sends, receives int // system calls of batches so far
}

const (
	// batchSize is how many operations go into one send. If all of them fail, their answers fit into receiveBuffer: the
	// kernel accounts about 1 KiB for each.
	batchSize     = 16 << 10
	receiveBuffer = 16 << 20 // bytes; the kernel doubles it
	sendBuffer    = 2 << 20
	answerTime    = 10 * time.Second
)

func dial() (*socket, error) {
	s, err := nl.Subscribe(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	timeout := unix.NsecToTimeval(int64(answerTime))
	err = errors.Join(
		s.SetReceiveBufferSize(receiveBuffer, true),
		s.SetSendTimeout(&timeout),
		s.SetReceiveTimeout(&timeout),
		s.SetExtAck(true),
		unix.SetsockoptInt(s.GetFd(), unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, sendBuffer),
		unix.SetsockoptInt(s.GetFd(), unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 1),
	)
	if err != nil {
		s.Close()
		return nil, fmt.Errorf("set up netlink socket (Linux 4.20 and CAP_NET_ADMIN are needed): %w", err)
	}
	sockets := map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: {Socket: s}}
	return &socket{sockets: sockets, fd: s.GetFd(), in: make([]byte, 64<<10)}, nil
}

func (s *socket) close() { s.sockets[unix.NETLINK_ROUTE].Close() }

// get sends a request by the library and calls f with the data of each message of the answer.
func (s *socket) get(kind, flags uint16, f func([]byte), parts ...nl.NetlinkRequestData) error {
	req := nl.NewNetlinkRequest(int(kind), int(flags))
	req.Sockets, req.Data = s.sockets, parts
	return req.ExecuteIter(unix.NETLINK_ROUTE, 0, func(data []byte) bool {
		f(data)
		return true
	})
}

// dump asks for all objects that the request selects, and calls f with the data of each. nl.ErrDumpInterrupted: what f
// saw proves nothing. It receives by itself, for the reason given at batch.
func (s *socket) dump(kind uint16, f func([]byte), parts ...nl.NetlinkRequestData) error {
	handle := s.sockets[unix.NETLINK_ROUTE]
	handle.Seq++
	req := nl.NewNetlinkRequest(int(kind), unix.NLM_F_DUMP)
	req.Seq, req.Data = handle.Seq, parts
	if err := handle.Socket.Send(req); err != nil {
		return fmt.Errorf("send to the kernel: %w", err)
	}
	interrupted := false
	for {
		b, err := s.receive()
		if err != nil {
			return err
		}
		for m := range split(b) {
			if m.Seq != handle.Seq {
				continue
			}
			interrupted = interrupted || m.Flags&unix.NLM_F_DUMP_INTR != 0
			if m.Type != unix.NLMSG_DONE && m.Type != unix.NLMSG_ERROR {
				f(m.data)
				continue
			}
			if err := kernelError(m); err != nil || !interrupted {
				return err
			}
			return nl.ErrDumpInterrupted
		}
	}
}

// batch sends n messages at once, the i-th written by write, and returns the errors by index. The kernel carries them
// out one after the other before the send returns, so that all answers are there then. Only the last is asked for an
// acknowledgement, but errors always come back: one receive in the usual case, and one more for each failure, tells
// all. An error besides means that the outcome is not known.
//
// It receives by itself, because the library makes a buffer of 64 KiB for every receive: 1 GiB if a batch fails.
func (s *socket) batch(n int, write func(m *messages, i int)) (map[int]error, error) {
	if n == 0 {
		return nil, nil
	}
	m := messages{buf: make([]byte, 0, n*80), seq: s.sockets[unix.NETLINK_ROUTE].Seq}
	first := m.seq + 1
	for i := range n {
		write(&m, i)
	}
	m.addFlags(unix.NLM_F_ACK)
	s.sockets[unix.NETLINK_ROUTE].Seq = m.seq
	s.sends++
	if err := unix.Sendto(s.fd, m.buf, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, fmt.Errorf("send to the kernel: %w", err)
	}
	failed := map[int]error{}
	for {
		b, err := s.receive()
		if err != nil {
			return nil, err
		}
		for a := range split(b) {
			if a.Type != unix.NLMSG_ERROR || a.Seq-first >= uint32(n) {
				continue
			}
			if err := kernelError(a); err != nil {
				failed[int(a.Seq-first)] = err
			}
			if a.Seq == m.seq {
				return failed, nil
			}
		}
	}
}

// receive returns the next datagram, which is valid until the next call.
func (s *socket) receive() ([]byte, error) {
	for {
		s.receives++
		n, _, err := unix.Recvfrom(s.fd, s.in, 0)
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN):
			if err := s.await(); err != nil {
				return nil, err
			}
		case err != nil:
			return nil, fmt.Errorf("receive from the kernel: %w", err)
		default:
			return s.in[:n], nil
		}
	}
}

// await waits for an answer. The library's sockets do not block.
func (s *socket) await() error {
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLIN}}, int(answerTime.Milliseconds()))
	if n == 0 && err == nil {
		err = unix.ETIMEDOUT
	}
	if err != nil && !errors.Is(err, unix.EINTR) {
		return fmt.Errorf("wait for the kernel: %w", err)
	}
	return nil
}

// kernelError returns the error in an acknowledgement or at the end of a dump, nil if there is none.
func kernelError(m message) error {
	code := int32(u32(m.data))
	if code >= 0 {
		return nil
	}
	errno := syscall.Errno(-code)
	if m.Type != unix.NLMSG_ERROR || m.Flags&unix.NLM_F_ACK_TLVS == 0 || len(m.data) < 4+unix.NLMSG_HDRLEN {
		return errno
	}
	// The request stands in between as a whole. (The library's requests take that for granted, so NETLINK_CAP_ACK stays
	// off.)
	request := (int(u32(m.data[4:])) + unix.NLMSG_ALIGNTO - 1) &^ (unix.NLMSG_ALIGNTO - 1)
	for kind, data := range attributes(m.data[min(len(m.data), 4+request):]) {
		if kind == nl.NLMSGERR_ATTR_MSG {
			return fmt.Errorf("%w (%s)", errno, unix.ByteSliceToString(data))
		}
	}
	return errno
}
