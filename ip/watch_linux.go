package ip

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// watchBuffer holds the notifications of a pass that programs ten thousand peers, in bytes; the kernel doubles it.
const watchBuffer = 16 << 20

var watchGroups = []int{
	unix.RTNLGRP_LINK, unix.RTNLGRP_NEIGH, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR,
	unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE,
}

// Watch implements Kernel.
func (k *LinuxKernel) Watch(ctx context.Context, f func(Event)) error {
	file, err := openWatch()
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = file.Close() })
	defer func() {
		if stop() {
			_ = file.Close()
		}
	}()
	w := watcher{kernel: k, f: f, buf: make([]byte, 64<<10)}
	if err := w.refresh(); err != nil {
		return err
	}
	conn, err := file.SyscallConn()
	if err != nil {
		return fmt.Errorf("watch the kernel: %w", err)
	}
	for {
		var n int
		var received error
		err := conn.Read(func(fd uintptr) bool {
			n, _, received = unix.Recvfrom(int(fd), w.buf, 0)
			return !errors.Is(received, unix.EAGAIN)
		})
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(received, unix.ENOBUFS):
			err = w.refresh() // notifications were lost, perhaps names of links too
		case received != nil && !errors.Is(received, unix.EINTR):
			err = received
		}
		if err != nil {
			return fmt.Errorf("watch the kernel: %w", err)
		}
		for m := range split(w.buf[:max(0, n)]) {
			w.notify(m)
		}
	}
}

// openWatch returns a socket that the runtime's poller waits for, so that closing it ends a read.
func openWatch() (*os.File, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	errs := []error{
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, watchBuffer),
		unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}),
	}
	for _, g := range watchGroups {
		errs = append(errs, unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, g))
	}
	if err := errors.Join(errs...); err != nil {
		_ = unix.Close(fd)
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
	ev := Event{By: w.who(m.port)}
	switch m.kind {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		l, ok := decodeLink(m.data)
		if !ok {
			return
		}
		if ev.Deleted = m.kind == unix.RTM_DELLINK; ev.Deleted {
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
		ev.Object, ev.Deleted = a, m.kind == unix.RTM_DELADDR
	case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
		o, permanent := decodeNeigh(m.data, w.names)
		if o == nil {
			return
		}
		ev.Object, ev.Deleted = o, m.kind == unix.RTM_DELNEIGH || !permanent
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		r, ok := decodeRoute(m.data, w.names)
		if !ok {
			return
		}
		ev.Object, ev.Deleted = r, m.kind == unix.RTM_DELROUTE
	default:
		return
	}
	w.f(ev)
}

// who names the owner of a netlink port, which by custom has the number of its process. It looks at once: a process such as
// ip(8) ends soon.
func (w *watcher) who(port uint32) string {
	if port == 0 || port == w.kernel.sock.port {
		return ""
	}
	if port != w.port {
		w.port, w.by = port, processName(port)
	}
	return w.by
}

func processName(port uint32) string {
	name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", port))
	if err != nil {
		return fmt.Sprintf("netlink port %d, a process that has ended", port)
	}
	return fmt.Sprintf("%s (pid %d)", strings.TrimSpace(string(name)), port)
}
