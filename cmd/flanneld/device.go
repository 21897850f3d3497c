package main

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

	"flanneld/backend/ipip"
	"flanneld/backend/udp"
	"flanneld/backend/vxlan"
	"flanneld/backend/wireguard"
	"flanneld/subnet"
)

// deviceFolder is where the locks of devices are: one folder for all daemons of a host, whatever their options.
const deviceFolder = "/run/flannel"

// devicePause is how long to wait before a device that another daemon has is tried again.
const devicePause = 2 * time.Second

// maxHolder bounds what a lock says about its holder, in bytes.
const maxHolder = 512

// DeviceLocks keep devices of this network namespace for one daemon: two of them would undo each other's settings without end.
type DeviceLocks struct {
	folder string
	holder string // of these
	files  []*os.File
}

// TakenError says that another daemon has a device.
type TakenError struct{ Device, Holder string }

func (e *TakenError) Error() string {
	return fmt.Sprintf("the device %s is in use by another flanneld (%s): give one of the two networks another device (vxlan: another VNI), or stop that daemon", e.Device, e.Holder)
}

// NewDeviceLocks returns the locks of one daemon, which describes itself to others, in a folder that all of them share.
func NewDeviceLocks(folder, holder string) *DeviceLocks {
	return &DeviceLocks{folder: folder, holder: holder}
}

// Lock takes a device until Release. The error is a TakenError if another daemon has it.
func (l *DeviceLocks) Lock(device string) error {
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
func (l *DeviceLocks) path(device string) (string, error) {
	if err := os.MkdirAll(l.folder, 0o755); err != nil {
		return "", fmt.Errorf("lock device: %w", err)
	}
	var st syscall.Stat_t
	if err := syscall.Stat("/proc/self/ns/net", &st); err != nil {
		return "", fmt.Errorf("lock device: network namespace: %w", err)
	}
	return filepath.Join(l.folder, fmt.Sprintf("device-%s.%d.lock", device, st.Ino)), nil
}

// Release gives all devices back. The files stay: whoever removed one could remove that which another daemon is about to lock.
func (l *DeviceLocks) Release() {
	for _, f := range l.files {
		_ = f.Close()
	}
	l.files = nil
}

// First takes the first device of some that no other daemon has. An error that is no TakenError ends the search.
func (l *DeviceLocks) First(devices ...string) (string, error) {
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

// devicesOf returns the devices that a network needs, the names that each may have in their order. last are those of the last run.
func devicesOf(c subnet.Config, last []string) [][]string {
	var fixed []string
	switch c.BackendType {
	case vxlan.Type:
		fixed = vxlan.Devices(c)
	case wireguard.Type:
		fixed = wireguard.Devices(c)
	case ipip.Type:
		fixed = []string{ipip.Device}
	case udp.Type:
		names := udp.Devices()
		used := slices.IndexFunc(names, func(name string) bool { return slices.Contains(last, name) })
		if used > 0 {
			names = slices.Concat(names[used:used+1], names[:used], names[used+1:])
		}
		return [][]string{names}
	}
	var out [][]string
	for _, name := range fixed {
		out = append(out, []string{name})
	}
	return out
}

// waitDevices takes the devices of a network as soon as no other daemon has one of them, and returns their names. A host where no lock can be made
// goes on without.
func (d *process) waitDevices(ctx context.Context, l *DeviceLocks, c subnet.Config) ([]string, error) {
	said := ""
	for {
		names, err := l.lockAll(devicesOf(c, d.state.Links))
		if taken := (*TakenError)(nil); !errors.As(err, &taken) {
			if err != nil {
				d.log.Warn("devices not locked: a second flanneld with the same device would not be noticed", "error", err)
			}
			return names, nil
		}
		if said != err.Error() {
			said = err.Error()
			d.log.Warn("waiting for a device", "reason", err)
		}
		d.status.Waiting("%v", err)
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(devicePause):
		}
	}
}

// lockAll takes one of the names of each device, or none at all. Where locks cannot be made, it returns the first names and the error.
func (l *DeviceLocks) lockAll(devices [][]string) (names []string, err error) {
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

func firsts(devices [][]string) []string {
	var out []string
	for _, candidates := range devices {
		out = append(out, candidates[0])
	}
	return out
}

// unused returns those devices of an earlier run that no other daemon has now.
func (l *DeviceLocks) unused(devices []string, own []string) []string {
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
