// Package retry repeats what fails for a reason that passes by itself.
package retry

import (
	"context"
	"errors"
	"log/slog"
	"syscall"
	"time"
)

// shortagePause is how long to wait before something is tried again for which the kernel had nothing left.
const shortagePause = time.Second

// IsShortage reports whether an error says that the process or the host has no file descriptors or memory left, which
// passes.
func IsShortage(err error) bool {
	for _, e := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.ENOBUFS} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// Shortage calls f until it returns something else than that the kernel has nothing left, or ctx ends; it returns nil
// then. The end of the daemon would free little, and the next one would find the same.
func Shortage(ctx context.Context, log *slog.Logger, f func() error) error {
	for said := ""; ctx.Err() == nil; {
		err := f()
		if !IsShortage(err) {
			return err
		}
		if said != err.Error() {
			said = err.Error()
			log.Error("out of file descriptors or memory, retrying", "error", err,
				"hint", "LimitNOFILE= of the unit, and who uses them")
		}
		select {
		case <-ctx.Done():
		case <-time.After(shortagePause):
		}
	}
	return nil
}

// Value is Shortage for what returns a value; the zero value if ctx ends first.
func Value[T any](ctx context.Context, log *slog.Logger, f func() (T, error)) (value T, err error) {
	err = Shortage(ctx, log, func() (err error) {
		value, err = f()
		return err
	})
	return value, err
}
