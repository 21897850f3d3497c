package main_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

func TestThePluginIsInstalledBeforeItsConfiguration(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "install-cni")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	plugin, config := filepath.Join(dir, "flannel"), filepath.Join(dir, "10-flannel.conflist")
	bin, net := filepath.Join(dir, "host/bin"), filepath.Join(dir, "host/net.d")
	install := func() error {
		return exec.Command(program, "-plugin", plugin, "-bin", bin, "-config", config, "-net", net).Run()
	}
	write := func(file, text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(config, "{}")
	if err := install(); err == nil {
		t.Error("installed without a plugin")
	}
	if _, err := os.Stat(filepath.Join(net, "10-flannel.conflist")); err == nil {
		t.Error("the configuration is there without the plugin")
	}
	for _, text := range []string{"old", "new"} {
		write(plugin, text)
		if err := install(); err != nil {
			t.Fatal(err)
		}
		for file, want := range map[string]struct {
			text string
			mode os.FileMode
		}{
			filepath.Join(bin, "flannel"):             {text, 0o755},
			filepath.Join(net, "10-flannel.conflist"): {"{}", 0o644},
		} {
			got, err := os.ReadFile(file)
			if err != nil || string(got) != want.text {
				t.Errorf("%s: %q (%v), want %q", file, got, err, want.text)
			}
			if info, err := os.Stat(file); err != nil || info.Mode().Perm() != want.mode {
				t.Errorf("%s: mode of %v (%v), want %o", file, info, err, want.mode)
			}
		}
		left, _ := filepath.Glob(filepath.Join(bin, ".*"))
		if len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	}
}

// A plugin that a runtime is just running cannot be written to, only replaced.
func TestARunningPluginIsReplaced(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "install-cni")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}
	install := func() {
		t.Helper()
		if out, err := exec.Command(program, "-plugin", sleep, "-bin",
			filepath.Join(dir, "bin")).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	install()
	running := exec.Command(filepath.Join(dir, "bin", filepath.Base(sleep)), "60")
	if err := running.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = running.Process.Kill()
		_ = running.Wait()
	}()
	install()
}
