package main_test

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// fake puts a shell script in the place of a delegate, which notes each verb, then runs the lines. It returns the
// CNI_PATH and the file of notes.
func (h *host) fake(name, lines string) (path, notes string) {
	h.t.Helper()
	dir := h.t.TempDir()
	notes = filepath.Join(dir, "notes")
	script := fmt.Sprintf("#!/bin/sh\ncat >%s/$CNI_COMMAND.$CNI_CONTAINERID\necho $CNI_COMMAND >>%s\n%s\n", dir, notes,
		lines)
	if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755); err != nil {
		h.t.Fatal(err)
	}
	return dir + ":" + h.path, notes
}

func verbs(t *testing.T, notes string) []string {
	t.Helper()
	text, err := os.ReadFile(notes)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return strings.Fields(string(text))
}

func TestAttachingThatFailsLeavesNothing(t *testing.T) {
	h := newHost(t)
	pod := h.namespace("pod")
	path, notes := h.fake("half", `[ $CNI_COMMAND = ADD ] && echo '{"code":123,"msg":"half way","details":"more"}' && exit 1; exit 0`)
	h.refused(call{verb: "ADD", id: "c1", ifName: "eth0", netns: pod, path: path,
		conf: h.conf("1.1.0", `"delegate":{"type":"half"}`)},
		123, "delegate half, ADD: half way", "more")
	if got, want := verbs(t, notes), []string{"ADD", "DEL"}; !slices.Equal(got, want) {
		t.Errorf("the delegate was called with %v, want %v", got, want)
	}
	h.clean()
}

func TestDelegateOfAnOlderSpecificationIsNamedAndLeavesNothing(t *testing.T) {
	h := newHost(t)
	path, notes := h.fake("old", `grep -q 0.3.1 $(dirname $0)/$CNI_COMMAND.$CNI_CONTAINERID && exit 0
echo '{"code":1,"msg":"incompatible CNI versions","details":"config is 1.1.0"}'; exit 1`)
	c := call{verb: "ADD", id: "c1", ifName: "eth0", netns: h.namespace("pod"), path: path,
		conf: h.conf("1.1.0", `"delegate":{"type":"old"}`)}
	h.refused(c, 1, "incompatible CNI versions", "config is 1.1.0", "too old for this cniVersion")
	if got, want := verbs(t, notes), []string{"ADD", "DEL", "DEL"}; !slices.Equal(got, want) {
		t.Errorf("the delegate was called with %v, want %v", got, want)
	}
	h.clean()
}

func TestWhatCannotBeFreedIsRemembered(t *testing.T) {
	h := newHost(t)
	pod := h.namespace("pod")
	path, notes := h.fake("stuck", `[ -e `+h.dir+`/mended ] || { echo '{"code":11,"msg":"stuck"}'; exit 1; }`)
	c := call{verb: "ADD", id: "c1", ifName: "eth0", netns: pod, path: path,
		conf: h.conf("1.1.0", `"delegate":{"type":"stuck"}`)}
	h.refused(c, 11, "ADD: stuck", "DEL: stuck")
	if got := h.list("saved"); !slices.Equal(got, []string{"c1"}) {
		t.Errorf("saved %v, want c1", got)
	}
	c.verb = "DEL"
	h.refused(c, 11, "stuck")
	if err := os.WriteFile(h.dir+"/mended", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	h.must(c)
	h.clean()
	if got, want := verbs(t, notes), []string{"ADD", "DEL", "DEL", "DEL"}; !slices.Equal(got, want) {
		t.Errorf("the delegate was called with %v, want %v", got, want)
	}
}

func TestSecondAttachingDoesNotTearDownTheFirst(t *testing.T) {
	h := newHost(t)
	pod := h.namespace("pod")
	process := exec.Command("ip", "netns", "exec", pod, "sleep", "1000")
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = process.Process.Kill()
		_ = process.Wait()
	}()
	ofProcess := fmt.Sprintf("/proc/%d/ns/net", process.Process.Pid)
	h.await("the process is not in its namespace", func() string {
		if os.SameFile(stat(t, ofProcess), stat(t, "/run/netns/"+pod)) {
			return ""
		}
		return "yet"
	})
	for _, netns := range []string{pod, ofProcess} {
		c := call{verb: "ADD", id: "c1", ifName: "eth0", netns: netns, conf: h.conf("1.1.0")}
		ip := strings.TrimSuffix(address(t, h.must(c)), "/24")
		h.refused(c, 999, "already exists")
		h.run("ip", "netns", "exec", h.netns, "ping", "-c1", "-W5", ip)
		c.verb = "DEL"
		h.must(c)
		h.clean()
	}
}

func stat(t *testing.T, path string) os.FileInfo {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info
}

func TestContainerIsAttachedAgainAfterAReboot(t *testing.T) {
	h := newHost(t)
	c := call{verb: "ADD", id: "c1", ifName: "eth0", netns: h.namespace("pod"), conf: h.conf("1.1.0")}
	h.must(c)
	h.run("ip", "netns", "del", c.netns)
	c.netns = h.namespace("pod")
	h.must(c)
	if got := h.list("addresses/pods"); len(got) != 1 {
		t.Errorf("reserved %v, want one address", got)
	}
	c.verb = "DEL"
	h.must(c)
	h.clean()
}

