package ip

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// socket is a NETLINK_ROUTE socket for requests. One goroutine uses it at a time.
type socket struct {
	fd   int
	port uint32 // what the kernel calls the sender in notifications
	seq  uint32
	in   []byte

	sends, receives int // system calls so far
}

const (
	// batchSize is how many operations go into one send. If all of them fail, their answers fit into receiveBuffer: the
	// kernel accounts about 1 KiB for each.
	batchSize     = 16 << 10
	receiveBuffer = 16 << 20 // bytes; the kernel doubles it
	sendBuffer    = 2 << 20
	answerTime    = 10 * time.Second
)

var errInterrupted = errors.New("the kernel's state changed during the dump")

func dial() (*socket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	timeout := unix.NsecToTimeval(int64(answerTime))
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, sendBuffer),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout),
		unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_EXT_ACK, 1),
		unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1),
		unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 1),
		unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}),
	)
	if err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("set up netlink socket (Linux 4.20 and CAP_NET_ADMIN are needed): %w", err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("name of the netlink socket: %w", err)
	}
	return &socket{fd: fd, port: name.(*unix.SockaddrNetlink).Pid, in: make([]byte, 64<<10)}, nil
}

func (s *socket) close() { _ = unix.Close(s.fd) }

func (s *socket) send(b []byte) error {
	s.sends++
	if err := unix.Sendto(s.fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("send to the kernel: %w", err)
	}
	return nil
}

func (s *socket) receive() ([]byte, error) {
	for {
		s.receives++
		n, _, err := unix.Recvfrom(s.fd, s.in, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("receive from the kernel: %w", os.NewSyscallError("recvfrom", err))
		}
		return s.in[:n], nil
	}
}

// do sends one request and returns its outcome. f, if not nil, gets the answer.
func (s *socket) do(write func(m *messages, seq uint32), f func(message)) error {
	s.seq++
	var m messages
	write(&m, s.seq)
	m.addFlags(unix.NLM_F_ACK)
	if err := s.send(m.buf); err != nil {
		return err
	}
	for {
		b, err := s.receive()
		if err != nil {
			return err
		}
		for got := range split(b) {
			switch {
			case got.seq != s.seq:
			case got.kind == unix.NLMSG_ERROR:
				return kernelError(got)
			case f != nil:
				f(got)
			}
		}
	}
}

// dump sends a dump request and calls f for each message of the answer. errInterrupted: what f saw proves nothing.
func (s *socket) dump(kind uint16, fixed []byte, attrs func(*messages), f func(message)) error {
	s.seq++
	var m messages
	m.begin(kind, unix.NLM_F_DUMP, s.seq, fixed)
	if attrs != nil {
		attrs(&m)
	}
	m.end()
	if err := s.send(m.buf); err != nil {
		return err
	}
	interrupted := false
	for {
		b, err := s.receive()
		if err != nil {
			return err
		}
		for got := range split(b) {
			if got.seq != s.seq {
				continue
			}
			interrupted = interrupted || got.flags&unix.NLM_F_DUMP_INTR != 0
			switch got.kind {
			case unix.NLMSG_DONE, unix.NLMSG_ERROR:
				if err := kernelError(got); err != nil || !interrupted {
					return err
				}
				return errInterrupted
			}
			f(got)
		}
	}
}

// batch sends n messages at once, the i-th written by write with the given sequence number, and returns the errors by
// index. The kernel carries them out one after the other before the send returns; only the last is asked for an
// acknowledgement, but errors always come back, so that one receive in the usual case, and one for each failure in others, tells all. An error
// besides means that the outcome is not known.
func (s *socket) batch(n int, write func(m *messages, seq uint32, i int)) (map[int]error, error) {
	if n == 0 {
		return nil, nil
	}
	m := messages{buf: make([]byte, 0, n*80)}
	first := s.seq + 1
	for i := range n {
		s.seq++
		write(&m, s.seq, i)
	}
	m.addFlags(unix.NLM_F_ACK)
	if err := s.send(m.buf); err != nil {
		return nil, err
	}
	failed := map[int]error{}
	for {
		b, err := s.receive()
		if err != nil {
			return nil, err
		}
		for got := range split(b) {
			if got.kind != unix.NLMSG_ERROR || got.seq-first >= uint32(n) {
				continue
			}
			if err := kernelError(got); err != nil {
				failed[int(got.seq-first)] = err
			}
			if got.seq == s.seq {
				return failed, nil
			}
		}
	}
}

// Attributes of an extended acknowledgement (enum nlmsgerr_attrs).
const extAckText = 1

// kernelError returns the error in an acknowledgement or at the end of a dump, nil if there is none.
func kernelError(m message) error {
	code := int32(u32(m.data))
	if code >= 0 {
		return nil
	}
	errno := syscall.Errno(-code)
	if m.kind != unix.NLMSG_ERROR || m.flags&unix.NLM_F_ACK_TLVS == 0 || len(m.data) < 4+unix.NLMSG_HDRLEN {
		return errno
	}
	rest := m.data[4+unix.NLMSG_HDRLEN:]
	if m.flags&unix.NLM_F_CAPPED == 0 {
		// The request stands in between as a whole.
		n := int(u32(m.data[4:]))
		rest = m.data[min(len(m.data), 4+(n+3)&^3):]
	}
	for kind, data := range attributes(rest) {
		if kind == extAckText {
			return fmt.Errorf("%w (%s)", errno, cstring(data))
		}
	}
	return errno
}
