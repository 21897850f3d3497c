package machines

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Cluster is a few machines on one underlay.
type Cluster struct {
	Machines []*Machine
	name     string // of the namespace with the bridge that connects the machines, and the beginning of theirs
	dir      string
	lock     *os.File
}

// Options say what the machines of a cluster have beside the packages of Root. The units of etcd are among the files:
// they are those of dist/cloud, and find all machines as members.
type Options struct {
	Dir   string            // the machines' layers go into a folder of their own in it; not on an overlay itself
	Base  string            // what Root returns
	Files map[string]string // copied to every machine: the path there, the path here
	Count int
}

// prefix starts the names of the folders and namespaces of all clusters.
const prefix = "flannel-machines-"

// New makes machines and starts none. Clusters of several processes stand beside one another; what a killed one has
// left is removed.
func New(ctx context.Context, o Options) (c *Cluster, err error) {
	// A folder without a lock is one of the dead: none may be seen between the two steps.
	making, err := lock(ctx, o.Dir)
	if err != nil {
		return nil, err
	}
	defer making.Close()
	if err := sweep(ctx, o.Dir); err != nil {
		return nil, err
	}
	c = &Cluster{}
	if c.dir, err = os.MkdirTemp(o.Dir, prefix); err != nil {
		return nil, err
	}
	c.name = filepath.Base(c.dir)
	if c.lock, err = lock(ctx, c.dir); err != nil {
		return nil, err
	}
	for _, command := range []string{
		"ip netns add " + c.name,
		"ip -n " + c.name + " link add br0 type bridge",
		"ip -n " + c.name + " link set br0 up",
	} {
		if err := run(ctx, strings.Fields(command)...); err != nil {
			return c, err
		}
	}
	var members []string
	for i := range o.Count {
		addr := netip.AddrFrom4([4]byte{192, 0, 2, byte(11 + i)})
		m, err := c.newMachine(ctx, fmt.Sprintf("m%d", i+1), addr, o.Base)
		if err != nil {
			return c, err
		}
		c.Machines = append(c.Machines, m)
		members = append(members, fmt.Sprintf("%s=http://%s:2380", m.Name, addr))
	}
	for _, m := range c.Machines {
		if err := m.furnish(ctx, o, strings.Join(members, ",")); err != nil {
			return c, err
		}
	}
	return c, nil
}

// EtcdSwitch is the file that lets etcd start with its machine.
const EtcdSwitch = "/etc/etcd/start"

// furnish writes what a machine has of its own.
func (m *Machine) furnish(ctx context.Context, o Options, members string) error {
	for to, from := range o.Files {
		to = filepath.Join(m.Root(), to)
		if err := errors.Join(os.MkdirAll(filepath.Dir(to), 0o755), run(ctx, "cp", from, to)); err != nil {
			return err
		}
	}
	return errors.Join(
		m.Write("/etc/hostname", m.Name+"\n", 0o644),
		m.Write("/etc/machine-id", fmt.Sprintf("%032x\n", m.Addr.As4()), 0o444),
		m.Write("/etc/systemd/network/20-eth0.network",
			fmt.Sprintf("[Match]\nName=eth0\n\n[Network]\nAddress=%s/%d\nGateway=192.0.2.1\nLinkLocalAddressing=no\n"+
				"IPv6AcceptRA=no\n", m.Addr, underlayBits), 0o644),
		m.Write("/etc/systemd/system/etcd.service.d/switch.conf", "[Unit]\nConditionPathExists="+EtcdSwitch+"\n", 0o644),
		m.Write("/etc/cluster/node.env", fmt.Sprintf("NODE_NAME=%s\nNODE_ADDRESS=%s\n", m.Name, m.Addr), 0o644),
		m.Write("/etc/cluster/members.env", "ETCD_INITIAL_CLUSTER="+members+
			"\nETCD_UNSAFE_NO_FSYNC=true\nETCD_LOG_LEVEL=warn\n", 0o644),
		m.Write(EtcdSwitch, "", 0o644),
		os.Symlink("/etc/systemd/system/etcd.service",
			filepath.Join(m.Root(), "etc/systemd/system/multi-user.target.wants/etcd.service")),
	)
}

// Each calls do for all machines at once.
func (c *Cluster) Each(do func(m *Machine) error) error {
	errs := make([]error, len(c.Machines))
	var wg sync.WaitGroup
	for i, m := range c.Machines {
		wg.Go(func() { errs[i] = do(m) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// Close kills the machines and removes all traces of them.
func (c *Cluster) Close(ctx context.Context) error {
	err := c.Each(func(m *Machine) error {
		m.Kill()
		return m.remove(ctx)
	})
	return errors.Join(err, run(ctx, "ip", "netns", "delete", c.name), os.RemoveAll(c.dir), c.lock.Close())
}

// sweep removes what clusters have left whose process was killed, machines that still run included.
func sweep(ctx context.Context, dir string) error {
	left, err := filepath.Glob(filepath.Join(dir, prefix+"*"))
	if err != nil {
		return err
	}
	for _, dead := range left {
		f, err := os.Open(dead)
		if err != nil {
			continue // its owner has just removed it
		}
		if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
			c := &Cluster{name: filepath.Base(dead), dir: dead}
			machines, _ := os.ReadDir(dead)
			for _, m := range machines {
				_ = c.machine(m.Name()).remove(ctx) // as much as there is of it
			}
			_ = run(ctx, "ip", "netns", "delete", c.name)
			err = os.RemoveAll(dead)
		}
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	return nil
}

// lock waits until no other process holds the lock of a folder, and holds it until the file is closed.
func lock(ctx context.Context, dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	err = Await(ctx, lockPatience, func() error { return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) })
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	return f, nil
}

// lockPatience is how long another process may take to make a system.
const lockPatience = 10 * time.Minute
