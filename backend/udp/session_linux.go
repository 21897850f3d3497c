package udp

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"golang.org/x/sys/unix"
)

// session is one generation of workers, over one set of open descriptors.
type session struct {
	workers []*worker
	old     []interface{ close() } // used by earlier sessions alone
	event   int                    // an eventfd, readable when the workers shall end
	raw     [families]int          // sockets for ICMP errors, -1: none
	done    sync.WaitGroup
}

// inboxMessages is how many messages a worker takes from a socket in one call.
const inboxMessages = 4

// newSession returns a session over what the datapath has open; its lock is held.
func newSession(d *datapath) (*session, error) {
	event, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("open eventfd: %w", err)
	}
	s := &session{event: event}
	for f, o := range socketOptions {
		if s.raw[f], err = unix.Socket(o.domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW); err != nil {
			s.raw[f] = -1 // CAP_NET_RAW may be missing, or IPv6; senders wait in vain then for ICMP errors, which are counted
			d.log.Debug("no socket for ICMP errors", "error", err)
		}
	}
	for i := range d.workers {
		fds, merge := [families]int{-1, -1}, true
		for f, sockets := range d.sockets {
			if sockets != nil {
				fds[f] = sockets.fds[i]
				merge = merge && sockets.segments
			}
		}
		p := newPorts(event, d.device.queues[i], fds, s.raw, d.spec.port)
		w := newWorker(p, &d.table, d.errors, &d.counters[i], merge)
		w.in = newInbox(inboxMessages)
		w.run.tcp, w.run.udp = d.device.tcp(), d.device.udp()
		s.workers = append(s.workers, w)
	}
	return s, nil
}

func (s *session) start(log *slog.Logger) {
	for _, w := range s.workers {
		s.done.Go(func() {
			switch err := w.loop(); {
			case errors.Is(err, errGone):
				// The daemon removes the device itself in a move; a device that others delete is drift, and said to be.
				log.Debug("worker ended", "reason", err)
			case err != nil:
				log.Warn("worker ended", "reason", err)
			}
		})
	}
}

// stop ends the workers and waits for them.
func (s *session) stop() {
	one := [8]byte{1, 1, 1, 1, 1, 1, 1, 1} // not zero in either byte order
	_, _ = unix.Write(s.event, one[:])
	s.done.Wait()
	_ = unix.Close(s.event)
	closeAll(s.raw[:])
}
