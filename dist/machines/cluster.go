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
)

// underlay is the name of the namespace with the bridge that connects the machines, and the beginning of theirs.
const underlay = "flannel-machines"

// Cluster is a few machines on one underlay.
type Cluster struct {
	Machines []*Machine
	dir      string
}

// Options say what the machines of a cluster have beside the packages of Root.
type Options struct {
	Dir   string            // for the machines' layers, emptied; not on an overlay itself
	Base  string            // what Root returns
	Etcd  string            // program; a service of each machine, with all machines as members
	Files map[string]string // copied to every machine: the path there, the path here
	Count int
}

// New makes machines and starts none.
func New(ctx context.Context, o Options) (c *Cluster, err error) {
	c = &Cluster{dir: o.Dir}
	leftovers, _ := filepath.Glob(filepath.Join(o.Dir, "*", "root")) // the pattern is valid
	for _, root := range leftovers {
		_ = run(ctx, "umount", root)
	}
	if err := os.RemoveAll(o.Dir); err != nil {
		return nil, err
	}
	_ = run(ctx, "ip", "netns", "delete", underlay) // of a run that was killed
	for _, command := range []string{
		"ip netns add " + underlay,
		"ip -n " + underlay + " link add br0 type bridge",
		"ip -n " + underlay + " link set br0 up",
	} {
		if err := run(ctx, strings.Fields(command)...); err != nil {
			return nil, err
		}
	}
	var members []string
	for i := range o.Count {
		addr := netip.AddrFrom4([4]byte{192, 0, 2, byte(11 + i)})
		m, err := newMachine(ctx, fmt.Sprintf("m%d", i+1), addr, o.Dir, o.Base)
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
	if err := run(ctx, "cp", o.Etcd, filepath.Join(m.Root(), "usr/local/bin/etcd")); err != nil {
		return err
	}
	return errors.Join(
		m.Write("/etc/hostname", m.Name+"\n", 0o644),
		m.Write("/etc/machine-id", fmt.Sprintf("%032x\n", m.Addr.As4()), 0o444),
		m.Write("/etc/systemd/network/20-eth0.network", fmt.Sprintf("[Match]\nName=eth0\n\n[Network]\nAddress=%s/%d\nGateway=192.0.2.1\nLinkLocalAddressing=no\nIPv6AcceptRA=no\n", m.Addr, underlayBits), 0o644),
		m.Write("/etc/systemd/system/etcd.service", etcdUnit(m, members), 0o644),
		m.Write(EtcdSwitch, "", 0o644),
		os.Symlink("/etc/systemd/system/etcd.service", filepath.Join(m.Root(), "etc/systemd/system/multi-user.target.wants/etcd.service")),
	)
}

func etcdUnit(m *Machine, members string) string {
	return fmt.Sprintf(`[Unit]
ConditionPathExists=%[1]s

[Service]
ExecStart=/usr/local/bin/etcd --name %[2]s --data-dir /var/lib/etcd --unsafe-no-fsync --log-level warn \
	--listen-client-urls http://%[3]s:2379,http://127.0.0.1:2379 --advertise-client-urls http://%[3]s:2379 \
	--listen-peer-urls http://%[3]s:2380 --initial-advertise-peer-urls http://%[3]s:2380 --initial-cluster %[4]s
Restart=always

[Install]
WantedBy=multi-user.target
`, EtcdSwitch, m.Name, m.Addr, members)
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
	return errors.Join(err, run(ctx, "ip", "netns", "delete", underlay), os.RemoveAll(c.dir))
}