func TestContainerBeforeTheDaemonIsToldWhatToWaitFor(t *testing.T) {
	h := newHost(t)
	c := call{verb: "ADD", id: "c1", ifName: "eth0", netns: h.namespace("pod"), conf: h.conf("1.1.0")}
	h.writeEnv("FLANNEL_NETWORK=10.5.0.0/16\n")
	h.refused(c, 11, "FLANNEL_SUBNET", "missing")
	if err := os.Remove(h.dir + "/subnet.env"); err != nil {
		t.Fatal(err)
	}
	h.refused(c, 11, "subnet.env does not exist", "flanneld is not running", "start flanneld")
	h.daemon("waits for etcd at http://192.0.2.1:2379")
	start := time.Now()
	h.refused(c, 11, "subnet.env does not exist", "flanneld is not ready: waits for etcd at http://192.0.2.1:2379")
	if took := time.Since(start); took > 3*time.Second {
		t.Errorf("the answer took %v", took)
	}
	h.clean()
}

// daemon answers on the socket beside the subnet file; without a reason it is ready.
func (h *host) daemon(reason string) {
	h.t.Helper()
	socket := h.dir + "/subnet.sock"
	_ = os.Remove(socket)
	l, err := net.Listen("unix", socket)
	if err != nil {
		h.t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if reason != "" {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		fmt.Fprintf(w, `{"ready":%t,"reason":%q}`, reason == "", reason)
	})}
	done := make(chan struct{})
	h.t.Cleanup(func() { s.Close(); <-done })
	go func() { defer close(done); _ = s.Serve(l) }()
}

func TestStatusSaysWhetherAContainerCouldBeAttachedNow(t *testing.T) {
	h := newHost(t)
	c := call{verb: "STATUS", conf: h.conf("1.1.0")}
	h.must(c)
	h.daemon("")
	h.must(c)
	h.refused(call{verb: "STATUS", conf: h.conf("1.0.0")}, 1)

	missing := c
	missing.path = program.dir
	h.refused(missing, 50, `"bridge" is not in CNI_PATH`, "install")
	missing.path, missing.conf = h.path, h.conf("1.1.0", `"ipam":{"type":"nowhere"}`)
	h.refused(missing, 50, `"nowhere" is not in CNI_PATH`)

	for _, tt := range []struct {
		line string
		code uint
		want string
	}{
		{`echo '{"code":51,"msg":"no uplink"}'; exit 1`, 51, "no uplink"},
		{`echo '{"code":7,"msg":"odd"}'; exit 1`, 50, "odd"},
		{`echo '{"code":4,"msg":"unknown CNI_COMMAND"}'; exit 1`, 50, "too old"},
		{`echo broken >&2; exit 1`, 50, "broken"},
	} {
		path, _ := h.fake("other", tt.line)
		h.refused(call{verb: "STATUS", path: path, conf: h.conf("1.1.0", `"delegate":{"type":"other"}`)}, tt.code, tt.want)
	}

	h.daemon("no lease yet: the pool is full")
	h.refused(c, 51, "flanneld is not ready: no lease yet: the pool is full")
	if err := os.Remove(h.dir + "/subnet.env"); err != nil {
		t.Fatal(err)
	}
	h.refused(c, 50, "no lease yet: the pool is full")
	h.daemon("")
	h.refused(c, 50, "another subnet file", "-subnet-file")
}

func TestStatusNoticesADaemonThatHasDied(t *testing.T) {
	h := newHost(t)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: h.dir + "/subnet.sock"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	h.refused(call{verb: "STATUS", conf: h.conf("1.1.0")}, 51, "flanneld is not running", "start flanneld")
}

func TestErrorsOfTheCallAreErrorObjects(t *testing.T) {
	h := newHost(t)
	pod := h.namespace("pod")
	ok := call{verb: "ADD", id: "c1", ifName: "eth0", netns: pod, conf: h.conf("1.0.0")}
	for _, tt := range []struct {
		name  string
		spoil func(*call)
		code  uint
	}{
		{"no JSON", func(c *call) { c.conf = "{" }, 6},
		{"no name", func(c *call) { c.conf = `{"cniVersion":"1.0.0","type":"flannel"}` }, 7},
		{"unknown version", func(c *call) { c.conf = h.conf("9.9.9") }, 1},
		{"delegate has a name", func(c *call) { c.conf = h.conf("1.0.0", `"delegate":{"name":"x"}`) }, 7},
		{"unknown verb", func(c *call) { c.verb = "JUMP" }, 4},
		{"no container", func(c *call) { c.id = "" }, 4},
		{"a path as container", func(c *call) { c.id = "../c1" }, 4},
		{"no interface", func(c *call) { c.ifName = "" }, 4},
		{"delegate's program is missing", func(c *call) { c.conf = h.conf("1.0.0", `"delegate":{"type":"nowhere"}`) }, 50},
		{"no such namespace", func(c *call) { c.netns = "/run/netns/flcni-none" }, 999},
	} {
		c := ok
		tt.spoil(&c)
		t.Run(tt.name, func(t *testing.T) { h.refused(c, tt.code) })
	}
	h.clean()
}
