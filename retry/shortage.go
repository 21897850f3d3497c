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
	if ctx.Err() != nil {
		return nil
	}
	l := Loop{First: shortagePause, Last: shortagePause, Again: IsShortage, Waiting: func(err error) {
		log.Error("out of file descriptors or memory, retrying", "error", err,
			"hint", "LimitNOFILE= of the unit, and who uses them")
	}}
	if err := l.Run(ctx, f); !IsShortage(err) {
		return err
	}
	return nil
}

// Loop says how something is repeated.
type Loop struct {
	First, Last time.Duration    // the pause after a try, which doubles; the longest one
	Again       func(error) bool // whether an error passes by itself
	Waiting     func(error)      // called when the reason to wait is a new one
}

// Run calls f until its error is none that passes by itself, or ctx ends. It returns the last error of f.
func (l Loop) Run(ctx context.Context, f func() error) error {
	reason := ""
	for pause := l.First; ; pause = min(2*pause, l.Last) {
		err := f()
		if !l.Again(err) || ctx.Err() != nil {
			return err
		}
		if reason != err.Error() {
			reason = err.Error()
			l.Waiting(err)
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pause):
		}
	}
}

// Value is Shortage for what returns a value; the zero value if ctx ends first.
func Value[T any](ctx context.Context, log *slog.Logger, f func() (T, error)) (value T, err error) {
	err = Shortage(ctx, log, func() (err error) {
		value, err = f()
		return err
	})
	return value, err
}
