package machines

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Machine is one host: a system of its own above a shared root, a network namespace with one interface on the underlay.
type Machine struct {
	Name string
	Addr netip.Addr // on the underlay

	// Writable are the folders that can be written when it is started, beside those in memory; nil: all. What is written
	// to them lasts.
	Writable []string

	cluster string // name
	dir     string // its layers; root is where they are mounted
	groups  []string
	nspawn  *exec.Cmd
	ended   chan struct{} // closed when nspawn has ended
	leader  int           // pid of the machine's first process
}

// underlayBits is the prefix length of the underlay.
const underlayBits = 24

// machine returns one that has nothing yet.
func (c *Cluster) machine(name string) *Machine {
	return &Machine{Name: name, cluster: c.name, dir: filepath.Join(c.dir, name), groups: controlGroups()}
}

// newMachine mounts the layers of a machine that is to be started.
func (c *Cluster) newMachine(ctx context.Context, name string, addr netip.Addr, base string) (*Machine, error) {
	m := c.machine(name)
	m.Addr = addr
	if len(m.groups) == 0 {
		return nil, errors.New("no hierarchy of control groups of version 2 is mounted below " + controlGroupRoot)
	}
	for _, d := range []string{"upper", "work", "root", "docker", "containerd"} {
		if err := os.MkdirAll(filepath.Join(m.dir, d), 0o755); err != nil {
			return nil, err
		}
	}
	layers := fmt.Sprintf("lowerdir=%s,upperdir=%s/upper,workdir=%s/work", base, m.dir, m.dir)
	return m, run(ctx, "mount", "-t", "overlay", "-o", layers, name, m.Root())
}

// Root is the machine's root, as seen from outside.
func (m *Machine) Root() string { return filepath.Join(m.dir, "root") }

// Write writes a file of the machine.
func (m *Machine) Write(path, text string, mode os.FileMode) error {
	file := filepath.Join(m.Root(), path)
	return errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), mode))
}

func (m *Machine) namespace() string { return m.cluster + "-" + m.Name }

// plug gives the machine a new network: what a machine that starts finds.
func (m *Machine) plug(ctx context.Context) error {
	ns := m.namespace()
	// Of the last run. The cable goes by name, because the kernel takes a namespace apart some time after it is deleted.
	_ = run(ctx, "ip", "-n", m.cluster, "link", "delete", m.Name)
	_ = run(ctx, "ip", "netns", "delete", ns)
	for _, command := range []string{
		"ip netns add " + ns,
		"ip -n " + ns + " link set lo up",
		fmt.Sprintf("ip -n %s link add eth0 type veth peer name %s netns %s", ns, m.Name, m.cluster),
		fmt.Sprintf("ip -n %s link set %s master br0 up", m.cluster, m.Name),
	} {
		if err := run(ctx, strings.Fields(command)...); err != nil {
			return err
		}
	}
	return nil
}

// Start boots the machine, and returns when its first process lives.
func (m *Machine) Start(ctx context.Context) error {
	if err := m.plug(ctx); err != nil {
		return err
	}
	if err := m.expose(ctx); err != nil {
		return err
	}
	// The shell moves into groups of the machine's own before it becomes the container's manager.
	enter := ""
	for _, g := range m.groups {
		group := filepath.Join(g, m.namespace())
		enter += fmt.Sprintf("mkdir -p %s && echo $$ >%s/cgroup.procs && ", group, group)
	}
	m.nspawn = exec.Command("sh", append([]string{"-c", enter + `exec "$@"`, "sh", "systemd-nspawn"}, m.options()...)...)
	m.nspawn.Env = append(os.Environ(), "UNIFIED_CGROUP_HIERARCHY=1", "SYSTEMD_NSPAWN_API_VFS_WRITABLE=network")
	m.nspawn.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	log, err := os.OpenFile(m.dir+"/console", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	m.nspawn.Stdout, m.nspawn.Stderr = log, log
	if err := m.nspawn.Start(); err != nil {
		return err
	}
	m.ended = make(chan struct{})
	go func() {
		_ = m.nspawn.Wait()
		close(m.ended)
	}()
	return Await(ctx, time.Minute, func() error {
		if m.leader, err = child(m.nspawn.Process.Pid); err != nil {
			return err
		}
		_, err := m.Run(ctx, "systemctl", "show", "--property=Version")
		return err
	})
}

// writable is where the root of a machine is mounted a second time: systemd-nspawn makes all of the first mount
// read-only, sources of --bind among it.
func (m *Machine) writable() string { return filepath.Join(m.dir, "writable") }

// expose makes the second mount, if it is needed and not there.
func (m *Machine) expose(ctx context.Context) error {
	if m.Writable == nil {
		return nil
	}
	switch err := os.Mkdir(m.writable(), 0o755); {
	case errors.Is(err, os.ErrExist):
		return nil
	case err != nil:
		return err
	}
	return run(ctx, "mount", "--bind", m.Root(), m.writable())
}

// options are those of systemd-nspawn.
func (m *Machine) options() []string {
	out := []string{
		"--quiet", "--boot", "--directory=" + m.Root(), "--machine=" + m.namespace(), "--hostname=" + m.Name,
		"--network-namespace-path=/run/netns/" + m.namespace(), "--register=no", "--keep-unit", "--console=pipe",
		"--capability=all", "--system-call-filter=bpf keyctl add_key",
	}
	if m.Writable != nil {
		out = append(out, "--read-only")
		for _, folder := range m.Writable {
			out = append(out, "--bind="+filepath.Join(m.writable(), folder)+":"+folder)
		}
		return out
	}
	// An overlay cannot lie on another one.
	return append(out, "--bind="+m.dir+"/docker:/var/lib/docker", "--bind="+m.dir+"/containerd:/var/lib/containerd")
}

// child returns the only child of a process.
func child(pid int) (int, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}

// PowerOff shuts the machine down in good order.
func (m *Machine) PowerOff(ctx context.Context) error {
	if err := m.nspawn.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-m.ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%s does not shut down: %w", m.Name, ctx.Err())
	}
}

