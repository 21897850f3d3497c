package hack_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// programs puts scripts into a folder, and returns an environment in which they are found first.
func programs(t *testing.T, scripts map[string]string) (dir string, env []string) {
	t.Helper()
	dir = t.TempDir()
	for name, script := range scripts {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir, append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"), "DIR="+dir)
}

func TestAnyOfSeveralPackagesWillDo(t *testing.T) {
	for installed, want := range map[string]string{
		"curl busybox":        "",
		"curl busybox-static": "",
		"curl":                "busybox",
		"":                    "busybox curl",
		"busybox-static":      "curl",
	} {
		t.Run(installed, func(t *testing.T) {
			dir, env := programs(t, map[string]string{
				"id": "echo 0",
				// As dpkg-query does: what is not known is an error, and does not keep the rest from being shown.
				"dpkg-query": `shift 3; for p; do case " $INSTALLED " in *" $p "*) echo "install ok installed" ;; *) failed=1 ;; esac; done; exit ${failed:-0}`,
				"apt-get":    `shift 4; echo "$@" >"$DIR/got"; test -x "$POLICY"`,
			})
			policy := filepath.Join(dir, "policy-rc.d")
			cmd := exec.Command("./install-packages", "busybox|busybox-static", "curl")
			cmd.Env = append(env, "INSTALLED="+installed, "POLICY="+policy)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			got, _ := os.ReadFile(filepath.Join(dir, "got")) // absent: apt-get was not called
			if strings.TrimSpace(string(got)) != want {
				t.Errorf("installs %q, want %q", got, want)
			}
			if _, err := os.Stat(policy); err == nil {
				t.Error("the policy that keeps services from starting is still there")
			}
		})
	}
}

// tree is a folder with the script and a state that the test controls.
func tree(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	script, err := os.ReadFile("test-all")
	if err == nil {
		err = os.Mkdir(filepath.Join(dir, "hack"), 0o755)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "hack", "test-all"), script, 0o755)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, ".gitignore"), []byte("/build/\n"), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"init", "-q"}, {"add", "."},
		{"-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "start"}} {
		if out, err := exec.Command("git", append([]string{"-C", dir}, args...)...).CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
	}
	return dir
}

func TestTheLargeTargetsGoOnWhereTheyStopped(t *testing.T) {
	dir := tree(t)
	_, env := programs(t, map[string]string{"fake-make": `echo "$1" >>"$DIR/ran"; test ! -e "$DIR/broken-$1"`})
	state := strings.TrimPrefix(env[len(env)-1], "DIR=")
	run := func(more ...string) (out, ran string, ok bool) {
		t.Helper()
		_ = os.Remove(filepath.Join(state, "ran"))
		cmd := exec.Command("hack/test-all")
		cmd.Dir, cmd.Env = dir, append(append(env, "MAKE=fake-make", "TARGETS=one two three"), more...)
		text, err := cmd.CombinedOutput()
		list, _ := os.ReadFile(filepath.Join(state, "ran"))
		return string(text), strings.Join(strings.Fields(string(list)), " "), err == nil
	}
	broken := filepath.Join(state, "broken-two")
	if err := os.WriteFile(broken, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if out, ran, ok := run(); ran != "one two three" || ok || !strings.Contains(out, "two              FAILED") {
		t.Errorf("ran %q, passed %t:\n%s", ran, ok, out)
	}
	if err := os.Remove(broken); err != nil {
		t.Fatal(err)
	}
	if out, ran, ok := run(); ran != "two" || !ok || strings.Count(out, "passed") != 3 {
		t.Errorf("the second time ran %q, passed %t:\n%s", ran, ok, out)
	}
	if out, ran, ok := run("SOAK=1"); ran != "soak soak-lab" || !ok {
		t.Errorf("with the soak ran %q, passed %t:\n%s", ran, ok, out)
	}
	if err := os.WriteFile(filepath.Join(dir, "new"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if out, ran, ok := run(); ran != "one two three" || !ok {
		t.Errorf("after a change ran %q, passed %t:\n%s", ran, ok, out)
	}
}
