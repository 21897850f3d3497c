package retry_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"flanneld/retry"
)

func TestAShortageIsWaitedOut(t *testing.T) {
	short := &os.PathError{Op: "open", Path: "/x", Err: syscall.EMFILE}
	other := errors.New("a wrong flag")
	for _, tt := range []struct {
		name string
		errs []error
		want error
	}{
		{"descriptors are back", []error{fmt.Errorf("list: %w", short), short, nil}, nil},
		{"another error ends it", []error{errors.Join(short), other}, other},
		{"no shortage", []error{nil}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log strings.Builder
				calls := 0
				err := retry.Shortage(t.Context(), slog.New(slog.NewTextHandler(&log, nil)), func() error {
					calls++
					return tt.errs[calls-1]
				})
				if !errors.Is(err, tt.want) || calls != len(tt.errs) {
					t.Errorf("got %v after %d calls, want %v after %d", err, calls, tt.want, len(tt.errs))
				}
			})
		})
	}
}

func TestAShortageDoesNotOutliveTheDaemon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		var log strings.Builder
		err := retry.Shortage(ctx, slog.New(slog.NewTextHandler(&log, nil)), func() error { return syscall.ENFILE })
		if err != nil {
			t.Errorf("got %v, want nil", err)
		}
		if n := strings.Count(log.String(), "\n"); n != 1 {
			t.Errorf("a minute gave %d lines, want 1:\n%s", n, log.String())
		}
	})
}
