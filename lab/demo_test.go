package lab_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"flanneld/lab"
)

func TestTheDemoShowsAWorkingNetworkAndLeavesNothing(t *testing.T) {
	t.Parallel()
	c := newCluster(t) // for its patience only
	var out strings.Builder
	held := false
	err := lab.Demo(c.ctx, lab.DemoOptions{Flanneld: binaries.Flanneld, Flannelctl: binaries.Flannelctl, Out: &out,
		Hold: func(context.Context) { held = true }})
	if err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	if !held {
		t.Error("it did not hold the network")
	}
	for _, want := range []string{"host1 ", "host2 ", "host3 ", "2 peers", "Routes of host1", "proto 70",
		"Pings from pod to pod", "first ping between pods", "Ctrl-C"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in the output:\n%s", want, &out)
		}
	}
	showsCapture(t, out.String())
}

// showsCapture compares what the demo prints with the capture in README.md, whose lines must stand there in this order.
// Numbers, times and identities differ from run to run; "..." stands for lines that are left out.
func showsCapture(t *testing.T, out string) {
	t.Helper()
	_, block, ok := strings.Cut(string(must[[]byte](t)(os.ReadFile("../README.md"))), "```\nStarting 3 hosts")
	if !ok {
		t.Fatal("README.md has no capture of the demo")
	}
	block, _, _ = strings.Cut(block, "```")
	rest := steady(out)
	for line := range strings.Lines(steady("Starting 3 hosts" + block)) {
		if line = strings.TrimSpace(line); line == "..." || line == "" {
			continue
		}
		_, after, found := strings.Cut(rest, line+"\n")
		if !found {
			t.Errorf("the demo does not print %q of README.md, or not after the lines before it; it prints\n%s", line, out)
			return
		}
		rest = after
	}
}

// steady replaces what differs between two runs of the demo.
func steady(text string) string {
	for _, r := range []struct{ what, by string }{
		{`identity [A-Z0-9]+`, "identity I"},
		{`version +\S+,`, "version V,"},
		{`host-[a-z0-9]{16} +(voter|leader)`, "host-U voter"},
		{`:2379  [0-9a-f]+\n`, ":2379 ID\n"},
		{`([0-9.]+(h|m|s|ms|µs))+\b`, "T"},
		{`repaired .*`, "repaired R"},
		{`[0-9]+`, "N"},
		{` +`, " "},
		{`(?m) $`, ""},
		{`(?m)^ `, ""},
	} {
		text = regexp.MustCompile(r.what).ReplaceAllString(text, r.by)
	}
	return text
}

func TestTheDemoSaysWhyItFailed(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	script := filepath.Join(t.TempDir(), "flanneld")
	if err := os.WriteFile(script, []byte("#!/bin/sh\necho disk on fire >&2\nexit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	err := lab.Demo(c.ctx, lab.DemoOptions{Flanneld: script, Out: &strings.Builder{}})
	if err == nil || !strings.Contains(err.Error(), "disk on fire") {
		t.Errorf("error %v, want what the daemon said", err)
	}
}

// orphanVariable makes the test binary build a lab and die without closing it.
const orphanVariable = "FLANNELD_LAB_ORPHAN"

func TestWhatAKilledRunHasLeftIsRemovedByTheNext(t *testing.T) {
	t.Parallel()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), orphanVariable+"="+filepath.Dir(binaries.Etcd))
	out, _ := cmd.Output() // it kills itself
	dir := strings.TrimSpace(string(out))
	if _, err := os.Stat(filepath.Join(dir, "etcd", "client.sock")); err != nil {
		t.Fatalf("the orphan has left nothing to remove in %q: %v", dir, err)
	}
	newCluster(t)
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("%s still stands: %v", dir, err)
	}
	id := strings.TrimPrefix(filepath.Base(dir), "flanneld-lab-")
	if names, _ := filepath.Glob("/run/netns/*" + id + "*"); len(names) > 0 {
		t.Errorf("namespaces are left: %s", names)
	}
	commands, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range commands {
		if text, _ := os.ReadFile(path); strings.Contains(string(text), dir) {
			t.Errorf("a process is left: %s", text)
		}
	}
}
