// Command flanneld joins this host to an overlay network: it leases a subnet, keeps the kernel carrying packets
// to all others, and tells the container runtime. It holds flags and wiring only.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime/debug"

	"flanneld/options"
	"flanneld/process"
	"flanneld/source"
	"flanneld/subnet/etcdv3"
	"flanneld/subnet/etcdv3/member"
	"flanneld/subnet/keeper"
	"flanneld/version"
)

// Exit codes that systemd units and scripts may rely on.
const (
	exitFailure = 1
	exitUsage   = 2
	exitLost    = 3 // -on-lost-subnet=exit
)

func main() {
	if member.IsChild(os.Args) {
		os.Exit(member.Main(os.Args))
	}
	process.EndByAbort()
	os.Exit(realMain(os.Args[1:], os.Environ()))
}

func realMain(args, environ []string) int {
	o, err := options.Parse(args, environ, os.Stderr, source.Check)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		fmt.Fprintln(os.Stderr, err)
		return exitUsage
	case o.Version:
		version.This().Print(os.Stdout, os.Stderr)
		return 0
	}
	log := process.Logger(o, os.Stderr)
	etcdv3.LogTo(log)
	ctx, stop := process.Signals()
	defer stop()
	debug.SetGCPercent(source.GCPercent(o))
	log.Info("starting flanneld", "version", version.This().Version, "options", o)
	if err = run(ctx, o, log); err == nil {
		log.Info("flanneld stopped, the data plane stays in place")
		return 0
	}
	log.Error("flanneld failed", "error", err)
	if errors.Is(err, keeper.ErrLost) {
		return exitLost
	}
	return exitFailure
}
