package lab_test

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"flanneld/lab"
)

func TestTheDemoProgram(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	program := filepath.Join(t.TempDir(), "demo")
	c.ok(lab.GoBuild(c.ctx, program, "flanneld/lab/demo"))
	t.Run("refuses fewer than two hosts", func(t *testing.T) {
		out, err := exec.CommandContext(c.ctx, program, "-hosts", "1").CombinedOutput()
		if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 2 ||
			!strings.Contains(string(out), "at least 2") {
			t.Errorf("demo -hosts 1: %v\n%s", err, out)
		}
	})
	t.Run("leaves nothing when its reader goes", func(t *testing.T) {
		dir := t.TempDir()
		cmd := exec.CommandContext(c.ctx, program, "-flanneld", binaries.Flanneld, "-flannelctl", binaries.Flannelctl,
			"-hosts", "2")
		cmd.Env = append(os.Environ(), "TMPDIR="+dir)
		out, err := cmd.StdoutPipe()
		c.ok(err)
		c.ok(cmd.Start())
		if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
			t.Fatalf("the demo prints nothing: %v", err)
		}
		labs, _ := filepath.Glob(dir + "/flanneld-lab-*")
		if len(labs) != 1 {
			t.Fatalf("the running demo has the folders %s, want one", labs)
		}
		id := strings.TrimPrefix(filepath.Base(labs[0]), "flanneld-lab-")
		c.ok(out.Close())
		_ = cmd.Wait() // it may say that its reader has gone
		if left, _ := filepath.Glob("/run/netns/*" + id + "*"); len(left) > 0 {
			t.Errorf("namespaces are left: %s", left)
		}
		if left, _ := filepath.Glob(dir + "/flanneld-lab-*"); len(left) > 0 {
			t.Errorf("folders are left: %s", left)
		}
	})
}
