package udp

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ports is the edge to the kernel. Its calls that cannot block bypass the scheduler: telling it of each would cost as
// much as some of the calls.
type ports struct {
	queue int
	fds   [families]int // -1: none
	raw   [families]int // raw sockets, -1: none
	port  uint16        // of all peers

	poll    []unix.PollFd // stop, queue, sockets
	iov     []unix.Iovec
	receive messages
	send    messages

	fault        mmsghdr
	faultName    slot
	faultControl [64]uint64
}

// messages are described for the kernel all at once, in memory that is used again and again.
type messages struct {
	headers []mmsghdr
	slots   []slot
	iov     []unix.Iovec
}

func newMessages(n, pieces int) messages {
	return messages{make([]mmsghdr, n), make([]slot, n), make([]unix.Iovec, pieces)}
}

// newPorts returns an edge over open descriptors, which stay the caller's. stop is an eventfd that ends Wait.
func newPorts(stop, queue int, fds, raw [families]int, port uint16) *ports {
	p := &ports{
		queue: queue, fds: fds, raw: raw, port: port, iov: make([]unix.Iovec, maxPieces),
		receive: newMessages(inboxMessages, inboxMessages), send: newMessages(outMessages, outPieces),
	}
	p.poll = []unix.PollFd{{Fd: int32(stop), Events: unix.POLLIN}, {Fd: int32(queue), Events: unix.POLLIN}}
	for _, fd := range fds {
		if fd >= 0 {
			p.poll = append(p.poll, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
		}
	}
	return p
}

// Read implements edge.
func (p *ports) Read(b []byte) (int, error) { return readDevice(p.queue, b) }

// Write implements edge.
func (p *ports) Write(pieces [][]byte) error {
	for i, b := range pieces {
		p.iov[i].Base = unsafe.SliceData(b)
		p.iov[i].SetLen(len(b))
	}
	return writeDevice(p.queue, p.iov[:len(pieces)])
}

// Answer implements edge.
func (p *ports) Answer(dst netip.Addr, b []byte) error {
	return unix.Sendto(p.raw[familyOf(dst)], b, unix.MSG_DONTWAIT, sockaddr(netip.AddrPortFrom(dst, 0)))
}

// Receive implements edge.
func (p *ports) Receive(f family, in []inbound) (int, error) {
	if p.fds[f] < 0 {
		return 0, errAgain
	}
	m := &p.receive
	for i := range in {
		h, s := &m.headers[i], &m.slots[i]
		m.iov[i].Base = unsafe.SliceData(in[i].buf)
		m.iov[i].SetLen(len(in[i].buf))
		h.Name, h.Namelen = (*byte)(unsafe.Pointer(&s.name)), uint32(unsafe.Sizeof(s.name))
		h.Iov = &m.iov[i]
		h.SetIovlen(1)
		h.Control = (*byte)(unsafe.Pointer(&s.control))
		h.SetControllen(controlSize)
	}
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(p.fds[f]), uintptr(unsafe.Pointer(&m.headers[0])),
		uintptr(len(in)), unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0, again(errno)
	}
	for i := range in[:n] {
		in[i].data, in[i].from = in[i].buf[:m.headers[i].n], m.slots[i].addr()
		in[i].size, in[i].class = 0, 0
		readControl(&in[i], m.slots[i].bytes()[:m.headers[i].Controllen])
	}
	return int(n), nil
}

// readControl takes segment size and traffic class from the control messages.
func readControl(in *inbound, b []byte) {
	controls(b, func(level, kind int32, data []byte) {
		switch {
		case level == unix.IPPROTO_UDP && kind == unix.UDP_GRO && len(data) >= 4:
			in.size = int(binary.NativeEndian.Uint32(data))
		case level == unix.SOL_IP && kind == unix.IP_TOS && len(data) >= 1:
			in.class = data[0]
		case level == unix.SOL_IPV6 && kind == unix.IPV6_TCLASS && len(data) >= 4:
			in.class = uint8(binary.NativeEndian.Uint32(data))
		}
	})
}

