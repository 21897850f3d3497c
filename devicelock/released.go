package devicelock

import (
	"cmp"
	"debug/buildinfo"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/procfs"

	"flanneld/subnet"
)

// The released flannel is the program of the upstream project. It takes no lock, and must be recognised by what any
// process may read of another one: a service has too few capabilities for the rest of /proc.

// defaultSubnetFile is the released flannel's.
const defaultSubnetFile = "/run/flannel/subnet.env"

// maxTable bounds what is read of a file of /proc, in bytes.
const maxTable = 1 << 20

// released are the main packages of the released flannel, new and old.
var released = []string{"github.com/flannel-io/flannel", "github.com/coreos/flannel"}

// process is another process, seen through /proc: by the library where that reads a file, else by paths of our own.
type process struct {
	procfs.Proc
	proc string // /proc
}

// ReleasedOwner returns the running released flannel of this network namespace that one of some devices belongs to: the
// address of the device is the first one of the subnet in its subnet file. Empty: there is none, or it cannot be seen
// from this process namespace. It reads the name of every process of the host, once for all devices.
func ReleasedOwner(devices ...string) string {
	var own []netip.Addr
	for _, device := range devices {
		own = append(own, addressesOf(device)...)
	}
	if len(own) == 0 {
		return ""
	}
	return releasedOwner("/proc", os.Geteuid(), own)
}

// addressesOf returns the addresses of a device; none if there is no such device.
func addressesOf(device string) (own []netip.Addr) {
	link, err := net.InterfaceByName(device)
	if err != nil {
		return nil
	}
	addrs, err := link.Addrs()
	if err != nil {
		return nil
	}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			own = append(own, p.Addr())
		}
	}
	return own
}

// What was seen of other processes counts for lookPause, and on a host with many processes for lookShare times as long
// as the look took: it costs at most 0.05 % of a processor.
const (
	lookPause = 30 * time.Second
	lookShare = 2000
)

// Watch looks for a released flannel that has come to own one of the devices of a running daemon.
type Watch struct {
	devices []string
	look    func(devices ...string) string // ReleasedOwner

	mu    sync.Mutex // guards all below
	next  time.Time  // when to look again
	owner string
}

// NewWatch returns the watch of some devices.
func NewWatch(devices []string) *Watch {
	return &Watch{devices: devices, look: ReleasedOwner}
}

// Owner returns the released flannel, as ReleasedOwner does. Any goroutine may call it; it looks every thirty seconds
// at most.
func (w *Watch) Owner() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	start := time.Now()
	if start.Before(w.next) {
		return w.owner
	}
	w.owner = w.look(w.devices...)
	w.next = start.Add(max(lookPause, lookShare*time.Since(start)))
	return w.owner
}

// releasedOwner is ReleasedOwner of a device with the given addresses, among the processes of one user.
func releasedOwner(proc string, user int, addrs []netip.Addr) string {
	for _, p := range processes(proc, user) {
		if !p.isReleased() || !p.sameNetwork() {
			continue
		}
		file := p.subnetFile()
		env, err := p.readEnv(file)
		owns := func(s netip.Prefix) bool { return slices.Contains(addrs, s.Masked().Addr()) }
		if err == nil && slices.ContainsFunc(env.Subnets, owns) {
			return fmt.Sprintf("the released flannel, pid %d, subnet file %s", p.PID, file)
		}
	}
	return ""
}

// processes lists those of a user that have flannel in their name. The user is root: nobody else can have a device, but
// anybody can start a process of any name.
func processes(proc string, user int) []process {
	fs, err := procfs.NewFS(proc)
	if err != nil {
		return nil
	}
	all, err := fs.AllProcs()
	if err != nil {
		return nil
	}
	var out []process
	for _, p := range all {
		p := process{p, proc}
		name, err := p.Comm()
		if err == nil && p.PID != os.Getpid() && strings.Contains(name, "flannel") && p.of(user) {
			out = append(out, p)
		}
	}
	return out
}

// of reports whether the process is one of a user.
func (p process) of(user int) bool {
	info, err := os.Stat(p.path(""))
	if err != nil {
		return false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) == user
}

func (p process) path(name string) string {
	return filepath.Join(p.proc, strconv.Itoa(p.PID), name)
}

// isReleased tells the released flannel from all other programs with such a name, ours among them. Where the program
// itself cannot be looked at, ours is the one that holds a lock.
func (p process) isReleased() bool {
	if info, err := buildinfo.ReadFile(p.path("exe")); err == nil {
		return slices.Contains(released, info.Path) || slices.Contains(released, info.Main.Path)
	}
	args, _ := p.CmdLine()
	if len(args) == 0 || p.locks() {
		return false
	}
	name := filepath.Base(args[0])
	if name == "flannel" {
		return len(args) > 1 // else it is the CNI plugin
	}
	return strings.Contains(name, "flanneld")
}

// sameNetwork compares the network namespaces: each has its own files in /proc/PID/net. The links in /proc/PID/ns,
// which the library reads, need more rights.
func (p process) sameNetwork() bool {
	theirs, err := os.Stat(p.path("net/dev"))
	if err != nil {
		return false
	}
	ours, err := os.Stat(filepath.Join(p.proc, "self/net/dev"))
	return err == nil && os.SameFile(ours, theirs)
}

// locks reports whether the process holds a lock for itself on any file, as each of our daemons does. If that cannot be
// told, it does. The library does not know /proc/locks.
func (p process) locks() bool {
	text, err := subnet.ReadFile(filepath.Join(p.proc, "locks"), maxTable)
	if err != nil {
		return true
	}
	for line := range strings.Lines(string(text)) {
		// 1: FLOCK  ADVISORY  WRITE 812 00:19:5432 0 EOF
		if f := strings.Fields(line); len(f) > 4 && f[1] == "FLOCK" && f[4] == strconv.Itoa(p.PID) {
			return true
		}
	}
	return false
}

// subnetFile is the path of the subnet file, as the process itself sees it. Its environment can only be read with the
// rights for that.
func (p process) subnetFile() string {
	args, _ := p.CmdLine()
	for i, arg := range args {
		name, value, given := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		switch {
		case i == 0 || name != "subnet-file" || !strings.HasPrefix(arg, "-"):
		case given:
			return value
		case i+1 < len(args):
			return args[i+1]
		}
	}
	environ, _ := p.Environ()
	value := ""
	for _, pair := range environ {
		if v, ok := strings.CutPrefix(pair, "FLANNELD_SUBNET_FILE="); ok {
			value = v
		}
	}
	return cmp.Or(value, defaultSubnetFile)
}

// readEnv reads a subnet file of the process: in its own tree of files where that can be entered, else in ours, which a
// container shares with the host.
func (p process) readEnv(file string) (subnet.Env, error) {
	if !filepath.IsAbs(file) {
		return subnet.ReadEnv(p.path(filepath.Join("cwd", file)))
	}
	if env, err := subnet.ReadEnv(p.path(filepath.Join("root", file))); err == nil {
		return env, nil
	}
	return subnet.ReadEnv(file)
}
