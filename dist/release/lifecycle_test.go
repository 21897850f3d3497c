package main_test

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"flanneld/need"
)

// tree returns the files below a root, without those of the package managers.
func tree(t *testing.T, root string) (files []string) {
	t.Helper()
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, p)
		switch {
		case strings.HasPrefix(rel, "var/lib/dpkg") || strings.HasPrefix(rel, "var/lib/rpm") ||
			strings.HasPrefix(rel, "root/.rpmdb") || strings.HasPrefix(rel, "usr/lib/sysimage"):
			return nil
		case !d.IsDir():
			files = append(files, "/"+rel)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func rpmLifecycle(t *testing.T, dir string) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	root := newRoot(t)
	before := tree(t, root)
	rpm := func(args ...string) {
		t.Helper()
		output(t, "rpm", append([]string{"--root", root}, args...)...)
	}
	rpm("--initdb")
	files := []string{match(t, dir, "flanneld-1*.x86_64.rpm"), match(t, dir, "flanneld-docker-1*.x86_64.rpm"),
		match(t, dir, "flannel-cni-plugin-1*.x86_64.rpm")}
	rpm(append([]string{"--nodeps", "--nosignature", "--install"}, files...)...)
	if got := tree(t, root); !slices.Contains(got, "/usr/bin/flanneld") {
		t.Errorf("installed: %v", got)
	}
	config := filepath.Join(root, "etc/flannel/flanneld.conf")
	if err := os.WriteFile(config, []byte("FLANNELD_V=1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	rpm(append([]string{"--nodeps", "--nosignature", "--force", "--upgrade"}, files...)...)
	if text, _ := os.ReadFile(config); string(text) != "FLANNELD_V=1\n" {
		t.Errorf("after an upgrade the configuration is %q", text)
	}
	rpm("--nodeps", "--erase", "flanneld", "flanneld-docker", "flannel-cni-plugin")
	saved := config + ".rpmsave" // what rpm does with a configuration that was changed
	if err := os.Remove(saved); err != nil {
		t.Error(err)
	}
	if after := tree(t, root); !slices.Equal(before, after) {
		t.Errorf("a removal leaves %v, want what was there before: %v", after, before)
	}
}

// newRoot makes a root that has a shell and dpkg's records and nothing else, as a minimal image has.
func newRoot(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	shell := need.Program(t, "busybox")
	for _, dir := range []string{"bin", "lib64", "usr/bin", "var/lib/dpkg/info", "var/lib/dpkg/updates",
		"etc", "tmp", "run"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []string{"status", "available"} {
		if err := os.WriteFile(filepath.Join(root, "var/lib/dpkg", file), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	copyTo := func(from, to string) {
		t.Helper()
		text, err := os.ReadFile(from)
		if err == nil {
			err = os.MkdirAll(filepath.Dir(filepath.Join(root, to)), 0o755)
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(root, to), text, 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	copyTo(shell, "bin/busybox")
	libraries, _ := exec.Command("ldd", shell).Output() // fails if it is static
	for word := range strings.FieldsSeq(string(libraries)) {
		if strings.HasPrefix(word, "/") {
			copyTo(word, word)
		}
	}
	for _, name := range []string{"sh", "rm", "rmdir"} {
		if err := os.Symlink("busybox", filepath.Join(root, "bin", name)); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func debLifecycle(t *testing.T, dir string) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	root := newRoot(t)
	before := tree(t, root)
	dpkg := func(args ...string) {
		t.Helper()
		c := exec.Command(need.Program(t, "dpkg"),
			append([]string{"--root=" + root, "--force-depends", "--log=/dev/null"}, args...)...)
		c.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("dpkg %v: %v\n%s", args, err, out)
		}
	}
	files := []string{match(t, dir, "flanneld_*_amd64.deb"), match(t, dir, "flanneld-docker_*_amd64.deb"),
		match(t, dir, "flannel-cni-plugin_*_amd64.deb")}
	dpkg(append([]string{"--install"}, files...)...)
	config, state := filepath.Join(root, "etc/flannel/flanneld.conf"), filepath.Join(root, "var/lib/flannel/identity")
	for file, text := range map[string]string{config: "FLANNELD_V=1\n", state: "me"} {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	kept := func(after string) {
		t.Helper()
		if text, _ := os.ReadFile(config); string(text) != "FLANNELD_V=1\n" {
			t.Errorf("after %s the configuration is %q", after, text)
		}
		if _, err := os.Stat(state); err != nil {
			t.Errorf("after %s: %v", after, err)
		}
	}
	dpkg(append([]string{"--force-confold", "--install"}, files...)...)
	kept("an upgrade")
	dpkg("--remove", "flanneld-docker", "flannel-cni-plugin", "flanneld")
	kept("a removal")
	dpkg("--purge", "flanneld-docker", "flannel-cni-plugin", "flanneld")
	if after := tree(t, root); !slices.Equal(before, after) {
		t.Errorf("a purge leaves %v, want what was there before: %v", after, before)
	}
}
