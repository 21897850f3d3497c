package etcdv3_test

import (
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"testing"

	"google.golang.org/grpc/grpclog"

	"flanneld/subnet/etcdv3"
)

// gRPC has one log for the whole process: the test is a process of its own.
func TestErrorsOfGRPCAreDebugMessages(t *testing.T) {
	if os.Getenv("GRPC_LOG_TEST") != "" {
		etcdv3.LogTo(slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{Level: slog.LevelDebug})))
		grpclog.Info("one")
		grpclog.Component("core").Errorf("two %d", 2)
		grpclog.Warningln("three")
		return
	}
	t.Parallel()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), "GRPC_LOG_TEST=1")
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	cmd.Stdout = &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(stderr); err != nil || len(text) > 0 {
		t.Errorf("standard error is %q, %v, want nothing", text, err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	if got := out.String(); strings.Contains(got, "one") || strings.Count(got, "level=DEBUG msg=gRPC message=") != 2 ||
		!strings.Contains(got, "two 2") || !strings.Contains(got, "three") {
		t.Errorf("got\n%s\nwant an error and a warning as debug messages", got)
	}
}
