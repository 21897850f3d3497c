package systemd_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"flanneld/systemd"
)

// manager is the socket of a service manager. It is read without blocking, so that it can stand in a synctest bubble.
type manager int

func listenNotify(t *testing.T) manager {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrUnix{Name: path}); err != nil {
		t.Fatal(err)
	}
	t.Setenv("NOTIFY_SOCKET", path)
	return manager(fd)
}

// received returns the datagrams since the last call.
func (m manager) received(t *testing.T) []string {
	t.Helper()
	var out []string
	for buf := make([]byte, 4096); ; {
		n, _, err := syscall.Recvfrom(int(m), buf, syscall.MSG_DONTWAIT)
		if errors.Is(err, syscall.EAGAIN) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, string(buf[:n]))
	}
}

// notifies runs a Notifier in a bubble for the length of the test.
func notifies(t *testing.T, test func(t *testing.T, n *systemd.Notifier, m manager, alive *atomic.Bool)) {
	m := listenNotify(t)
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		n := systemd.NewNotifier(slog.New(slog.DiscardHandler))
		var alive atomic.Bool
		alive.Store(true)
		done := make(chan error, 1)
		go func() { done <- n.Run(ctx, alive.Load) }()
		test(t, n, m, &alive)
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v, want nil", err)
		}
		expect(t, m, "STOPPING=1")
	})
}

func expect(t *testing.T, m manager, want ...string) {
	t.Helper()
	synctest.Wait()
	if diff := cmp.Diff(want, m.received(t)); diff != "" {
		t.Errorf("told the service manager (-want +got):\n%s", diff)
	}
}

func TestReadyIsToldOnce(t *testing.T) {
	notifies(t, func(t *testing.T, n *systemd.Notifier, m manager, _ *atomic.Bool) {
		expect(t, m)
		n.Ready()
		expect(t, m, "READY=1\n")
		n.Ready()
		time.Sleep(time.Minute)
		expect(t, m)
	})
}

func TestReadyDoesNotWaitForTheStatusPause(t *testing.T) {
	notifies(t, func(t *testing.T, n *systemd.Notifier, m manager, _ *atomic.Bool) {
		n.Status("waiting for etcd")
		expect(t, m, "STATUS=waiting for etcd\n")
		n.Status("3 peers")
		n.Ready()
		expect(t, m, "READY=1\nSTATUS=3 peers\n")
	})
}

func TestStatusIsToldOnChangeOnceASecond(t *testing.T) {
	notifies(t, func(t *testing.T, n *systemd.Notifier, m manager, _ *atomic.Bool) {
		n.Status("0 peers")
		expect(t, m, "STATUS=0 peers\n")
		for i := range 500 {
			n.Status(fmt.Sprintf("%d peers", i))
			time.Sleep(time.Millisecond)
		}
		expect(t, m)
		time.Sleep(time.Second)
		expect(t, m, "STATUS=499 peers\n")
		time.Sleep(time.Minute)
		n.Status("499 peers")
		expect(t, m)
	})
}

func TestStatusIsOneLine(t *testing.T) {
	notifies(t, func(t *testing.T, n *systemd.Notifier, m manager, _ *atomic.Bool) {
		n.Status("waiting\nWATCHDOG=trigger")
		expect(t, m, "STATUS=waiting WATCHDOG=trigger\n")
	})
}

func TestWatchdogIsServedAtHalfItsPeriodWhileAlive(t *testing.T) {
	t.Setenv("WATCHDOG_USEC", "20000000")
	t.Setenv("WATCHDOG_PID", fmt.Sprint(os.Getpid()))
	notifies(t, func(t *testing.T, _ *systemd.Notifier, m manager, alive *atomic.Bool) {
		time.Sleep(35 * time.Second)
		expect(t, m, "WATCHDOG=1", "WATCHDOG=1", "WATCHDOG=1")
		alive.Store(false)
		time.Sleep(time.Minute)
		expect(t, m)
		alive.Store(true)
		time.Sleep(10 * time.Second)
		expect(t, m, "WATCHDOG=1")
	})
}

func TestWatchdogOfAnotherProcessIsNotServed(t *testing.T) {
	t.Setenv("WATCHDOG_USEC", "20000000")
	t.Setenv("WATCHDOG_PID", "1")
	notifies(t, func(t *testing.T, _ *systemd.Notifier, m manager, _ *atomic.Bool) {
		time.Sleep(time.Minute)
		expect(t, m)
	})
}

func TestNotifierRetriesUntilToldAndLogsOnce(t *testing.T) {
	m := listenNotify(t)
	path := os.Getenv("NOTIFY_SOCKET")
	if err := os.Rename(path, path+".away"); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		n := systemd.NewNotifier(slog.New(slog.NewTextHandler(&log, nil)))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- n.Run(ctx, func() bool { return true }) }()
		n.Ready()
		time.Sleep(time.Minute)
		expect(t, m)
		if err := os.Rename(path+".away", path); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		expect(t, m, "READY=1\n")
		cancel()
		<-done
		if got := strings.Count(log.String(), "\n"); got != 1 {
			t.Errorf("log has %d lines, want 1:\n%s", got, log.String())
		}
	})
}

func TestWithoutServiceManagerNothingHappens(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	t.Setenv("WATCHDOG_USEC", "")
	var log bytes.Buffer
	n := systemd.NewNotifier(slog.New(slog.NewTextHandler(&log, nil)))
	ctx, cancel := context.WithCancel(t.Context())
	n.Ready()
	n.Status("3 peers")
	cancel()
	if err := n.Run(ctx, func() bool { return true }); err != nil {
		t.Errorf("Run = %v, want nil", err)
	}
	if log.Len() > 0 {
		t.Errorf("log is %q, want nothing", log.String())
	}
}
