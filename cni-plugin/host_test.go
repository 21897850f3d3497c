package main_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"flanneld/cni-plugin/plugintest"
	"flanneld/need"
)

const env34 = "FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.34.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"

var (
	// namespaces numbers the network namespaces of this process.
	namespaces atomic.Int32
	// program is the plugin, built when it is first needed.
	program struct {
		once sync.Once
		dir  string
	}
)

func TestMain(m *testing.M) {
	code := m.Run()
	if program.dir != "" {
		_ = os.RemoveAll(program.dir)
	}
	os.Exit(code)
}

// host is a network namespace with a subnet file, in which the plugin is called as a runtime calls it.
type host struct {
	t                         testing.TB
	dir, netns, flannel, path string
}

// cniError is what a failing plugin prints.
type cniError struct {
	Code         uint
	Msg, Details string
}

func (e *cniError) Error() string { return fmt.Sprintf("%d: %s; %s", e.Code, e.Msg, e.Details) }

func newHost(t testing.TB) *host {
	t.Helper()
	if os.Getuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("root is needed")
		}
		t.Skip("root is needed")
	}
	program.once.Do(func() {
		dir, err := os.MkdirTemp("", "flannel-cni-")
		if err != nil {
			t.Fatal(err)
		}
		program.dir = dir
		plugintest.Flannel(t, dir)
	})
	h := &host{t: t, dir: t.TempDir(), flannel: program.dir + "/flannel"}
	h.path = program.dir + ":" + plugintest.Reference(t)
	h.netns = h.namespace("host")
	h.writeEnv(env34)
	return h
}

// namespace makes a network namespace with loopback up, and returns its name.
func (h *host) namespace(role string) string {
	h.t.Helper()
	name := fmt.Sprintf("flcni-%d-%s%d", os.Getpid(), role, namespaces.Add(1))
	h.run("ip", "netns", "add", name)
	h.t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", name).Run() })
	h.run("ip", "-n", name, "link", "set", "lo", "up")
	return name
}

func (h *host) run(args ...string) string {
	h.t.Helper()
	var complaints strings.Builder // ip complains of a namespace that goes while it lists the interfaces to it
	c := exec.Command(args[0], args[1:]...)
	c.Stderr = &complaints
	out, err := c.Output()
	if err != nil {
		h.t.Fatalf("%s: %v\n%s%s", strings.Join(args, " "), err, out, &complaints)
	}
	return string(out)
}

// inside runs a command in the host's namespace.
func (h *host) inside(args ...string) (string, error) {
	out, err := exec.Command("ip", append([]string{"netns", "exec", h.netns}, args...)...).CombinedOutput()
	return string(out), err
}

func (h *host) writeEnv(text string) {
	h.t.Helper()
	if err := os.WriteFile(h.dir+"/subnet.env", []byte(text), 0o644); err != nil {
		h.t.Fatal(err)
	}
}

// conf returns a network's configuration, with fields added to it, such as `"delegate":{}`.
func (h *host) conf(version string, more ...string) string {
	all := append([]string{
		fmt.Sprintf(`"cniVersion":%q,"name":"pods","type":"flannel"`, version),
		fmt.Sprintf(`"subnetFile":%q,"dataDir":%q`, h.dir+"/subnet.env", h.dir+"/saved"),
	}, more...)
	if !strings.Contains(strings.Join(more, ""), `"ipam"`) {
		all = append(all, fmt.Sprintf(`"ipam":{"dataDir":%q}`, h.dir+"/addresses"))
	}
	return "{" + strings.Join(all, ",") + "}"
}

// call is one call of the plugin.
type call struct {
	verb, id, ifName, netns, conf string // netns is a name; "" for none
	path                          string // CNI_PATH; "": that of the host
}

