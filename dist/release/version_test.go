package main_test

import (
	"os/exec"
	"path/filepath"
	"testing"

	"flanneld/need"
)

// The versions of packages, oldest first. They are read from names of packages, which is where they count.
var history = []struct{ describe, want string }{
	{"abcdef0", "0.0.0~git20231114221320.abcdef0"},
	{"v1.2.3-rc1", "1.2.3~rc1"},
	{"v1.2.3", "1.2.3"},
	{"v1.2.3-4-gabcdef0", "1.2.3+4.gabcdef0"},
	{"v1.2.3-14-gabcdef0", "1.2.3+14.gabcdef0"},
	{"v1.2.10", "1.2.10"},
	{"v1.2.10-dirty", "1.2.10+dirty"},
}

func TestVersionsRise(t *testing.T) {
	program := filepath.Join(t.TempDir(), "release")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	last := "0"
	for _, h := range history {
		c := exec.Command(program, "-root", "../..", "-version", h.describe, "-print-version")
		c.Env = append(c.Environ(), "SOURCE_DATE_EPOCH=1700000000")
		out, err := c.Output()
		if got := string(out); err != nil || got != h.want+"\n" {
			t.Errorf("%s: got %q (%v), want %s", h.describe, got, err, h.want)
			continue
		}
		if err := exec.Command(need.Program(t, "dpkg"), "--compare-versions", last, "lt", h.want).Run(); err != nil {
			t.Errorf("dpkg does not find %s older than %s", last, h.want)
		}
		last = h.want
	}
}
