package member

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"flanneld/subnet"
)

// The member runs in a process of its own. etcd ends its process where it cannot go on (a full disk, damaged data), and
// the daemon must not end with it: packets flow without a store.
//
//	Run ── starts ──▶ this program again, named childName
//	 │                   stdin: its end ends the child     stdout, stderr: log lines, JSON, or a panic
//	 └── the child has ended ──▶ tells why, waits, starts it again

// childName is the name by which the program knows that it is to be the member.
const childName = "flanneld-etcd"

const (
	firstPause = time.Second
	maxPause   = 15 * time.Second
	stopWait   = 20 * time.Second // for the child to end, before it is killed
	serves     = "embedded etcd serves"
	maxReason  = 500
)

// ErrPrepare is the error of Prepare while the member waits for others.
var ErrPrepare = errors.New("this host is not added to the members of the store, retrying")

// IsChild reports whether a command line is that of the member. Then Main is all that the process does.
func IsChild(args []string) bool { return len(args) == 3 && args[0] == childName }

// Main is the child: it runs the member until its standard input ends, and returns the exit code.
func Main(args []string) int {
	_ = os.WriteFile("/proc/self/comm", []byte(childName), 0) // a name for ps, instead of "exe"
	// Service managers and terminals signal the parent, too, and it is the parent who decides.
	signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGPIPE)
	log := slog.New(slog.NewJSONHandler(os.Stdout, nil))
	o := Options{Dir: args[1], Log: log}
	if err := json.Unmarshal([]byte(args[2]), &o); err != nil {
		log.Error(err.Error())
		return 1
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	m, err := Start(ctx, o)
	if ctx.Err() != nil {
		return 0
	}
	if err != nil {
		log.Error(err.Error())
		return 1
	}
	select {
	case <-ctx.Done():
		m.Close()
		return 0
	case <-m.logs.removed: // its data are of no use any more
	case err := <-m.etcd.Err():
		log.Error("etcd ended", "error", fmt.Sprint(m.why(err)))
	}
	return 1
}

// Run keeps a member running until ctx ends. It reports nil whenever the member begins to serve, and an error that says
// what to do whenever it does not any more, or not yet.
func Run(ctx context.Context, o Options, report func(error)) {
	pause := firstPause
	for ctx.Err() == nil {
		served := false
		err := once(ctx, o, func() {
			served = true
			report(nil)
		})
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, errRestart):
			continue
		case served:
			pause = firstPause
		}
		if isRemoved(err) && o.Removed != nil {
			o.Removed()
		}
		report(explain(err, o))
		select {
		case <-ctx.Done():
		case <-o.Restart:
		case <-time.After(pause):
		}
		pause = min(2*pause, maxPause)
	}
}

// errRestart is the error of a child that was ended to be started anew.
var errRestart = errors.New("restarted")

// isRemoved reports whether a member has ended because others do not have it any more.
func isRemoved(err error) bool { return strings.Contains(err.Error(), errRemoved.Error()) }

// explain adds what to do.
func explain(err error, o Options) error {
	switch text := err.Error(); {
	case errors.Is(err, ErrPrepare):
		return err
	case isRemoved(err):
		return fmt.Errorf("%w: asking them to add it again", errRemoved)
	case strings.Contains(text, "error validating peerURLs"): // what Prepare has said is not true any more
		return errors.New("the members of the store have changed while this one was added, retrying")
	case strings.Contains(text, syscall.EADDRNOTAVAIL.Error()):
		return fmt.Errorf("waiting for the address of the embedded etcd, %s: %w", o.Listen, err)
	case strings.Contains(text, syscall.EADDRINUSE.Error()):
		return fmt.Errorf("the embedded etcd does not run: %w: stop the program that listens on %s", err, o.Listen)
	case strings.Contains(text, syscall.ENOSPC.Error()):
		return fmt.Errorf("the embedded etcd does not run, its disk is full: %w: free space on the file system of %s; "+
			"flanneld starts it again automatically", err, o.Dir)
	}
	damaged := "all hosts write their records again"
	if o.Prepare != nil {
		damaged = "other members give it theirs; if there are none, run \"flannelctl restore\""
	}
	return fmt.Errorf("the embedded etcd does not run: %w: flanneld starts it again automatically; if its data are "+
		"damaged, move %s away, and %s (see docs/embedded-etcd.md)", err, o.Dir, damaged)
}