// Kill takes the machine's power away. It may be down already.
func (m *Machine) Kill() {
	if m.nspawn == nil {
		return
	}
	_ = syscall.Kill(m.leader, syscall.SIGKILL) // the kernel kills all other processes with it
	_ = m.nspawn.Process.Kill()
	<-m.ended
}

// killAll kills all processes in the machine's control groups. A machine outlives its manager where that was killed
// with its cluster.
func (m *Machine) killAll() {
	for _, g := range m.groups {
		_ = os.WriteFile(filepath.Join(g, m.namespace(), "cgroup.kill"), []byte("1"), 0) // hierarchies of version 1 have none
	}
}

// remove takes away what is left of a machine.
func (m *Machine) remove(ctx context.Context) error {
	m.killAll()
	_ = run(ctx, "umount", "--lazy", m.writable())          // few machines have it
	errs := []error{run(ctx, "umount", "--lazy", m.Root())} // by processes that are still dying
	_ = run(ctx, "ip", "netns", "delete", m.namespace())
	for _, g := range m.groups {
		group := filepath.Join(g, m.namespace())
		errs = append(errs, Await(ctx, 10*time.Second, func() error { return removeGroup(ctx, group) }))
	}
	return errors.Join(append(errs, os.RemoveAll(m.dir))...)
}

// removeGroup removes a control group and those in it. They are busy for a moment after their processes were killed.
func removeGroup(ctx context.Context, group string) error {
	_ = run(ctx, "find", group, "-depth", "-type", "d", "-exec", "rmdir", "{}", ";")
	if _, err := os.Stat(group); err == nil {
		return fmt.Errorf("%s is still there", group)
	}
	return nil
}

// Run runs a program in the machine and returns what it says.
func (m *Machine) Run(ctx context.Context, command ...string) (string, error) {
	text, err := output(ctx, append(m.Enter(), command...)...)
	if err != nil {
		err = fmt.Errorf("%s: %w", m.Name, err)
	}
	return strings.TrimSpace(text), err
}

// Enter returns what stands before a command that is to run in the machine.
func (m *Machine) Enter() []string {
	return []string{"nsenter", "--target", strconv.Itoa(m.leader), "--all", "env", "-i",
		"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND=noninteractive"}
}

// Processes returns the processes of a unit, as they are numbered outside.
func (m *Machine) Processes(unit string) (pids []string, err error) {
	for _, g := range m.groups {
		of := filepath.Join("system.slice", unit, "cgroup.procs")
		// nspawn puts the machine into a group below that of its manager
		files, _ := filepath.Glob(filepath.Join(g, m.namespace(), "*", of))
		for _, file := range append(files, filepath.Join(g, m.namespace(), of)) {
			if text, err := os.ReadFile(file); err == nil && len(text) > 0 {
				return strings.Fields(string(text)), nil
			}
		}
	}
	return nil, fmt.Errorf("%s has no processes of %s", m.Name, unit)
}

// Await calls check until it returns nil, and returns its last error when the time is over.
func Await(ctx context.Context, most time.Duration, check func() error) error {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("after %s: %w", most, err)
		case <-tick.C:
		}
	}
}
