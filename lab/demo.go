package lab

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"sync"
	"text/tabwriter"
	"time"
)

// DemoOptions say what the demo shows and where.
type DemoOptions struct {
	Flanneld   string // path of the daemon
	Flannelctl string // path of the operator's program
	Hosts      int    // 0: three
	Out        io.Writer
	// Hold is called when everything has been shown and the network still stands.
	Hold func(ctx context.Context)
}

const (
	demoConfig  = `{"Network": "10.5.0.0/16", "Backend": {"Type": "vxlan"}}`
	demoTimeout = 2 * time.Minute
	demoMembers = 3 // of the store, where there are that many hosts
)

// Demo builds a cluster with an embedded etcd on three hosts, pings from each pod to every other, deletes a tunnel
// device, waits for its repair, kills the first host's daemon while pods ping each other, adds a host, and prints what
// there is to see. The error says what did not work.
func Demo(ctx context.Context, o DemoOptions) error {
	if o.Hosts == 0 {
		o.Hosts = 3
	}
	if o.Hosts < 2 {
		return fmt.Errorf("%d hosts have nobody to talk to: want at least 2", o.Hosts)
	}
	l, err := New(Options{Binaries: Binaries{Flanneld: o.Flanneld, Flannelctl: o.Flannelctl}})
	if err != nil {
		return err
	}
	defer l.Close()
	d := demo{DemoOptions: o, lab: l}
	bounded, cancel := context.WithTimeout(ctx, demoTimeout)
	defer cancel()
	if err := d.show(bounded); err != nil {
		return err
	}
	if o.Hold == nil {
		d.printf("\nTry next:\n" +
			"  make demo HOLD=1   keeps the network running, and prints commands to try: flannelctl, status page, pings\n" +
			"  docs/start.md      sets up such a network on real hosts\n")
		return nil
	}
	d.printCommands()
	o.Hold(ctx)
	return nil
}

// demo is one run.
type demo struct {
	DemoOptions
	lab     *Lab
	hosts   []*Host
	daemons []*Daemon
	pods    []*Pod
}

func (d *demo) printf(format string, args ...any) { fmt.Fprintf(d.Out, format, args...) }

func (d *demo) show(ctx context.Context) error {
	etcd := "host1 runs an embedded etcd"
	switch {
	case d.Hosts == demoMembers:
		etcd = "each runs an embedded etcd"
	case d.Hosts > demoMembers:
		etcd = fmt.Sprintf("the first %d run an embedded etcd", demoMembers)
	}
	d.printf("Starting %d hosts, each a network namespace; %s.\n", d.Hosts, etcd)
	for range d.Hosts {
		if err := d.addHost(); err != nil {
			return err
		}
	}
	start := time.Now()
	if err := d.startDaemons(ctx); err != nil {
		return err
	}
	ready := time.Since(start)
	var err error
	if d.pods, err = Pods(d.hosts...); err != nil {
		return err
	}
	if _, err := d.pods[0].Ping(ctx, d.pods[1].Addr(), PingOptions{}); err != nil {
		return err
	}
	first := time.Since(start)
	if err := d.settle(ctx); err != nil {
		return err
	}
	d.printHosts()
	if err := d.printRoutes(); err != nil {
		return err
	}
	if err := d.printPings(ctx); err != nil {
		return err
	}
	d.printf("\nAll %d hosts ready after %s, first ping between pods answered %s after the start.\n", d.Hosts,
		ready.Round(time.Millisecond), first.Round(time.Millisecond))
	if err := d.repair(ctx); err != nil {
		return err
	}
	if err := d.printStatus(ctx); err != nil || d.Hosts < demoMembers {
		return err
	}
	return d.lose(ctx)
}

// addHost adds the next host.
func (d *demo) addHost() error {
	name := fmt.Sprintf("host%d", len(d.hosts)+1)
	h, err := d.lab.Host(name)
	if err != nil {
		return err
	}
	h.hostname = name
	d.hosts = append(d.hosts, h)
	return nil
}

func (d *demo) startDaemons(ctx context.Context) error {
	join := []string{"-network-config", demoConfig}
	for i := range d.hosts {
		if i == 1 {
			if err := Ready(ctx, d.daemons[0]); err != nil {
				return err
			}
			token, err := d.token(ctx, d.hosts[0], "--member")
			if err != nil {
				return err
			}
			join = []string{"-join", token}
		}
		if err := d.startDaemon(i, join...); err != nil {
			return err
		}
	}
	return Ready(ctx, d.daemons...)
}

