package devicelock

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/procfs"
)

// other is a process as a test puts it into a folder that stands for /proc.
type other struct {
	pid     int
	name    string // of the program
	args    []string
	environ string
	subnet  string // in its subnet file
	network string // its network namespace
	locks   bool   // holds a lock
}

// proc makes the folder; the program of no process can be looked at.
func proc(t *testing.T, others ...other) string {
	t.Helper()
	folder := t.TempDir()
	write := func(text string, path ...string) {
		t.Helper()
		name := filepath.Join(append([]string{folder}, path...)...)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	locks := "1: POSIX  ADVISORY  WRITE 7 00:19:5 0 EOF\n"
	write("", "self", "net", "dev")
	fs, err := procfs.NewFS(folder)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range others {
		pid := strconv.Itoa(o.pid)
		write(o.name+"\n", pid, "comm")
		write(strings.Join(o.args, "\x00")+"\x00", pid, "cmdline")
		write(o.environ, pid, "environ")
		if o.network == "" {
			if err := os.MkdirAll(filepath.Join(folder, pid, "net"), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.Link(filepath.Join(folder, "self/net/dev"), filepath.Join(folder, pid, "net/dev")); err != nil {
				t.Fatal(err)
			}
		} else {
			write(o.network, pid, "net", "dev")
		}
		if o.locks {
			locks += fmt.Sprintf("2: FLOCK  ADVISORY  WRITE %d 00:19:54 0 EOF\n", o.pid)
		}
		seen, err := fs.Proc(o.pid)
		if err != nil {
			t.Fatal(err)
		}
		write("FLANNEL_SUBNET="+o.subnet+"\n", pid, "root", process{seen, folder}.subnetFile())
	}
	write(locks, "locks")
	return folder
}

func TestTheReleasedFlannelIsKnownByWhatItLeaves(t *testing.T) {
	released := other{pid: 7, name: "flanneld", args: []string{"/opt/bin/flanneld", "--kube-subnet-mgr"},
		subnet: "10.5.34.1/24"}
	change := func(f func(*other)) other {
		o := released
		f(&o)
		return o
	}
	const names = "the released flannel, pid 7, subnet file "
	for _, tt := range []struct {
		name string
		o    other
		want string
	}{
		{"the default subnet file", released, names + "/run/flannel/subnet.env"},
		{"another subnet file", change(func(o *other) { o.args = []string{"flanneld", "--subnet-file=/run/red.env"} }),
			names + "/run/red.env"},
		{"two words", change(func(o *other) { o.args = []string{"flanneld", "-v", "1", "-subnet-file", "/run/red.env"} }),
			names + "/run/red.env"},
		{"the environment", change(func(o *other) { o.environ = "A=1\x00FLANNELD_SUBNET_FILE=/run/blue.env\x00" }), names +
			"/run/blue.env"},
		{"the program of an archive", change(func(o *other) { o.args[0] = "./flanneld-amd64" }), names +
			"/run/flannel/subnet.env"},
		{"the program of Debian", change(func(o *other) { o.args = []string{"/usr/bin/flannel", "-iface", "eth0"} }), names +
			"/run/flannel/subnet.env"},
		{"the CNI plugin", change(func(o *other) { o.name, o.args = "flannel", []string{"/opt/cni/bin/flannel"} }), ""},
		{"a device of another subnet", change(func(o *other) { o.subnet = "10.5.35.1/24" }), ""},
		{"another network namespace", change(func(o *other) { o.network = "another" }), ""},
		{"ours, for another network", change(func(o *other) { o.locks = true }), ""},
		{"our command", change(func(o *other) { o.name, o.args = "flannelctl", []string{"flannelctl", "status"} }), ""},
		{"another program", change(func(o *other) { o.name = "sleep" }), ""},
		{"a process that has ended", change(func(o *other) { o.args = nil }), ""},
		{"this process", change(func(o *other) { o.pid = os.Getpid() }), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := releasedOwner(proc(t, tt.o), os.Geteuid(),
				[]netip.Addr{netip.MustParseAddr("10.5.34.0")}); got != tt.want {
				t.Errorf("the owner is %q, want %q", got, tt.want)
			}
		})
	}
}

func TestAProcessOfAnotherUserOwnsNoDevice(t *testing.T) {
	folder := proc(t, other{pid: 7, name: "flanneld", args: []string{"flanneld"}, subnet: "10.5.34.1/24"})
	if got := releasedOwner(folder, os.Geteuid()+1, []netip.Addr{netip.MustParseAddr("10.5.34.0")}); got != "" {
		t.Errorf("the owner is %q", got)
	}
}

func TestADeviceThatIsNotThereBelongsToNobody(t *testing.T) {
	if got := NewWatch([]string{"flannel.77777"}).Owner(); got != "" {
		t.Errorf("the owner is %q", got)
	}
}

func TestTheWatchCostsLittleOnAHostWithManyProcesses(t *testing.T) {
	for _, tt := range []struct {
		name string
		took time.Duration // one look
		most int           // looks within an hour
	}{
		{"few processes", time.Millisecond, 120},
		{"many processes", 50 * time.Millisecond, 36},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, looks := NewWatch([]string{"flannel.1", "flannel-v6.1"}), 0
				w.look = func(devices ...string) string {
					if len(devices) != 2 {
						t.Errorf("a look for %d devices, want one look for both", len(devices))
					}
					looks++
					time.Sleep(tt.took)
					return fmt.Sprint(looks)
				}
				for start := time.Now(); time.Since(start) < time.Hour; time.Sleep(time.Second) {
					if got := w.Owner(); got != fmt.Sprint(looks) {
						t.Fatalf("owner %q, the last look has found %d", got, looks)
					}
				}
				if looks > tt.most || looks < tt.most/2 {
					t.Errorf("%d looks within an hour, want %d at most", looks, tt.most)
				}
			})
		})
	}
}
