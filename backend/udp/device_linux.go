package udp

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// device is a TUN device that this process has open, by one descriptor for each queue. It stays, with what stands on it, when the
// descriptors are closed.
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

// errDevice says that a device of that name stands there that is not ours to open as it is.
var errDevice = errors.New("a device of another kind has the name")

// openDevice opens the device, which it makes if there is none. kept are descriptors of an earlier run.
func openDevice(name string, queues int, offload bool, kept []int) (*device, error) {
	d := &device{name: name, queues: kept}
	if len(kept) != queues || !d.attached() {
		closeAll(kept)
		d.queues = nil
	}
	for len(d.queues) < queues {
		fd, err := openQueue(name)
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
	return d, noLinkLocal(name)
}

func openQueue(name string) (int, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("open /dev/net/tun: %w", err)
	}
	r, err := unix.NewIfreq(name)
	if err == nil {
		r.SetUint16(deviceFlags)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, r)
	}
	if err != nil {
		_ = unix.Close(fd)
		if errors.Is(err, unix.EINVAL) {
			err = errDevice
		}
		return 0, fmt.Errorf("open device %s: %w", name, err)
	}
	return fd, nil
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

// noLinkLocal keeps the kernel from giving the device an IPv6 address of its own making.
func noLinkLocal(name string) error {
	err := os.WriteFile("/proc/sys/net/ipv6/conf/"+name+"/addr_gen_mode", []byte("1"), 0)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("turn off link-local addresses of device %s: %w", name, err)
	}
	return nil
}

// attached reports whether all descriptors still lead to the device of this name.
func (d *device) attached() bool {
	for _, fd := range d.queues {
		r, err := unix.NewIfreq("")
		if err != nil || unix.IoctlIfreq(fd, unix.TUNGETIFF, r) != nil || r.Name() != d.name || r.Uint16()&deviceFlags != deviceFlags {
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
