package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// netnsPrefix starts the names of all namespaces of all labs; the lab's id follows.
const netnsPrefix = "fl-"

// Namespace is a network namespace of the lab, with loopback up.
type Namespace struct {
	name     string // as "ip netns" shows it
	file     *os.File
	hostname string // of the programs started in it; empty: that of the machine
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
	l.onClose(func() { _ = file.Close() })
	return n, errors.Join(n.Sysctl("net/ipv6/conf/default/accept_dad", "0"), n.Run("ip link set lo up"))
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

// Run runs commands one after the other, up to the first that fails. Arguments are separated by blanks.
func (n *Namespace) Run(commands ...string) error {
	for _, c := range commands {
		if _, err := n.Output(c); err != nil {
			return err
		}
	}
	return nil
}

// up brings an interface up and waits until it sends: the kernel gets to that a second later if many links change. Nor
// is the link-local address there, or more than tentative, at once.
func (n *Namespace) up(link string) error {
	if err := n.Run("ip link set " + link + " up"); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return Await(ctx, func() error {
		out, err := n.Output("ip -o link show " + link)
		if err == nil && !strings.Contains(out, "state UP") {
			err = fmt.Errorf("%s is not up: %s", link, out)
		}
		if err != nil {
			return err
		}
		out, err = n.Output("ip -6 -o addr show dev " + link + " scope link")
		if err == nil && (out == "" || strings.Contains(out, "tentative")) {
			err = fmt.Errorf("%s has no link-local address yet: %s", link, out)
		}
		return err
	})
}

// Output runs one command, whose arguments are separated by blanks, and returns what it prints.
func (n *Namespace) Output(command string) (string, error) {
	return n.Exec(context.Background(), strings.Fields(command)...)
}

// Exec runs one command and returns what it prints. The error contains what it prints on stderr.
func (n *Namespace) Exec(ctx context.Context, args ...string) (string, error) {
	var out, errOut bytes.Buffer
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = &out, &errOut
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

// killAll ends all processes in a namespace, those that they start meanwhile included.
func killAll(name string) {
	for range 10 {
		out, err := exec.Command("ip", "netns", "pids", name).Output()
		pids := strings.Fields(string(out))
		if err != nil || len(pids) == 0 {
			return
		}
		for _, text := range pids {
			if pid, err := strconv.Atoi(text); err == nil && pid != os.Getpid() {
				_ = unix.Kill(pid, unix.SIGKILL)
			}
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// Await calls condition until it returns nil, and returns its last error when ctx ends.
func Await(ctx context.Context, condition func() error) error {
	for {
		err := condition()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
}
