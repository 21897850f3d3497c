// Package devicelock keeps network devices for one daemon of a host: two of them would undo each other's settings
// without end.
package devicelock

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"flanneld/retry"
	"flanneld/subnet"
)

// Folder is where the locks of devices are: one folder for all daemons of a host, whatever their options.
const Folder = "/run/flannel"

// maxHolder bounds what a lock says about its holder, in bytes.
const maxHolder = 512

// Locks are the devices of this network namespace that one daemon holds. One goroutine uses them at a time.
type Locks struct {
	folder string
	holder string // of these
	files  []*os.File
}

// TakenError says that another daemon has a device.
type TakenError struct{ Device, Holder string }

func (e *TakenError) Error() string {
	return fmt.Sprintf("the device %s is in use by another flanneld (%s): give one of the two networks another device "+
		"(vxlan: another VNI), or stop that daemon", e.Device, e.Holder)
}

// New returns the locks of one daemon, which describes itself to others, in a folder that all of them share.
func New(folder, holder string) *Locks {
	return &Locks{folder: folder, holder: holder}
}

// Lock takes a device until Release. The error is a TakenError if another daemon has it, one of ours or the released
// flannel.
func (l *Locks) Lock(device string) error {
	if owner := ReleasedOwner(device); owner != "" {
		return &TakenError{device, owner}
	}
	path, err := l.path(device)
	if err != nil {
		return err
	}
	f, err := subnet.OpenLock(path, os.O_RDWR|os.O_CREATE)
	if err != nil {
		return fmt.Errorf("lock device: %w", err)
	}
	switch err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); {
	case errors.Is(err, syscall.EWOULDBLOCK):
		text, _ := io.ReadAll(io.LimitReader(f, maxHolder))
		_ = f.Close()
		return &TakenError{device, string(text)}
	case err != nil:
		_ = f.Close()
		return fmt.Errorf("lock device: %w", err)
	}
	_ = f.Truncate(0)
	_, _ = f.WriteAt([]byte(l.holder), 0)
	l.files = append(l.files, f)
	return nil
}

// path is that of the lock of a device. Daemons in containers may share the folder, but not the network namespace.
func (l *Locks) path(device string) (string, error) {
	if err := os.MkdirAll(l.folder, 0o755); err != nil {
		return "", fmt.Errorf("lock device: %w", err)
	}
	path, err := pathOf(l.folder, device, "/proc/self/ns/net")
	if err != nil {
		return "", fmt.Errorf("lock device: network namespace: %w", err)
	}
	return path, nil
}

// pathOf is the path of the lock of a device in a network namespace, which a file stands for.
func pathOf(folder, device, namespace string) (string, error) {
	var st syscall.Stat_t
	if err := syscall.Stat(namespace, &st); err != nil {
		return "", err
	}
	return filepath.Join(folder, fmt.Sprintf("device-%s.%d.lock", device, st.Ino)), nil
}

// Files returns the files of all locks in a network namespace, which a file stands for. They may be removed when the
// namespace is: nobody can take them any more.
func Files(folder, namespace string) []string {
	pattern, err := pathOf(folder, "*", namespace)
	if err != nil {
		return nil
	}
	files, _ := filepath.Glob(pattern)
	return files
}

// Release gives all devices back. The files stay: whoever removed one could remove that which another daemon is about
// to lock.
func (l *Locks) Release() {
	for _, f := range l.files {
		_ = f.Close()
	}
	l.files = nil
}

// First takes the first device of some that no other daemon has. An error that is no TakenError ends the search.
func (l *Locks) First(devices ...string) (string, error) {
	var errs []error
	for _, device := range devices {
		err := l.Lock(device)
		if err == nil {
			return device, nil
		}
		if taken := (*TakenError)(nil); !errors.As(err, &taken) {
			return "", err
		}
		errs = append(errs, err)
	}
	return "", errors.Join(errs...)
}

// All takes one of the names of each device, or none at all: rather one of the last run than another. Where locks
// cannot be made, it returns the first names and the error.
func (l *Locks) All(devices [][]string, last []string) (names []string, err error) {
	devices = prefer(devices, last)
	for _, candidates := range devices {
		name, err := l.First(candidates...)
		if taken := (*TakenError)(nil); errors.As(err, &taken) {
			l.Release()
			return nil, err
		}
		if err != nil {
			return firsts(devices), err
		}
		names = append(names, name)
	}
	return names, nil
}

// waitPause is how long to wait before a device that another daemon has is tried again.
const waitPause = 2 * time.Second

// Wait is All as soon as no other daemon has one of the devices. waiting is called when the reason to wait is a new
// one. When ctx ends before, the error is that of ctx.
func (l *Locks) Wait(ctx context.Context, devices [][]string, last []string,
	waiting func(reason error)) (names []string, err error) {
	loop := retry.Loop{First: waitPause, Last: waitPause, Again: isTaken, Waiting: waiting}
	err = loop.Run(ctx, func() (err error) {
		names, err = l.All(devices, last)
		return err
	})
	if isTaken(err) {
		return nil, ctx.Err()
	}
	return names, err
}

func isTaken(err error) bool {
	taken := (*TakenError)(nil)
	return errors.As(err, &taken)
}

// prefer puts the name that was used last before the others.
func prefer(devices [][]string, last []string) [][]string {
	out := make([][]string, len(devices))
	for i, names := range devices {
		used := max(0, slices.IndexFunc(names, func(name string) bool { return slices.Contains(last, name) }))
		out[i] = slices.Concat(names[used:used+1], names[:used], names[used+1:])
	}
	return out
}

func firsts(devices [][]string) []string {
	var out []string
	for _, candidates := range devices {
		out = append(out, candidates[0])
	}
	return out
}

// Unused returns those devices of an earlier run that no other daemon has now.
func (l *Locks) Unused(devices []string, own []string) []string {
	mine := slices.Clone(l.files)
	var out []string
	for _, device := range devices {
		if slices.Contains(own, device) || l.Lock(device) == nil {
			out = append(out, device)
		}
	}
	for _, f := range l.files[len(mine):] {
		_ = f.Close()
	}
	l.files = mine
	return out
}
