// Command flanneld joins this host to an overlay network: it leases a subnet, keeps the kernel carrying packets
// to all others, and tells the container runtime. It holds flags and wiring only.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"flanneld/options"
	"flanneld/subnet/etcdv3/member"
	"flanneld/subnet/keeper"
)

// version is set by the linker.
var version = "unknown"

// Exit codes that systemd units and scripts may rely on.
const (
	exitFailure = 1
	exitUsage   = 2
	exitLost    = 3 // -on-lost-subnet=exit
)

// gcPercent is how much the heap may grow before it is collected. The daemon is idle nearly always: its memory matters more than
// the time of its collector. With ten thousand peers it needs 59 MiB at its peak, and 68 with the usual 100.
const gcPercent = 50

func main() {
	if member.IsChild(os.Args) {
		os.Exit(member.Main(os.Args))
	}
	EndByAbort()
	os.Exit(realMain(os.Args[1:], os.Environ()))
}

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

func realMain(args, environ []string) int {
	o, err := options.Parse(args, environ, os.Stderr, checkAnnotations)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		fmt.Fprintln(os.Stderr, err)
		return exitUsage
	case o.Version:
		fmt.Println(version)
		return 0
	}
	level := slog.LevelInfo
	if o.Verbosity > 0 {
		level = slog.LevelDebug
	}
	log := slog.New(newHandler(o.LogFormat, os.Stderr, level))
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	Outlive()
	debug.SetGCPercent(gcPercent)
	log.Info("starting flanneld", "version", version, "options", o)
	err = run(ctx, o, log)
	switch {
	case errors.Is(err, keeper.ErrLost):
		log.Error("flanneld failed", "error", err)
		return exitLost
	case err != nil:
		log.Error("flanneld failed", "error", err)
		return exitFailure
	}
	log.Info("flanneld stopped, the data plane stays in place")
	return 0
}

func newHandler(format options.LogFormat, w io.Writer, level slog.Level) slog.Handler {
	o := &slog.HandlerOptions{Level: level}
	if format == options.LogJSON {
		return slog.NewJSONHandler(w, o)
	}
	return slog.NewTextHandler(w, o)
}