func (h *host) command(c call) *exec.Cmd {
	cmd := exec.Command("ip", "netns", "exec", h.netns, h.flannel)
	netns, path := c.netns, c.path
	if netns != "" && !strings.HasPrefix(netns, "/") {
		netns = "/run/netns/" + netns
	}
	if path == "" {
		path = h.path
	}
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "CNI_COMMAND=" + c.verb, "CNI_CONTAINERID=" + c.id, "CNI_IFNAME=" +
		c.ifName,
		"CNI_NETNS=" + netns, "CNI_PATH=" + path}
	cmd.Stdin = strings.NewReader(c.conf)
	return cmd
}

// try calls the plugin; the error is a *cniError if the plugin has said what is wrong.
func (h *host) try(c call) (stdout string, err error) {
	cmd := h.command(c)
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	err = cmd.Run()
	if stderr.Len() > 0 {
		h.t.Errorf("%s writes to stderr: %s", c.verb, stderr.String())
	}
	if err == nil {
		return out.String(), nil
	}
	var e cniError
	if jsonErr := json.Unmarshal(out.Bytes(), &e); jsonErr != nil {
		h.t.Errorf("%s: %v, and stdout is no error object: %s", c.verb, err, out.String())
		return "", err
	}
	return "", &e
}

// must calls the plugin, which succeeds.
func (h *host) must(c call) string {
	h.t.Helper()
	out, err := h.try(c)
	if err != nil {
		h.t.Fatalf("%s %s: %v", c.verb, c.id, err)
	}
	if c.verb != "ADD" && c.verb != "VERSION" && out != "" {
		h.t.Errorf("%s writes to stdout: %s", c.verb, out)
	}
	return out
}

// refused calls the plugin, which fails with a code and a message.
func (h *host) refused(c call, code uint, parts ...string) {
	h.t.Helper()
	_, err := h.try(c)
	var e *cniError
	if !errors.As(err, &e) {
		h.t.Fatalf("%s %s: got %v, want a CNI error with code %d", c.verb, c.id, err, code)
	}
	if e.Code != code {
		h.t.Errorf("%s %s: got code %d, want %d: %v", c.verb, c.id, e.Code, code, e)
	}
	for _, p := range parts {
		if !strings.Contains(e.Error(), p) {
			h.t.Errorf("%s %s: got %q, want %q in it", c.verb, c.id, e.Error(), p)
		}
	}
}

// list returns the names in a folder below the host's, without the marks that host-local keeps for itself.
func (h *host) list(folder string) []string {
	h.t.Helper()
	files, err := os.ReadDir(filepath.Join(h.dir, folder))
	if err != nil && !os.IsNotExist(err) {
		h.t.Fatal(err)
	}
	var out []string
	for _, f := range files {
		if f.Name() != "lock" && !strings.HasPrefix(f.Name(), "last_reserved_ip") {
			out = append(out, f.Name())
		}
	}
	return out
}

// clean fails the test if anything of a container is left on the host.
func (h *host) clean() {
	h.t.Helper()
	if got := h.list("addresses/pods"); len(got) > 0 {
		h.t.Errorf("addresses left: %v", got)
	}
	if got := h.list("saved"); len(got) > 0 {
		h.t.Errorf("files left: %v", got)
	}
	h.await("interfaces left", func() string { return h.run("ip", "-n", h.netns, "-o", "link", "show", "type", "veth") })
}

// await waits until left returns nothing. The kernel takes a namespace's interfaces away some time after the namespace.
func (h *host) await(what string, left func() string) {
	h.t.Helper()
	var got string
	defer func() {
		if got != "" {
			h.t.Logf("%s: %s", what, got)
		}
	}()
	need.Until(h.t, "no "+what, 20*time.Second, func() bool {
		got = left()
		return got == ""
	})
}

// address returns the first address in a result of any version.
func address(t testing.TB, result string) string {
	t.Helper()
	var r struct {
		IPs []struct{ Address string }
		IP4 struct{ IP string }
	}
	if err := json.Unmarshal([]byte(result), &r); err != nil {
		t.Fatalf("%v in %s", err, result)
	}
	if len(r.IPs) > 0 {
		return r.IPs[0].Address
	}
	return r.IP4.IP
}
