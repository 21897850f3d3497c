//go:build moves || members

package lab_test

import (
	"os/exec"
	"path/filepath"
	"testing"

	"flanneld/lab"
)

// buildVersion builds the daemon of a commit, from the history of this repository.
func buildVersion(t *testing.T, commit string) string {
	t.Helper()
	dir := t.TempDir()
	source, program := filepath.Join(dir, "source"), filepath.Join(dir, "flanneld-former")
	if err := lab.CheckOut(t.Context(), "..", commit, source); err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(t.Context(), "go", "build", "-C", source, "-o", program, "./cmd/flanneld")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", c, err, out)
	}
	return program
}
