package udp

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"flanneld/ip"
)

// device is a TUN device that this process has open, by one descriptor for each queue. It stays, with what stands on
// it, when the descriptors are closed.
type device struct {
	name    string
	queues  []int
	offload uint // TUN_F_*
}

const (
	deviceFlags = unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR | unix.IFF_MULTI_QUEUE
	offloadTCP  = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6 | unix.TUN_F_TSO_ECN
	offloadUDP  = unix.TUN_F_USO4 | unix.TUN_F_USO6
)

// openDevice opens the device, which it makes if there is none. kept are descriptors of an earlier run.
func openDevice(name string, queues int, offload bool, kept []int) (*device, error) {
	d := &device{name: name, queues: kept}
	if len(kept) != queues || !d.attached() {
		closeAll(kept)
		d.queues = nil
	}
	for len(d.queues) < queues {
		fd, err := ip.OpenTUN(name, deviceFlags)
		if err != nil {
			d.close()
			return nil, err
		}
		d.queues = append(d.queues, fd)
	}
	for _, fd := range d.queues {
		if err := d.setUp(fd, offload); err != nil {
			d.close()
			return nil, err
		}
	}
	return d, ip.NoLinkLocal(name)
}

// setUp makes the device outlive the process and turns on as many offloads as the kernel knows.
func (d *device) setUp(fd int, offload bool) error {
	if err := unix.SetNonblock(fd, true); err != nil {
		return fmt.Errorf("set up device %s: %w", d.name, err)
	}
	if err := unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 1); err != nil {
		return fmt.Errorf("make device %s persistent: %w", d.name, err)
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TUNSETVNETHDRSZ, vnetSize); err != nil {
		return fmt.Errorf("set virtio-net header of device %s: %w", d.name, err)
	}
	tries := []uint{offloadTCP | offloadUDP, offloadTCP, unix.TUN_F_CSUM, 0}
	if !offload {
		tries = tries[3:]
	}
	var err error
	for _, flags := range tries {
		if err = unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, int(flags)); err == nil {
			d.offload = flags
			return nil
		}
	}
	return fmt.Errorf("set offloads of device %s: %w", d.name, err)
}

// attached reports whether all descriptors still lead to the device of this name.
func (d *device) attached() bool {
	for _, fd := range d.queues {
		if !ip.IsTUN(fd, d.name, deviceFlags) {
			return false
		}
	}
	return true
}

func (d *device) close() { closeAll(d.queues) }

func closeAll(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
}

// readDevice reads one packet.
func readDevice(fd int, b []byte) (int, error) {
	n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
	switch errno {
	case 0:
		return int(n), nil
	case unix.EAGAIN, unix.EINTR:
		return 0, errAgain
	case unix.EBADFD:
		return 0, errGone
	}
	return 0, errno
}

// writeDevice writes one packet.
func writeDevice(fd int, iov []unix.Iovec) error {
	_, _, errno := unix.RawSyscall(unix.SYS_WRITEV, uintptr(fd), uintptr(unsafe.Pointer(&iov[0])), uintptr(len(iov)))
	if errno != 0 {
		return errno
	}
	return nil
}

// sums, tcp and udp report which work the device leaves to us in full: checksums, cutting TCP, cutting UDP.
func (d *device) sums() bool { return d.offload&unix.TUN_F_CSUM != 0 }

func (d *device) tcp() bool { return d.offload&unix.TUN_F_TSO4 != 0 }

func (d *device) udp() bool { return d.offload&unix.TUN_F_USO4 != 0 }
