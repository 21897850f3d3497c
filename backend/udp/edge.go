package udp

import (
	"errors"
	"net/netip"
)

// edge is what one worker reads and writes: a queue of the device and a socket of each family. One goroutine calls it.
// No method but Wait blocks.
type edge interface {
	// Read puts the next packet from the device into b, a virtio-net header before it, and returns the length of both;
	// errAgain: there is none now.
	Read(b []byte) (int, error)

	// Write gives the device one packet in pieces, the first of which begins with a virtio-net header.
	Write(pieces [][]byte) error

	// Answer has the kernel send a packet of ours to dst. Written to the device, it would be taken for forged: its source
	// is an address of this host.
	Answer(dst netip.Addr, p []byte) error

	// Receive reads messages from the socket of a family and returns how many; errAgain: there are none now.
	Receive(f family, in []inbound) (int, error)

	// Send sends messages, until one of another family or one that fails, and returns how many went out; an error is about
	// the next one.
	Send(out []outbound) (int, error)

	// Faults empties the error queues of the sockets, which hold what routers and the kernel have said of messages sent:
	// the path to dst takes no more than mtu bytes.
	Faults(tooBig func(dst netip.Addr, mtu int))

	// Wait blocks until something can be read, or, if so asked, sent; false: the worker shall end.
	Wait(toSend bool) bool
}

var (
	// errAgain says that nothing can be done without waiting.
	errAgain = errors.New("nothing there")
	// errSingly says that the socket does not take several datagrams in one message, now or ever.
	errSingly = errors.New("datagrams must be sent one by one")
	// errGone says that the device has been deleted.
	errGone = errors.New("the device is gone")
)

// inbound is one message received: datagrams of one sender, each of size bytes, the last perhaps shorter.
type inbound struct {
	buf   []byte // for the socket to fill
	data  []byte // what it filled
	from  netip.Addr
	size  int
	class uint8 // TOS or traffic class of the outer header
}

// outbound is one message to send: datagrams to one peer, each of size bytes, the last perhaps shorter.
type outbound struct {
	to     *path
	pieces [][]byte
	each   int // pieces of one datagram
	size   int
	bytes  int
	count  int // datagrams
	limit  int // most datagrams
	class  uint8
	closed bool // nothing can be added
}

// Limits of one message.
const (
	// maxSegments is the kernel's UDP_MAX_SEGMENTS, which was 64 before Linux 6.9.
	maxSegments = 64
	// maxMessage is below what an IPv4 packet holds behind the headers of IP and UDP, in bytes.
	maxMessage = 65000
)
