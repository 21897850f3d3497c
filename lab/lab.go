package lab

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"flanneld/devicelock"
)

// Options say what a lab is made of.
type Options struct {
	Binaries Binaries
	MTU      int      // of the underlay, in bytes; 0: 1500
	Families Families // of all machines on the underlay, but those that say otherwise; 0: both
}

// Families is a set of address families.
type Families uint8

// The families.
const (
	IPv4 Families = 1 << iota
	IPv6
	Dual = IPv4 | IPv6
)

// Has reports whether one family is in the set.
func (f Families) Has(one Families) bool { return f&one != 0 }

// Lab is a cluster. Its methods may be called concurrently.
type Lab struct {
	id   string
	dir  string
	lock *os.File
	o    Options

	underlay *Namespace

	mu    sync.Mutex // guards all below
	next  int        // number of the next machine on the underlay
	close []func()   // to be run in reverse
}

const (
	dirPrefix = "flanneld-lab-"
	bridge    = "br0"
	firstHost = 10 // machines before are the lab's own
)

// New returns an empty cluster: an underlay without hosts.
func New(o Options) (*Lab, error) {
	if o.MTU == 0 {
		o.MTU = 1500
	}
	if o.Families == 0 {
		o.Families = Dual
	}
	sweep()
	l := &Lab{id: strings.ToLower(rand.Text()[:5]), o: o, next: firstHost}
	l.dir = filepath.Join(os.TempDir(), dirPrefix+l.id)
	err := l.makeDir()
	if err != nil {
		return nil, err
	}
	if l.underlay, err = l.namespace("underlay"); err != nil {
		l.Close()
		return nil, err
	}
	err = l.underlay.Run(
		"ip link add "+bridge+" type bridge",
		fmt.Sprintf("ip link set %s mtu %d up", bridge, o.MTU),
		"ip addr add 198.18.0.1/16 dev "+bridge,
		"ip addr add fd00:18::1/64 dev "+bridge+" nodad",
	)
	if err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// makeDir makes the lab's folder, which appears under its name when its lock is held: whoever sees it unlocked may
// remove it.
func (l *Lab) makeDir() error {
	hidden, err := os.MkdirTemp("", ".lab-")
	if err != nil {
		return fmt.Errorf("create the lab's folder: %w", err)
	}
	if l.lock, err = os.Create(filepath.Join(hidden, "lock")); err != nil {
		return fmt.Errorf("create the lab's lock: %w", err)
	}
	if err := unix.Flock(int(l.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return fmt.Errorf("lock the lab: %w", err)
	}
	if err := errors.Join(os.Chmod(hidden, 0o755), os.Rename(hidden, l.dir)); err != nil {
		return fmt.Errorf("put the lab's folder in place: %w", err)
	}
	return nil
}

// Dir returns the folder of everything that the lab writes.
func (l *Lab) Dir() string { return l.dir }

// Underlay returns the namespace of the bridge that connects all hosts.
func (l *Lab) Underlay() *Namespace { return l.underlay }

// onClose has f run by Close, before what was there.
func (l *Lab) onClose(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.close = append(l.close, f)
}

// Close ends all processes in the lab and removes its namespaces and files.
func (l *Lab) Close() {
	l.mu.Lock()
	todo := l.close
	l.close = nil
	l.mu.Unlock()
	for i := len(todo) - 1; i >= 0; i-- {
		todo[i]()
	}
	remove(l.id)
	_ = l.lock.Close()
}

// sweep removes the labs of runs that were killed: nobody holds their locks.
func sweep() {
	dirs, _ := filepath.Glob(filepath.Join(os.TempDir(), dirPrefix+"*"))
	for _, dir := range dirs {
		lock, err := os.Open(filepath.Join(dir, "lock"))
		if errors.Is(err, os.ErrNotExist) {
			continue // being made, or being removed
		}
		if err == nil && unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			remove(strings.TrimPrefix(filepath.Base(dir), dirPrefix))
		}
		_ = lock.Close()
	}
}

// remove takes away all that a lab may have left.
func remove(id string) {
	names, _ := filepath.Glob("/run/netns/" + netnsPrefix + id + "-*")
	killAll(names)
	for _, name := range names { // as "ip netns del" does
		for _, lock := range devicelock.Files(devicelock.Folder, name) {
			_ = os.Remove(lock) // daemons leave them
		}
		_ = unix.Unmount(name, unix.MNT_DETACH)
		_ = os.Remove(name)
	}
	dir := filepath.Join(os.TempDir(), dirPrefix+id)
	unmountBelow(dir)
	_ = os.RemoveAll(dir)
}

// unmountBelow detaches what container runtimes have mounted in a folder.
func unmountBelow(dir string) {
	text, _ := os.ReadFile("/proc/self/mounts")
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) > 1 && strings.HasPrefix(fields[1], dir+"/") {
			_ = unix.Unmount(fields[1], unix.MNT_DETACH)
		}
	}
}

// connect plugs a namespace into the underlay as its interface eth0, and returns its addresses there, the zero value
// for a family that it is not to have.
func (l *Lab) connect(n *Namespace, families Families) (v4, v6 netip.Addr, err error) {
	l.mu.Lock()
	number := l.next
	l.next++
	l.mu.Unlock()
	port := fmt.Sprintf("port%d", number)
	var addrs, routes []string
	if families.Has(IPv4) {
		v4 = netip.AddrFrom4([4]byte{198, 18, byte(number >> 8), byte(number)})
		addrs, routes = append(addrs, fmt.Sprintf("ip addr add %s/16 dev eth0", v4)),
			append(routes, "ip route add default via 198.18.0.1")
	}
	if families.Has(IPv6) {
		v6 = netip.MustParseAddr(fmt.Sprintf("fd00:18::%x", number))
		addrs, routes = append(addrs, fmt.Sprintf("ip addr add %s/64 dev eth0 nodad", v6)),
			append(routes, "ip route add default via fd00:18::1")
	}
	err = l.underlay.Run(
		fmt.Sprintf("ip link add %s mtu %d type veth peer name eth0 mtu %d netns %s", port, l.o.MTU, l.o.MTU, n.name),
		fmt.Sprintf("ip link set %s master %s up", port, bridge),
	)
	if err != nil {
		return v4, v6, err
	}
	if err := n.Run(slices.Concat(addrs, []string{"ip link set eth0 up"}, routes)...); err != nil {
		return v4, v6, err
	}
	return v4, v6, n.isUp("eth0")
}
