package main_test

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	flanneld "flanneld/cmd/flanneld"
	"flanneld/options"
)

func TestHangupAndBrokenPipeDoNotEndTheDaemon(t *testing.T) {
	arrived := flanneld.Outlive()
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
		flanneld.EndByAbort()
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

func TestAPrefixThatIsNoneIsRefused(t *testing.T) {
	for _, prefix := range []string{"a/b/c", "/"} {
		_, err := options.Parse([]string{"-kube-annotation-prefix=" + prefix}, nil, io.Discard, flanneld.CheckAnnotations)
		if err == nil || !strings.Contains(err.Error(), "-kube-annotation-prefix") {
			t.Errorf("%q: error is %v, want one that names the flag", prefix, err)
		}
	}
}
