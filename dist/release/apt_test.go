package main_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"flanneld/need"
)

// TestAptInstallsFromTheRepository asks the real apt-get, with a root of its own.
//
// Slow: it is the first here that builds all programs, with the flags of a release; those behind it find them built.
func TestAptInstallsFromTheRepository(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	program := filepath.Join(t.TempDir(), "release")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	private, _ := newKey(t)
	out := filepath.Join(t.TempDir(), "out")
	build := func(args ...string) (string, error) {
		c := exec.Command(program, append([]string{"-root", "../..", "-o", out, "-arch", runtime.GOARCH, "-version", describe,
			"-kinds", "deb,apt"}, args...)...)
		c.Env = append(os.Environ(), "SOURCE_DATE_EPOCH=1700000000")
		text, err := c.CombinedOutput()
		return string(text), err
	}
	if text, err := build("-sign-key", private); err != nil {
		t.Fatalf("release: %v\n%s", err, text)
	}
	root := newRoot(t)
	apt := func(args ...string) (string, error) {
		c := exec.Command(need.Program(t, "apt-get"), append([]string{
			"-o", "Dir=" + root, "-o", "Dir::State::status=" + root + "/var/lib/dpkg/status", "-o", "APT::Sandbox::User=root",
			"-o", "Dir::Etc::sourceparts=/dev/null", "-o", "DPkg::Options::=--root=" + root, "-o", "APT::Update::Error-Mode=any",
			"-o", "DPkg::Options::=--log=/dev/null", "-q", "-y", "--no-install-recommends",
		}, args...)...)
		c.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C")
		text, err := c.CombinedOutput()
		return string(text), err
	}
	for _, dir := range []string{"etc/apt/preferences.d", "etc/apt/trusted.gpg.d", "var/lib/apt/lists/partial",
		"var/cache/apt/archives/partial", "var/log/apt"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	source := "deb [signed-by=" + filepath.Join(out, "apt/flanneld.gpg") + "] copy:" + filepath.Join(out, "apt") + " ./\n"
	if err := os.WriteFile(filepath.Join(root, "etc/apt/sources.list"), []byte(source), 0o644); err != nil {
		t.Fatal(err)
	}
	if text, err := apt("update"); err != nil || strings.Contains(text, "W:") {
		t.Fatalf("update: %v\n%s", err, text)
	}
	if text, err := apt("install", "flanneld"); err != nil {
		t.Fatalf("install: %v\n%s", err, text)
	}
	if _, err := os.Stat(filepath.Join(root, "usr/bin/flanneld")); err != nil {
		t.Error(err)
	}

	index := filepath.Join(out, "apt/InRelease")
	text, err := os.ReadFile(index)
	if err != nil {
		t.Fatal(err)
	}
	forged := bytes.Replace(text, []byte("Suite: stable"), []byte("Suite: forged"), 1)
	if err := os.WriteFile(index, forged, 0o644); err != nil {
		t.Fatal(err)
	}
	if text, err := apt("update"); err == nil || !strings.Contains(text, "signature") {
		t.Errorf("apt takes a repository that was changed: %v\n%s", err, text)
	}
	if text, err := build(); err == nil || !strings.Contains(text, "-sign-key") {
		t.Errorf("a repository without a key: %v\n%s", err, text)
	}
}
