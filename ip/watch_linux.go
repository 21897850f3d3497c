package ip

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// watchBuffer holds the notifications of a pass that programs ten thousand peers, in bytes; the kernel doubles it.
const watchBuffer = 16 << 20

var watchGroups = []uint{
	unix.RTNLGRP_LINK, unix.RTNLGRP_NEIGH, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR,
	unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE,
}

// Watch implements Kernel.
func (k *LinuxKernel) Watch(ctx context.Context, f func(Event)) error {
	w := watcher{kernel: k, f: f, buf: make([]byte, 64<<10)}
	for ctx.Err() == nil {
		if err := w.follow(ctx); err != nil {
			return fmt.Errorf("watch the kernel: %w", err)
		}
	}
	return nil
}

// subscribe returns a socket that the runtime's poller waits for, so that closing it ends a read. The library opens it,
// but its subscriptions and its Receive do not do: they do not say who made a change, end at the first error, and take
// a new buffer of 64 KiB for each notification, of which a pass over ten thousand peers causes thirty thousand.
func subscribe(buffer int) (*os.File, error) {
	s, err := nl.Subscribe(unix.NETLINK_ROUTE, watchGroups...)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	defer s.Close()
	if err := s.SetReceiveBufferSize(buffer, true); err != nil {
		return nil, fmt.Errorf("set up netlink socket: %w", err)
	}
	fd, err := unix.FcntlInt(uintptr(s.GetFd()), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("set up netlink socket: %w", err)
	}
	return os.NewFile(uintptr(fd), "netlink"), nil
}

// watcher turns notifications into events. It belongs to one goroutine.
type watcher struct {
	kernel *LinuxKernel
	f      func(Event)
	names  names
	buf    []byte
	port   uint32 // of the last event that was not our own
	by     string // its owner
}

// follow reports changes until ctx ends or notifications were lost, and returns nil then. Once the buffer has
// overflowed, the kernel drops all notifications until the socket has been read empty (netlink_overrun and
// netlink_rcv_wake in net/netlink/af_netlink.c), and reports only the first loss. Only a new socket receives what
// changes meanwhile.
func (w *watcher) follow(ctx context.Context) error {
	file, err := subscribe(w.kernel.watchBuffer)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = file.Close() })
	defer func() {
		if stop() {
			_ = file.Close()
		}
	}()
	if err := w.refresh(); err != nil {
		return err
	}
	conn, err := file.SyscallConn()
	for err == nil {
		var n int
		var received error
		err = conn.Read(func(fd uintptr) bool {
			n, _, received = unix.Recvfrom(int(fd), w.buf, 0)
			return !errors.Is(received, unix.EAGAIN)
		})
		switch {
		case ctx.Err() != nil || errors.Is(received, unix.ENOBUFS):
			return nil
		case received != nil && !errors.Is(received, unix.EINTR):
			return received
		}
		for m := range split(w.buf[:max(0, n)]) {
			w.notify(m)
		}
	}
	return err
}

// refresh reads the names of all links and says that anything may have changed.
func (w *watcher) refresh() error {
	w.kernel.mu.Lock()
	err := w.kernel.repeat(func() (err error) {
		_, w.names, err = w.kernel.dumpLinks()
		return err
	})
	w.kernel.mu.Unlock()
	if err == nil {
		w.f(Event{})
	}
	return err
}

func (w *watcher) notify(m message) {
	ev := Event{By: w.who(m.Pid)}
	switch m.Type {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		l, ok := decodeLink(m.data)
		if !ok {
			return
		}
		if ev.Deleted = m.Type == unix.RTM_DELLINK; ev.Deleted {
			delete(w.names, l.index)
		} else {
			if old, ok := w.names[l.index]; ok && old != l.Name {
				w.f(Event{Object: Link{Name: old}, Deleted: true, By: ev.By}) // renamed
			}
			w.names[l.index] = l.Name
		}
		l.VXLAN.Underlay = w.names[l.underlay]
		ev.Object = l.Link
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		a, ok := decodeAddr(m.data, w.names)
		if !ok {
			return
		}
		ev.Object, ev.Deleted = a, m.Type == unix.RTM_DELADDR
	case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
		o, permanent := decodeNeigh(m.data, w.names)
		if o == nil {
			return
		}
		ev.Object, ev.Deleted = o, m.Type == unix.RTM_DELNEIGH || !permanent
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		r, ok := decodeRoute(m.data, w.names)
		if !ok {
			return
		}
		ev.Object, ev.Deleted = r, m.Type == unix.RTM_DELROUTE
	default:
		return
	}
	w.f(ev)
}

// who names the owner of a netlink port. The port of the first socket of a process is the number of the process; all
// others have a port that no process has as its number. The name is read at once: a process such as ip(8) ends soon.
func (w *watcher) who(port uint32) string {
	if port == 0 || port == uint32(os.Getpid()) || port > mostProcesses {
		return ""
	}
	if port != w.port {
		w.port, w.by = port, processName(port)
	}
	return w.by
}

// mostProcesses is the largest number of a process (PID_MAX_LIMIT, include/linux/threads.h).
const mostProcesses = 4 << 20

func processName(port uint32) string {
	name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", port))
	if err != nil {
		return fmt.Sprintf("process %d, which has ended", port)
	}
	return fmt.Sprintf("%s (pid %d)", strings.TrimSpace(string(name)), port)
}