// once runs the child until it ends, and returns why.
func once(ctx context.Context, o Options, served func()) (err error) {
	if o.Prepare != nil {
		if o.Bootstrap, err = o.Prepare(ctx); err != nil {
			return err
		}
	}
	if o.Done == nil {
		return child(ctx, o, served)
	}
	began := false
	err = child(ctx, o, func() {
		began = true
		o.Done(nil)
		served()
	})
	if !began {
		o.Done(err)
	}
	return err
}

func child(ctx context.Context, o Options, served func()) error {
	how, err := json.Marshal(o) // addresses and paths, nothing secret
	if err != nil {
		return err
	}
	c := exec.Command("/proc/self/exe")
	c.Args = []string{childName, o.Dir, string(how)}
	stdin, err := c.StdinPipe()
	if err != nil {
		return err
	}
	out, err := c.StdoutPipe()
	if err != nil {
		return errors.Join(err, stdin.Close())
	}
	c.Stderr = c.Stdout
	if err := c.Start(); err != nil {
		return fmt.Errorf("start etcd: %w", err)
	}
	ended := make(chan struct{})
	restart := make(chan bool, 1)
	go func() {
		again := false
		select {
		case <-ended:
		case <-ctx.Done():
			stop(c, stdin, ended)
		case <-o.Restart:
			again = true
			stop(c, stdin, ended)
		}
		restart <- again
	}()
	reason := o.follow(out, served)
	err = c.Wait()
	close(ended)
	switch {
	case <-restart:
		return errRestart
	case reason != "":
		return errors.New(reason)
	case err != nil:
		return fmt.Errorf("etcd ended: %w", err)
	}
	return errors.New("etcd ended")
}

// stop has a child end, whose end is told by a channel.
func stop(c *exec.Cmd, stdin io.Closer, ended <-chan struct{}) {
	_ = stdin.Close()
	select {
	case <-ended:
	case <-time.After(stopWait):
		_ = c.Process.Kill()
	}
}

// follow reads what the child says until it ends, passes warnings on while it serves, and returns why it ended; empty:
// it did not say.
func (o Options) follow(out io.Reader, served func()) (reason string) {
	serving, panicked, removed := false, false, false
	for r := bufio.NewReaderSize(out, 64<<10); ; {
		line, more, err := r.ReadLine()
		if err != nil {
			return reason
		}
		for rest := more; rest && err == nil; { // the end of a long line
			_, rest, err = r.ReadLine()
		}
		var entry map[string]any
		if json.Unmarshal(line, &entry) != nil {
			if text, ok := panicOf(string(line)); ok && !panicked && !strings.HasPrefix(reason, text) && !removed {
				reason, panicked = subnet.Brief(text, maxReason), true // else it was logged, with more about it
			}
			continue
		}
		text := fmt.Sprint(entry["msg"])
		switch {
		case text == serves:
			serving = true
			o.Log.Info(serves, "address", o.Listen.String(), "dir", o.Dir)
			served()
		case removed: // what follows from it says nothing more
		case entry["level"] == slog.LevelError.String():
			reason = text
			if removed = text == errRemoved.Error(); removed {
				continue // Run tells it
			}
			if why, ok := entry["error"]; ok {
				reason += ": " + fmt.Sprint(why)
			}
			reason = subnet.Brief(reason, maxReason)
			o.Log.Error("embedded etcd failed", "reason", reason)
		case serving && entry["level"] == slog.LevelWarn.String() && !slices.Contains(repeated, text):
			delete(entry, "time")
			delete(entry, "level")
			detail, _ := json.Marshal(entry)
			o.Log.Warn("embedded etcd reported an error", "reason", subnet.Brief(string(detail), maxReason))
		}
	}
}

// repeated is what etcd says every few seconds as long as another member is down; it says so in other words once.
var repeated = []string{"failed to reach the peer URL", "failed to get version"}

// panicOf returns what a line of the Go runtime says of the end of the process.
func panicOf(line string) (text string, ok bool) {
	if text, ok = strings.CutPrefix(line, "panic: "); ok {
		return text, true
	}
	return line, strings.HasPrefix(line, "fatal error: ")
}
