package dist_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"flanneld/need"
)

// image is a root with a shell, and with programs in systemd's place that note how they are called.
type image struct {
	t    *testing.T
	root string
}

const dockerDropIn = "/etc/systemd/system/docker.service.d/flannel.conf"

func newImage(t *testing.T, booted bool) image {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root to change the root")
	}
	i := image{t, t.TempDir()}
	shell := need.Program(t, "busybox")
	copied := []string{shell}
	libraries, _ := exec.Command("ldd", shell).Output() // a static one has none
	for word := range strings.FieldsSeq(string(libraries)) {
		if strings.HasPrefix(word, "/") {
			copied = append(copied, word)
		}
	}
	for _, file := range copied {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		i.program(file, string(text))
	}
	i.program("/bin/.keep", "")
	i.program("/dev/null", "") // a file will do
	for name := range strings.FieldsSeq("sh rm rmdir grep cmp sed mv mkdir cat ls") {
		if err := os.Symlink(shell, filepath.Join(i.root, "bin", name)); err != nil {
			t.Fatal(err)
		}
	}
	i.program("/bin/systemctl", "#!/bin/sh\necho systemctl \"$@\" >>/log\n")
	i.program("/bin/ip", "#!/bin/sh\necho '5: docker0    inet 10.5.34.1/24 brd 10.5.34.255 scope global docker0'\n")
	i.program("/usr/lib/flannel/flannel-docker", "#!/bin/sh\necho flannel-docker \"$@\" >>/log\n")
	for to, from := range map[string]string{
		"/postinstall": "docker/postinstall", "/preremove": "docker/preremove", "/postremove": "docker/postremove",
		"/cni-preremove": "cni/preremove", "/cni-postremove": "cni/postremove",
	} {
		text, err := os.ReadFile("packages/" + from + ".sh")
		if err != nil {
			t.Fatal(err)
		}
		i.program(to, string(text))
	}
	if booted {
		i.program("/run/systemd/system/.keep", "")
	}
	return i
}

func (i image) program(path, text string) {
	i.t.Helper()
	path = filepath.Join(i.root, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		i.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		i.t.Fatal(err)
	}
}

func (i image) read(path string) string {
	text, _ := os.ReadFile(filepath.Join(i.root, path))
	return string(text)
}

// script runs one, and returns what programs it has called.
func (i image) script(name string, args ...string) string {
	i.t.Helper()
	called, _ := i.says(name, args...)
	return called
}

// says runs a script, and returns what programs it has called, and what it says.
func (i image) says(name string, args ...string) (called, said string) {
	i.t.Helper()
	cmd := exec.Command("chroot", append([]string{i.root, "/" + name}, args...)...)
	cmd.Env = []string{"PATH=/bin"}
	out, err := cmd.CombinedOutput()
	if err != nil {
		i.t.Fatalf("%s %v: %v: %s", name, args, err, out)
	}
	log := i.read("/log")
	_ = os.Remove(filepath.Join(i.root, "log"))
	return log, string(out)
}

func TestTheDockerPackageIsInstalledAndRemovedOnABootedMachine(t *testing.T) {
	i := newImage(t, true)
	i.program("/run/flannel/subnet.env", usual)
	i.program("/run/flannel/docker.env", usual)
	i.program("/run/docker_opts.env", each)
	i.program("/usr/share/flannel/docker/flannel.conf",
		"ExecStartPre=/usr/lib/flannel/flannel-docker daemon-json -file /etc/docker/daemon.json\n")
	i.program(dockerDropIn, i.read("/usr/share/flannel/docker/flannel.conf"))

	for _, args := range [][]string{{"configure", ""}, {"1"}, {"configure", "0.1.0-1"}, {"2"}} {
		if got, want := i.script("postinstall", args...), "systemctl daemon-reload\n"; got != want {
			t.Errorf("installation %v calls %q, want %q", args, got, want)
		}
	}
	for _, args := range [][]string{{"upgrade", "0.2.0-1"}, {"1"}} {
		if got := i.script("preremove", args...) + i.script("postremove", args...); got != "" || i.read(dockerDropIn) == "" {
			t.Errorf("an upgrade, %v, calls %q, and the drop-in is %q", args, got, i.read(dockerDropIn))
		}
	}
	const stops = "systemctl --no-reload stop flannel-docker-restart.path\n" +
		"systemctl --no-reload disable flannel-docker-restart.path\n"
	called, said := i.says("preremove", "remove")
	if diff := cmp.Diff(stops+"flannel-docker daemon-json -remove\n", called); diff != "" {
		t.Errorf("a removal calls (-want +got):\n%s", diff)
	}
	if _, err := os.Stat(filepath.Join(i.root, filepath.Dir(dockerDropIn))); !os.IsNotExist(err) {
		t.Errorf("the drop-in without which docker starts again is still there: %v", err)
	}
	if !strings.Contains(said, "docker0 keeps 10.5.34.1/24 over restarts of docker") {
		t.Errorf("the removal says %q, want that docker0 keeps the address", said)
	}
	if got := i.script("postremove", "remove"); got != "systemctl daemon-reload\n" ||
		i.read("/run/docker_opts.env")+i.read("/run/flannel/docker.env") != "" {
		t.Errorf("after the removal, %q is called, and files are left", got)
	}
	i.script("postremove", "purge")
}

