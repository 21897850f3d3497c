package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Two runs need room for neighbours, and the machine has its own limits again when both have ended.
func TestTheLimitsOfNeighboursAreRaisedWhileTestsRun(t *testing.T) {
	dir := t.TempDir()
	n := neighbours{filepath.Join(dir, "proc"), filepath.Join(dir, "kept")}
	folder := filepath.Join(n.proc, "sys/net/ipv6/neigh/default")
	file := filepath.Join(folder, "gc_thresh3")
	if err := os.MkdirAll(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("1024\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	want := func(text string) {
		t.Helper()
		got, err := os.ReadFile(file)
		if err != nil || strings.TrimSpace(string(got)) != text {
			t.Errorf("the limit is %q, %v, want %s", got, err, text)
		}
	}
	first, err := n.hold()
	if err != nil {
		t.Fatal(err)
	}
	second, err := n.hold()
	if err != nil {
		t.Fatal(err)
	}
	want("32768")
	first()
	want("32768")
	second()
	want("1024")
	if _, err := os.Stat(n.kept); !os.IsNotExist(err) {
		t.Errorf("the file of the former limits is left: %v", err)
	}
}
