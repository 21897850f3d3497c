package version_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"flanneld/version"
)

func TestScriptsReadTheVersionAndNothingElse(t *testing.T) {
	b := version.Build{Version: "v1.2.3", Commit: "0123abc", Date: "2026-01-02T03:04:05Z", Go: "go1.26 linux/amd64"}
	var out, more strings.Builder
	b.Print(&out, &more)
	if got, want := out.String(), "v1.2.3\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := more.String(), "commit 0123abc\ndate 2026-01-02T03:04:05Z\ngo go1.26 linux/amd64\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := b.String(), "v1.2.3 (commit 0123abc, date 2026-01-02T03:04:05Z, go go1.26 linux/amd64)"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// program prints its build.
const program = `package main

import (
	"os"

	"flanneld/version"
)

func main() { version.This().Print(os.Stdout, os.Stdout) }
`

func TestAProgramKnowsWhatItWasBuiltFrom(t *testing.T) {
	dir := t.TempDir()
	source, err := os.ReadFile("version.go")
	if err != nil {
		t.Fatal(err)
	}
	for file, text := range map[string]string{
		"go.mod": "module flanneld\n\ngo 1.26.0\n", "main.go": program, "version/version.go": string(source),
	} {
		path := filepath.Join(dir, file)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	run := func(name string, args ...string) string {
		t.Helper()
		c := exec.Command(name, args...)
		c.Dir = dir
		out, err := c.CombinedOutput()
		if err != nil {
			t.Fatalf("%s %v: %v\n%s", name, args, err, out)
		}
		return string(out)
	}
	toolchain := "go " + runtime.Version() + " " + runtime.GOOS + "/" + runtime.GOARCH + "\n"
	built := func(args ...string) string {
		t.Helper()
		run("go", append(append([]string{"build", "-o", "program"}, args...), ".")...)
		return run("./program")
	}
	if got, want := built("-buildvcs=false"), "unknown\n"+toolchain; got != want {
		t.Errorf("without the linker's help: got %q, want %q", got, want)
	}
	const linked = "-X flanneld/version.number=v1 -X flanneld/version.commit=c -X flanneld/version.date=d"
	if got, want := built("-ldflags", linked), "v1\ncommit c\ndate d\n"+toolchain; got != want {
		t.Errorf("by the linker: got %q, want %q", got, want)
	}
}
