// Command demo shows three hosts on one overlay network on this machine: from nothing to a ping between their pods.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"flanneld/lab"
)

func main() { os.Exit(run()) }

func run() int {
	o := lab.DemoOptions{Out: os.Stdout}
	flag.StringVar(&o.Flanneld, "flanneld", "build/flanneld", "`path` of the daemon")
	flag.StringVar(&o.Flannelctl, "flannelctl", "build/flannelctl", "`path` of flannelctl")
	flag.IntVar(&o.Hosts, "hosts", 3, "`number` of hosts, at least 2")
	hold := flag.Bool("hold", false, "keep the network up until Ctrl-C")
	flag.Parse()
	if o.Hosts < 2 || flag.NArg() > 0 {
		fmt.Fprintln(os.Stderr, "demo: want at least 2 hosts, and no arguments")
		return 2
	}
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "demo: root is needed to make network namespaces: sudo make demo")
		return 1
	}
	// A reader who goes (demo | head) or a terminal that is closed ends the demo, but only after it has cleaned up.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	defer stop()
	if *hold {
		o.Hold = func(ctx context.Context) { <-ctx.Done() }
	}
	if err := lab.Demo(ctx, o); err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, "demo:", err)
		return 1
	}
	return 0
}