func TestARemovalOfTheDockerPackageKeepsWhatIsNotOurs(t *testing.T) {
	for _, c := range []struct{ name, dropIn, left, moved string }{
		{"a drop-in of another", "[Service]\nEnvironment=HTTP_PROXY=\n", "[Service]\nEnvironment=HTTP_PROXY=\n", ""},
		{"our drop-in, edited", "ExecStartPre=/usr/lib/flannel/flannel-docker wait\n# mine\n", "",
			"ExecStartPre=/usr/lib/flannel/flannel-docker wait\n# mine\n"},
	} {
		i := newImage(t, true)
		// not the subnet that docker has
		i.program("/run/flannel/subnet.env", strings.ReplaceAll(usual, "10.5.34", "10.5.35"))
		i.program(dockerDropIn, c.dropIn)
		got, said := i.says("preremove", "0")
		if strings.Contains(got, "daemon-json") || strings.Contains(said, "docker0") {
			t.Errorf("%s: docker's configuration is changed: %q, or docker0 is spoken of, which has another address: %q", c.name,
				got, said)
		}
		if got, moved := i.read(dockerDropIn), i.read(dockerDropIn+".removed"); got != c.left || moved != c.moved {
			t.Errorf("%s: left %q, moved away %q", c.name, got, moved)
		}
	}
}

func TestTheDockerPackageIsInstalledAndRemovedInAnImageThatIsBuilt(t *testing.T) {
	i := newImage(t, false)
	got := i.script("postinstall", "configure", "") + i.script("preremove", "remove") + i.script("postremove", "remove")
	if want := "systemctl --no-reload disable flannel-docker-restart.path\n"; got != want {
		t.Errorf("called: %q, want %q", got, want)
	}
}

func TestARemovalOfThePluginNamesTheConfigurationThatNeedsIt(t *testing.T) {
	i := newImage(t, true)
	const ours, noted = "/etc/cni/net.d/10-flannel.conflist", "/var/lib/cni/flannel/0123"
	text, err := os.ReadFile("cni/10-flannel.conflist")
	if err != nil {
		t.Fatal(err)
	}
	i.program(ours, string(text))
	i.program("/etc/cni/net.d/20-other.conf", `{"type": "bridge"}`)
	i.program(noted, "{}")
	for _, args := range [][]string{{"upgrade", "0.2.0-1"}, {"1"}} {
		if _, said := i.says("cni-preremove", args...); said != "" {
			t.Errorf("before an upgrade, %v, the package says %q", args, said)
		}
	}
	for _, arg := range []string{"remove", "0"} {
		_, said := i.says("cni-preremove", arg)
		if !strings.Contains(said, ours+" names the plugin flannel") || strings.Contains(said, "20-other") {
			t.Errorf("before a removal, %s, the package says %q", arg, said)
		}
		if i.script("cni-postremove", arg); i.read(noted) == "" {
			t.Error("a removal deletes what the deletion of containers needs")
		}
	}
	if i.script("cni-postremove", "purge"); i.read(noted) != "" {
		t.Error("a purge leaves what the plugin has noted")
	}
}