// startDaemon starts that of a host, as a member of the store if it is one of the first.
func (d *demo) startDaemon(i int, join ...string) error {
	args := append([]string{"-probe-interval", "1s"}, join...)
	if i == 0 || i < demoMembers && d.Hosts >= demoMembers {
		args = append(args, "-etcd-embedded", "-etcd-embedded-listen", netip.AddrPortFrom(d.hosts[i].Addr, 2379).String())
	}
	daemon, err := d.hosts[i].Flanneld(args...)
	if err != nil {
		return err
	}
	if i < len(d.daemons) {
		d.daemons[i] = daemon
		return nil
	}
	d.daemons = append(d.daemons, daemon)
	return nil
}

// token returns what a host gives to -join, as soon as a member can make it.
func (d *demo) token(ctx context.Context, member *Host, flags ...string) (token string, err error) {
	err = Await(ctx, func() error {
		out, err := member.Exec(ctx, d.flannelctl(member, append([]string{"token", "create"}, flags...)...)...)
		if err != nil {
			return fmt.Errorf("flannelctl token create: %w: %s", err, out)
		}
		_, token, _ = strings.Cut(strings.TrimSpace(out), "-join ")
		return nil
	})
	return token, err
}

// settle waits until every daemon says that it is ready and knows all others; they say so once a second at most.
func (d *demo) settle(ctx context.Context) error {
	want := fmt.Sprintf(", %d peer", d.Hosts-1)
	return Await(ctx, func() error {
		for i, daemon := range d.daemons {
			if s := daemon.Status(); !strings.HasPrefix(s, "ready: ") || !strings.Contains(s, want) {
				return fmt.Errorf("host%d is not ready with all others: %s", i+1, s)
			}
		}
		return nil
	})
}

func (d *demo) printHosts() {
	d.printf("\nHosts\n")
	w := tabwriter.NewWriter(d.Out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "  host\tunderlay address\tstatus of flanneld\tpod")
	for i, h := range d.hosts {
		fmt.Fprintf(w, "  host%d\t%s\t%s\t%s\n", i+1, h.Addr, d.daemons[i].Status(), d.pods[i].Addr())
	}
	_ = w.Flush() // nothing to do for a reader who has gone
}

func (d *demo) printRoutes() error {
	routes, err := d.hosts[0].Output("ip route")
	if err != nil {
		return err
	}
	d.printf("\nRoutes of host1\n")
	for line := range strings.Lines(routes) {
		d.printf("  %s", line)
	}
	return nil
}

// printPings pings every pod from every other, all at once.
func (d *demo) printPings(ctx context.Context) error {
	n := len(d.pods)
	rtt, errs := make([]time.Duration, n*n), make([]error, n*n)
	var all sync.WaitGroup
	for i, from := range d.pods {
		for j, to := range d.pods {
			if i != j {
				all.Go(func() { rtt[i*n+j], errs[i*n+j] = from.Ping(ctx, to.Addr(), PingOptions{}) })
			}
		}
	}
	all.Wait()
	d.printf("\nPings from pod to pod, round-trip times\n")
	w := tabwriter.NewWriter(d.Out, 0, 0, 3, ' ', 0)
	fmt.Fprint(w, "  from \\ to")
	for _, p := range d.pods {
		fmt.Fprintf(w, "\t%s", p.Addr())
	}
	failed := 0
	for i, p := range d.pods {
		fmt.Fprintf(w, "\n  %s", p.Addr())
		for j := range d.pods {
			switch {
			case i == j:
				fmt.Fprint(w, "\t-")
			case errs[i*n+j] != nil:
				failed++
				fmt.Fprint(w, "\tno answer")
			default:
				fmt.Fprintf(w, "\t%s", rtt[i*n+j].Round(time.Microsecond))
			}
		}
	}
	fmt.Fprintln(w)
	_ = w.Flush()
	if failed > 0 {
		return fmt.Errorf("%d of %d pairs of pods do not reach each other", failed, n*(n-1))
	}
	return nil
}