// Send implements edge.
func (p *ports) Send(out []outbound) (int, error) {
	f := out[0].to.family
	if p.fds[f] < 0 {
		return 0, unix.EAFNOSUPPORT
	}
	m := &p.send
	count, iov := 0, m.iov
	for count < len(out) && count < len(m.headers) && out[count].to.family == f && len(out[count].pieces) <= len(iov) {
		o, h, s := &out[count], &m.headers[count], &m.slots[count]
		h.Namelen = s.setName(o.to.addr, p.port)
		h.Name = (*byte)(unsafe.Pointer(&s.name))
		for i, b := range o.pieces {
			iov[i].Base = unsafe.SliceData(b)
			iov[i].SetLen(len(b))
		}
		h.Iov = &iov[0]
		h.SetIovlen(len(o.pieces))
		iov = iov[len(o.pieces):]
		n := putControls(s.bytes(), o)
		h.Control = nil
		if n > 0 {
			h.Control = (*byte)(unsafe.Pointer(&s.control))
		}
		h.SetControllen(n)
		count++
	}
	n, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(p.fds[f]), uintptr(unsafe.Pointer(&m.headers[0])),
		uintptr(count), unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0, again(errno)
	}
	return int(n), nil
}

// putControls writes what a message needs beside its pieces, and returns the length.
func putControls(b []byte, o *outbound) int {
	at := 0
	if o.count > 1 {
		at = segmentSize.put(b, at, uint32(o.size))
	}
	switch {
	case o.class == 0:
	case o.to.family == ipv4:
		at = trafficClass4.put(b, at, uint32(o.class))
	default:
		at = trafficClass6.put(b, at, uint32(o.class))
	}
	return at
}

func again(errno unix.Errno) error {
	switch errno {
	case unix.EAGAIN, unix.EINTR:
		return errAgain
	case unix.EIO:
		return errSingly
	}
	return errno
}

// sendPatience bounds how long a full socket holds up a worker, in milliseconds.
const sendPatience = 20

// Wait implements edge.
func (p *ports) Wait(toSend bool) bool {
	timeout := -1
	if toSend {
		timeout = sendPatience
	}
	for i := range p.poll {
		p.poll[i].Revents = 0
		if i > 0 {
			p.poll[i].Events = unix.POLLIN
			if toSend {
				p.poll[i].Events = unix.POLLOUT
			}
		}
	}
	if toSend {
		p.poll[1].Events = 0
	}
	for {
		_, err := unix.Poll(p.poll, timeout)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	return p.poll[0].Revents == 0
}

// Faults implements edge.
func (p *ports) Faults(tooBig func(dst netip.Addr, mtu int)) {
	for _, fd := range p.fds {
		for fd >= 0 && p.oneFault(fd, tooBig) {
			continue
		}
	}
}

// oneFault takes one message from an error queue; false: there is none.
func (p *ports) oneFault(fd int, tooBig func(dst netip.Addr, mtu int)) bool {
	h := &p.fault.Msghdr
	h.Name, h.Namelen = (*byte)(unsafe.Pointer(&p.faultName.name)), uint32(unsafe.Sizeof(p.faultName.name))
	h.Control = (*byte)(unsafe.Pointer(&p.faultControl))
	h.SetControllen(len(p.faultControl) * 8)
	_, _, errno := unix.RawSyscall(unix.SYS_RECVMSG, uintptr(fd), uintptr(unsafe.Pointer(h)),
		unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
	if errno != 0 {
		return false
	}
	b := unsafe.Slice((*byte)(unsafe.Pointer(&p.faultControl)), h.Controllen)
	controls(b, func(level, kind int32, data []byte) {
		isError := level == unix.SOL_IP && kind == unix.IP_RECVERR || level == unix.SOL_IPV6 && kind == unix.IPV6_RECVERR
		if !isError || len(data) < int(unsafe.Sizeof(unix.SockExtendedErr{})) {
			return
		}
		if e := (*unix.SockExtendedErr)(unsafe.Pointer(&data[0])); unix.Errno(e.Errno) == unix.EMSGSIZE {
			tooBig(p.faultName.addr(), int(e.Info))
		}
	})
	return true
}
