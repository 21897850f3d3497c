package ip

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Linux 6.6 attaches programs to a link without a qdisc (tcx). To add or delete the qdisc clsact, which older kernels
// need, stops the link for a moment, and packets of that moment are lost (dev_deactivate in qdisc_graft,
// net/sched/sch_api.c).
//
// Numbers and structures are those of include/uapi/linux/bpf.h.
const (
	bpfAttach      = 8
	bpfDetach      = 9
	bpfProgramByID = 13
	bpfInfo        = 15
	bpfQuery       = 16

	tcxIngress = 46
	tcxEgress  = 47

	replaceProgram = 1 << 2
)

// maxPrograms is how many programs may be attached to one side of a link (BPF_MPROG_MAX).
const maxPrograms = 64

// nameSize is the size of a program's name with the zero at its end (BPF_OBJ_NAME_LEN).
const nameSize = 16

type bpfAttachment struct {
	link, program, kind, flags, replaced, _ uint32
	_                                       uint64 // revision
}

type bpfQueried struct {
	link, kind, _, _ uint32
	ids              uint64 // *[maxPrograms]uint32
	count, _         uint32
	_, _, _, _       uint64 // flags, links, revision
}

// bpfProgram is the beginning of struct bpf_prog_info.
type bpfProgram struct {
	_    [64]byte
	name [nameSize]byte
}

func bpf[T any](command uintptr, argument *T) (int, error) {
	n, _, errno := unix.Syscall(unix.SYS_BPF, command, uintptr(unsafe.Pointer(argument)), unsafe.Sizeof(*argument))
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// tcx is a program that is attached to one side of a link without a qdisc.
type tcx struct {
	id int
	fd int // of the program
}

func (h Hook) kind() uint32 {
	if h.Egress {
		return tcxEgress
	}
	return tcxIngress
}

// attached returns the numbers of the programs at a side of a link, whosever they are. Not supported are older kernels.
func (h Hook) attached() (ids []uint32, supported bool, err error) {
	all := new([maxPrograms]uint32)
	var pin runtime.Pinner
	pin.Pin(all)
	defer pin.Unpin()
	q := bpfQueried{link: uint32(h.Link), kind: h.kind(), ids: uint64(uintptr(unsafe.Pointer(all))), count: maxPrograms}
	_, err = bpf(bpfQuery, &q)
	for _, none := range []error{unix.EINVAL, unix.EPERM, unix.ENOSYS} {
		if errors.Is(err, none) {
			return nil, false, nil
		}
	}
	if errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOENT) {
		return nil, true, nil
	}
	if err != nil {
		return nil, true, fmt.Errorf("list programs of link %d: %w", h.Link, err)
	}
	return all[:min(q.count, maxPrograms)], true, nil
}

// mayOpen reports whether the process may open programs by their number, without which it does not find its own again:
// that takes CAP_SYS_ADMIN, more than to load and attach them. There is no program 0.
func mayOpen() bool {
	_, _, err := programByID(0)
	return !errors.Is(err, unix.EPERM)
}

// tcx finds our program at a side of a link; the descriptor is to be closed. Not supported are older kernels, and
// processes without the right to find it.
func (h Hook) tcx() (found *tcx, supported bool, err error) {
	ids, supported, err := h.attached()
	if err != nil || !supported || !mayOpen() {
		return nil, false, err
	}
	for _, id := range ids {
		fd, name, err := programByID(id)
		switch {
		case errors.Is(err, unix.ENOENT): // detached meanwhile
		case err != nil:
			return nil, true, err
		case name == h.ProgramName():
			return &tcx{int(id), fd}, true, nil
		default:
			_ = unix.Close(fd)
		}
	}
	return nil, true, nil
}

func programByID(id uint32) (fd int, name string, err error) {
	fd, err = bpf(bpfProgramByID, &struct{ id, next, flags uint32 }{id: id})
	if err != nil {
		return 0, "", fmt.Errorf("open program %d: %w", id, err)
	}
	info := new(bpfProgram)
	var pin runtime.Pinner
	pin.Pin(info)
	defer pin.Unpin()
	_, err = bpf(bpfInfo, &struct {
		fd, size uint32
		info     uint64
	}{uint32(fd), uint32(unsafe.Sizeof(*info)), uint64(uintptr(unsafe.Pointer(info)))})
	if err != nil {
		_ = unix.Close(fd)
		return 0, "", fmt.Errorf("read program %d: %w", id, err)
	}
	text, _, _ := bytes.Cut(info.name[:], []byte{0})
	return fd, string(text), nil
}

// attachTCX attaches a program in place of ours that is there.
func (h Hook) attachTCX(program int) (supported bool, err error) {
	old, supported, err := h.tcx()
	if err == nil && !supported && h.Egress { // of the device itself
		err = h.left()
	}
	if err != nil || !supported {
		return supported, err
	}
	a := bpfAttachment{link: uint32(h.Link), program: uint32(program), kind: h.kind()}
	if old != nil {
		defer func() { _ = unix.Close(old.fd) }()
		a.flags, a.replaced = replaceProgram, uint32(old.fd)
	}
	if _, err := bpf(bpfAttach, &a); err != nil && !errors.Is(err, unix.EEXIST) {
		return true, fmt.Errorf("attach program %q to link %d: %w", h.name(), h.Link, err)
	}
	return true, nil
}

// detachTCX detaches our program, if it is there. own says that the link is the device, where all programs are ours.
func (h Hook) detachTCX(own bool) error {
	old, supported, err := h.tcx()
	if err == nil && !supported && own {
		err = h.left()
	}
	if err != nil || old == nil {
		return err
	}
	defer func() { _ = unix.Close(old.fd) }()
	_, err = bpf(bpfDetach, &bpfAttachment{link: uint32(h.Link), program: uint32(old.fd), kind: h.kind()})
	if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("detach program %q from link %d: %w", h.name(), h.Link, err)
	}
	return nil
}

// left says, of our device, that programs are attached that this process has no right to find.
func (h Hook) left() error {
	ids, _, err := h.attached()
	if err != nil || len(ids) == 0 {
		return err
	}
	return fmt.Errorf("an earlier run, which had CAP_SYS_ADMIN, has attached BPF programs to %s, and this one has no "+
		"right to detach them: stop the daemon, and run flannelctl cleanup as root", h.Device)
}

// ProgramName is the name that a program must have by which it is found again.
func (h Hook) ProgramName() string {
	side := "_recv"
	if h.Egress {
		side = "_send"
	}
	return h.Device[:min(len(h.Device), nameSize-1-len(side))] + side
}
