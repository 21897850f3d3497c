package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// careless is a package whose tests leave a file and a process behind: one at once, the other one when it is
// interrupted.
const careless = `package careless

import (
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

func leave(t *testing.T) {
	cmd := exec.Command("sleep", "4321")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.CreateTemp("", "careless"); err != nil {
		t.Fatal(err)
	}
}

func TestShort(t *testing.T) { leave(t) }

func TestLong(t *testing.T) {
	leave(t)
	println("waiting")
	time.Sleep(time.Hour)
}
`

// runtests prepares a run of this program on the careless package, with a temporary folder of its own.
func runtests(t *testing.T, test string) (cmd *exec.Cmd, tmp string, out *bytes.Buffer) {
	t.Helper()
	program := filepath.Join(t.TempDir(), "runtests")
	if text, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	dir := t.TempDir()
	tmp = t.TempDir()
	for name, text := range map[string]string{"go.mod": "module careless\n\ngo 1.26\n", "careless_test.go": careless} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	out = &bytes.Buffer{}
	cmd = exec.Command(program, ". -v -run "+test)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = dir, append(os.Environ(), "TMPDIR="+tmp), out, out
	return cmd, tmp, out
}

// wantNothing looks for what the run has left.
func wantNothing(t *testing.T, tmp string, out *bytes.Buffer) {
	t.Helper()
	if files, err := os.ReadDir(tmp); err != nil || len(files) > 0 {
		t.Errorf("files are left: %v, %v\n%s", files, err, out)
	}
	environments, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, path := range environments {
		if text, _ := os.ReadFile(path); strings.Contains(string(text), "TMPDIR="+tmp) {
			t.Errorf("a process is left: %s\n%s", path, out)
		}
	}
}

func TestWhatTestsLeaveBehindIsNamedAndRemoved(t *testing.T) {
	t.Parallel()
	cmd, tmp, out := runtests(t, "TestShort")
	exit := (*exec.ExitError)(nil)
	if err := cmd.Run(); !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Errorf("ends with %v, want 1", err)
	}
	for _, want := range []string{"left behind by the tests", "sleep 4321", "careless"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in the output:\n%s", want, out)
		}
	}
	wantNothing(t, tmp, out)
}

func TestCtrlCLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	cmd, tmp, out := runtests(t, "TestLong")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for left := 0; left == 0; time.Sleep(10 * time.Millisecond) { // until the test has left its file
		files, _ := filepath.Glob(filepath.Join(tmp, dirPrefix+"????", "careless*"))
		left = len(files)
		select {
		case err := <-ended:
			t.Fatalf("ended early: %v\n%s", err, out)
		default:
		}
	}
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	exit := (*exec.ExitError)(nil)
	if err := <-ended; !errors.As(err, &exit) || exit.ExitCode() != 130 {
		t.Errorf("ends with %v, want 130\n%s", err, out)
	}
	wantNothing(t, tmp, out)
}
