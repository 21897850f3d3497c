package plugin

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
)

// flock locks an open file, and waits for it that long. It closes the file if that fails, but not after a wait in vain:
// a thread still waits then, until the process ends.
func flock(f *os.File, wait time.Duration) error {
	err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) && wait > 0 {
		return flockWithin(f, wait)
	}
	if err != nil {
		_ = f.Close()
	}
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return errBusy
	}
	return err
}

func flockWithin(f *os.File, wait time.Duration) error {
	locked := make(chan error, 1)
	go func() {
		for {
			err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
			if !errors.Is(err, syscall.EINTR) {
				locked <- err
				return
			}
		}
	}()
	select {
	case err := <-locked:
		return err
	case <-time.After(wait):
		return errBusy
	}
}

// inherit lets the programs that this process starts keep the file open, and with it the lock.
func inherit(f *os.File) error {
	if _, _, errno := syscall.Syscall(syscall.SYS_FCNTL, f.Fd(), syscall.F_SETFD, 0); errno != 0 {
		return fmt.Errorf("pass on the lock: %w", errno)
	}
	return nil
}

// isAt reports whether an open file is the one at a path.
func isAt(f *os.File, path string) bool {
	opened, err1 := f.Stat()
	named, err2 := os.Stat(path)
	return err1 == nil && err2 == nil && os.SameFile(opened, named)
}
