package process_test

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"flanneld/process"
)

func TestHangupAndBrokenPipeDoNotEndTheDaemon(t *testing.T) {
	arrived := process.Outlive()
	for _, sig := range []syscall.Signal{syscall.SIGHUP, syscall.SIGPIPE} {
		if err := syscall.Kill(os.Getpid(), sig); err != nil {
			t.Fatal(err)
		}
		if got := <-arrived; got != sig {
			t.Errorf("got %v, want %v", got, sig)
		}
	}
}

// panics is the environment variable that makes the test below the process that panics.
const panics = "FLANNELD_TEST_PANICS"

func TestAPanicDoesNotLookLikeAUsageError(t *testing.T) {
	if os.Getenv(panics) != "" {
		if err := syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{}); err != nil {
			t.Fatal(err)
		}
		process.EndByAbort()
		panic("as a test")
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestAPanicDoesNotLookLikeAUsageError$")
	cmd.Env = append(os.Environ(), panics+"=1")
	err := cmd.Run()
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		t.Fatalf("got %v, want an exit error", err)
	}
	if status := exit.Sys().(syscall.WaitStatus); status.Signal() != syscall.SIGABRT {
		t.Errorf("got %v, want an end by SIGABRT", exit)
	}
}
