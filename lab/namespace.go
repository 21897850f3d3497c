package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"flanneld/ip/iptest"
)

// netnsPrefix starts the names of all namespaces of all labs; the lab's id follows.
const netnsPrefix = "fl-"

// Namespace is a network namespace of the lab, with loopback up.
type Namespace struct {
	name     string // as "ip netns" shows it
	file     *os.File
	hostname string // of the programs started in it; empty: that of the machine

	mu      sync.Mutex // guards all below
	netlink *netlink.Handle
}

// namespace makes one. Its interfaces use their IPv6 addresses at once: duplicates are not looked for, which takes a
// second or two.
func (l *Lab) namespace(name string) (*Namespace, error) {
	n := &Namespace{name: netnsPrefix + l.id + "-" + name}
	if err := run(context.Background(), "ip netns add "+n.name); err != nil {
		return nil, err
	}
	file, err := os.Open(filepath.Join("/run/netns", n.name))
	if err != nil {
		return nil, fmt.Errorf("open namespace: %w", err)
	}
	n.file = file
	l.onClose(n.close)
	return n, errors.Join(n.Sysctl("net/ipv6/conf/default/accept_dad", "0"), n.loopback())
}

// Name returns the name by which "ip netns exec" finds the namespace.
func (n *Namespace) Name() string { return n.name }

// Do calls f on a thread in the namespace. Sockets that f opens and processes that f starts stay in it; goroutines do
// not.
func (n *Namespace) Do(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("enter namespace %s: %w", n.name, err)
			return
		}
		if err := n.rename(); err != nil {
			done <- err
			return
		}
		done <- f()
	}()
	return <-done
}

// rename gives the calling thread, and the programs that it starts, the host name of the namespace.
func (n *Namespace) rename() error {
	if n.hostname == "" {
		return nil
	}
	if err := errors.Join(unix.Unshare(unix.CLONE_NEWUTS), unix.Sethostname([]byte(n.hostname))); err != nil {
		return fmt.Errorf("set host name %s: %w", n.hostname, err)
	}
	return nil
}

// Run runs commands one after the other, up to the first that fails. Arguments are separated by blanks. Commands of ip
// that follow one another are run by one process: most of what one costs is its start.
func (n *Namespace) Run(commands ...string) error {
	for len(commands) > 0 {
		batch := iptest.Batch(commands)
		if len(batch) < 2 {
			if _, err := n.Output(commands[0]); err != nil {
				return err
			}
			commands = commands[1:]
			continue
		}
		lines := strings.Join(batch, "\n")
		if _, err := n.exec(context.Background(), strings.NewReader(lines), "ip", "-batch", "-"); err != nil {
			return fmt.Errorf("%w\n%s", err, lines)
		}
		commands = commands[len(batch):]
	}
	return nil
}

// isUp waits until an interface sends: the kernel gets to that a second later if many links change. Nor is the
// link-local address there, or more than tentative, at once.
func (n *Namespace) isUp(link string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return Await(ctx, func() error { return n.upError(link) })
}

// Output runs one command, whose arguments are separated by blanks, and returns what it prints.
func (n *Namespace) Output(command string) (string, error) {
	return n.Exec(context.Background(), strings.Fields(command)...)
}

// Exec runs one command and returns what it prints. The error contains what it prints on stderr.
func (n *Namespace) Exec(ctx context.Context, args ...string) (string, error) {
	return n.exec(ctx, nil, args...)
}

func (n *Namespace) exec(ctx context.Context, in io.Reader, args ...string) (string, error) {
	var out, errOut bytes.Buffer
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = in, &out, &errOut
	err := n.Do(cmd.Start)
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		return out.String(), fmt.Errorf("%s: %s: %w: %s", n.name, strings.Join(args, " "), err,
			strings.TrimSpace(errOut.String()))
	}
	return out.String(), nil
}

// Dial connects to an address, given as a number, from inside the namespace.
func (n *Namespace) Dial(ctx context.Context, network, address string) (conn net.Conn, err error) {
	err = n.Do(func() (err error) {
		conn, err = (&net.Dialer{}).DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// Listen listens inside the namespace.
func (n *Namespace) Listen(network, address string) (l net.Listener, err error) {
	err = n.Do(func() (err error) {
		l, err = net.Listen(network, address)
		return err
	})
	return l, err
}

// ListenPacket listens for datagrams inside the namespace.
func (n *Namespace) ListenPacket(network, address string) (c net.PacketConn, err error) {
	err = n.Do(func() (err error) {
		c, err = net.ListenPacket(network, address)
		return err
	})
	return c, err
}

// Sysctl sets a value below /proc/sys/, such as "net/ipv4/ip_forward".
func (n *Namespace) Sysctl(key, value string) error {
	return n.Do(func() error { return os.WriteFile(filepath.Join("/proc/sys", key), []byte(value), 0) })
}

// run runs a command outside all namespaces.
func run(ctx context.Context, command string) error {
	args := strings.Fields(command)
	if out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", command, err, bytes.TrimSpace(out))
	}
	return nil
}

// killAll ends all processes in the namespaces of these files, those that they start meanwhile included.
func killAll(files []string) {
	inside := map[string]bool{}
	for _, name := range files {
		var st unix.Stat_t
		if unix.Stat(name, &st) == nil {
			inside[fmt.Sprintf("net:[%d]", st.Ino)] = true
		}
	}
	for range 10 {
		links, _ := filepath.Glob("/proc/[0-9]*/ns/net")
		found := false
		for _, link := range links {
			ns, err := os.Readlink(link)
			pid, _ := strconv.Atoi(strings.Split(link, "/")[2])
			if err == nil && inside[ns] && pid != os.Getpid() {
				found = true
				_ = unix.Kill(pid, unix.SIGKILL)
			}
		}
		if !found {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// Await calls condition until it returns nil, and returns its last error when ctx ends. The longer it takes, the more
// rarely the condition is looked at: a look may cost more than what is waited for.
func Await(ctx context.Context, condition func() error) error {
	for start := time.Now(); ; {
		err := condition()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		case <-time.After(min(max(10*time.Millisecond, time.Since(start)/20), 100*time.Millisecond)):
		}
	}
}
