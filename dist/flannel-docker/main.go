// Command flannel-docker stands between flanneld and the docker daemon: it waits for the subnet and says for what it
// waits, writes the subnet into docker's configuration file, and tells whether docker runs with an old one.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"flanneld/version"
)

const usage = `Usage: flannel-docker COMMAND [OPTION]...

  wait          wait until this host has a subnet
  daemon-json   set bip, mtu, ip-masq and the like in docker's configuration file; all else in it stays
  changed       succeed if docker was started with another subnet than the present one
  version       print the version; the details of the build go to standard error

Options, for all commands:
`

// Exit codes.
const (
	exitFailure = 1 // for "changed": nothing has changed
	exitUsage   = 2
)

// options are the flags of all commands.
type options struct {
	subnetFile string
	stamp      string // copy of the subnet file that docker was started with
	daemonJSON string
	remove     bool
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	os.Exit(run(ctx, os.Args[1:]))
}

func run(ctx context.Context, args []string) int {
	var o options
	fs := flag.NewFlagSet("flannel-docker", flag.ContinueOnError)
	fs.StringVar(&o.subnetFile, "subnet-file", "/run/flannel/subnet.env", "`file` in which flanneld tells the subnet")
	fs.StringVar(&o.stamp, "stamp", "/run/flannel/docker.env",
		"`file` that remembers the subnet which docker was started with")
	fs.StringVar(&o.daemonJSON, "file", "/etc/docker/daemon.json", "docker's configuration `file`")
	fs.BoolVar(&o.remove, "remove", false, "daemon-json: take out what this command has put in")
	fs.Usage = func() {
		fmt.Fprint(fs.Output(), usage)
		fs.PrintDefaults()
	}
	if len(args) == 0 {
		fs.Usage()
		return exitUsage
	}
	command, ok := map[string]func(context.Context, options) error{"wait": wait, "daemon-json": writeDaemonJSON,
		"changed": changed, "version": printVersion}[args[0]]
	if err := fs.Parse(args[1:]); err != nil || !ok || fs.NArg() > 0 {
		if err == nil {
			fs.Usage()
		}
		return exitUsage
	}
	if err := command(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "flannel-docker:", err)
		return exitFailure
	}
	return 0
}

func printVersion(context.Context, options) error {
	version.This().Print(os.Stdout, os.Stderr)
	return nil
}
