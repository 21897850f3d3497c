// Package process sets up the process of the daemon: which signals it outlives, how it ends by a fault, and where it
// logs to.
package process

import (
	"context"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"flanneld/options"
)

// EndByAbort makes panics and SIGQUIT end the process by SIGABRT. Go would exit with status 2, which is that of a usage
// error here, and systemd does not restart after one.
func EndByAbort() { debug.SetTraceback("crash") }

// Outlive keeps the process running on SIGHUP (a terminal is closed) and SIGPIPE (the reader of the log is gone), and
// returns where they arrive. Nobody has to read it. They are not ignored, because child processes would inherit that.
func Outlive() <-chan os.Signal {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGHUP, syscall.SIGPIPE)
	return c
}

// Signals returns a context that ends with SIGTERM or SIGINT, and has the process outlive what it can.
func Signals() (context.Context, context.CancelFunc) {
	Outlive()
	return signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
}

// Logger returns the log that the options ask for.
func Logger(o options.Options, w io.Writer) *slog.Logger {
	h := &slog.HandlerOptions{Level: slog.LevelInfo}
	if o.Verbosity > 0 {
		h.Level = slog.LevelDebug
	}
	if o.LogFormat == options.LogJSON {
		return slog.New(slog.NewJSONHandler(w, h))
	}
	return slog.New(slog.NewTextHandler(w, h))
}
