package ip_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"flanneld/ip"
	"flanneld/ip/iptest"
)

// sleeper starts a process of a name, which does nothing, and returns how events name it.
func sleeper(t *testing.T, name string) (by string, end func()) {
	t.Helper()
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), name) // the kernel takes the name of the link
	if err := os.Symlink(sleep, program); err != nil {
		t.Fatal(err)
	}
	c := exec.Command(program, "600")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	end = func() {
		_ = c.Process.Kill()
		_ = c.Wait()
	}
	t.Cleanup(end)
	return fmt.Sprintf("%s (pid %d)", name, c.Process.Pid), end
}

func TestAnotherFlannelThatChangesOurObjectsIsNamedWhileItRuns(t *testing.T) {
	r := newRig(t, iptest.Faults{})
	r.pass(cluster(2))
	changed := func(by string) {
		t.Helper()
		down := cluster(1).Links[0]
		down.Up = false
		r.kernel.Put(down)
		if !r.Observe(ip.Event{Object: down, By: by}) {
			t.Fatal("the change is not noticed")
		}
		r.pass(cluster(2))
	}
	for _, name := range []string{"NetworkManager", "flannelctl"} {
		by, _ := sleeper(t, name)
		if changed(by); r.Rival() != "" {
			t.Errorf("%s is taken for another flannel", r.Rival())
		}
	}
	by, end := sleeper(t, "flanneld")
	if changed(by); r.Rival() != by {
		t.Errorf("the other flannel is %q, want %q", r.Rival(), by)
	}
	end()
	if r.Rival() != "" {
		t.Errorf("%s has ended", r.Rival())
	}
}
