// Package need says what a test needs of the host, and waits for what it needs to see. Where a program is missing the
// test is skipped, and fails in continuous integration, where nothing may be skipped.
package need

import (
	"os"
	"os/exec"
	"testing"
)

// Program returns the path of a program of the host. Others that are needed beside it may follow.
func Program(t testing.TB, name string, others ...string) string {
	t.Helper()
	for _, other := range others {
		Program(t, other)
	}
	path, err := exec.LookPath(name)
	if err == nil {
		return path
	}
	if os.Getenv("CI") != "" {
		t.Fatalf("%s is missing: make deps installs it (hack/debian-packages)", name)
	}
	t.Skipf("%s is missing", name)
	return ""
}
