package serve

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

const socketMode = 0o600 // root only: it gives away the store's credentials

// Socket serves a handler on a unix socket. What a dead daemon has left under the path is replaced; while a living one
// listens there, Run waits.
type Socket struct {
	Path    string
	Handler http.Handler
	Log     *slog.Logger
}

// Run serves until ctx ends, and then returns nil. A socket that cannot be listened on is tried again for ever: the
// network does not depend on it.
func (s Socket) Run(ctx context.Context) error {
	wait, said := firstListenWait, ""
	for {
		l, err := listenUnix(ctx, s.Path)
		if err == nil {
			s.Log.Debug("socket listening", "path", s.Path)
			wait, said = firstListenWait, ""
			err = s.serve(ctx, l)
		}
		if ctx.Err() != nil {
			return nil
		}
		if err != nil && err.Error() != said {
			said = err.Error()
			s.Log.Error("socket not available, retrying", "path", s.Path, "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
			wait = min(2*wait, lastListenWait)
		}
	}
}

// serve answers until ctx ends, the listener fails, or somebody takes the socket file away.
func (s Socket) serve(ctx context.Context, l net.Listener) error {
	srv := &http.Server{
		Handler: s.Handler, ReadHeaderTimeout: healthTimeout, ReadTimeout: healthTimeout, IdleTimeout: healthTimeout,
		MaxHeaderBytes: healthHeaders, ErrorLog: slog.NewLogLogger(s.Log.Handler(), slog.LevelDebug),
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	go func() {
		awaitRemoval(ctx, s.Path)
		cancel()
	}()
	err := srv.Serve(l)
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return errors.Join(err, srv.Close())
}

// removalPause is how often to look whether the file is still there.
const removalPause = 5 * time.Second

// awaitRemoval returns when the file is gone, or ctx ends. Somebody who empties /run/flannel must not cut the operator
// off for as long as the daemon lives.
func awaitRemoval(ctx context.Context, path string) {
	t := time.NewTicker(removalPause)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			if _, err := os.Lstat(path); err != nil {
				return
			}
		}
	}
}

// listenUnix listens on a path whose folder it creates. The mode is set before the socket has a name.
func listenUnix(ctx context.Context, path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("create folder: %w", err)
	}
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		return errors.Join(c.Control(func(fd uintptr) { err = syscall.Fchmod(int(fd), socketMode) }), err)
	}}
	l, err := config.Listen(ctx, "unix", path)
	if !errors.Is(err, syscall.EADDRINUSE) {
		return l, err
	}
	c, err := (&net.Dialer{Timeout: healthTimeout}).DialContext(ctx, "unix", path)
	if err == nil {
		_ = c.Close()
		return nil, errors.New("another daemon listens there")
	}
	if !errors.Is(err, syscall.ECONNREFUSED) && !errors.Is(err, syscall.ENOENT) {
		return nil, fmt.Errorf("find out whether a daemon listens there: %w", err)
	}
	if err := removeSocket(path); err != nil {
		return nil, err
	}
	return config.Listen(ctx, "unix", path)
}

// removeSocket removes what a dead daemon has left. Anything but a socket is not the daemon's: connecting to a regular
// file is refused just as connecting to a dead socket is.
func removeSocket(path string) error {
	info, err := os.Lstat(path)
	if err == nil && info.Mode().Type() != os.ModeSocket {
		return fmt.Errorf("%s is not a socket but something else (%s): remove it, or give the daemon another -subnet-file",
			path, info.Mode())
	}
	if err == nil {
		err = os.Remove(path)
	}
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}
