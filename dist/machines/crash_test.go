//go:build machines

package machines_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"flanneld/dist/machines"
)

// limits is a drop-in of the daemon's unit, and impatient makes one that the daemon misses when it is stopped.
const (
	limits    = "/run/systemd/system/flanneld.service.d/limits.conf"
	impatient = "mkdir -p $(dirname " + limits + "); printf '[Service]\\nWatchdogSec=3\\n' >" + limits + `
		systemctl daemon-reload; systemctl restart flanneld`
)

// comesBack ends the daemon in each way that is not its own doing. The runtime treats a SIGSEGV from outside as a
// panic.
func (s *story) comesBack(t *testing.T) {
	m := s.Machines[0]
	kill := func(signal string) func() {
		return func() { s.sh(t, m, "systemctl kill --kill-whom=main --signal="+signal+" flanneld") }
	}
	for _, end := range []struct {
		name, prepare string
		do            func()
		result        string
	}{
		{"a panic", "true", kill("SEGV"), "(core-dump|signal)"},
		{"SIGQUIT", "true", kill("QUIT"), "(core-dump|signal)"},
		{"SIGKILL", "true", kill("KILL"), "signal"},
		{"the watchdog", impatient, kill("STOP"), "watchdog"},
		{"the OOM killer", "true", func() { s.starve(t, m) }, "(oom-kill|signal)"},
	} {
		s.sh(t, m, end.prepare)
		run := s.property(m, "flanneld.service", "InvocationID")
		end.do()
		s.ended(t, m, end.name, run, end.result)
		s.sh(t, m, "rm -f "+limits+`; systemctl daemon-reload
			systemctl set-property --runtime flanneld.service MemorySwapMax=infinity MemoryMax=infinity`)
		if err := s.settled(m, "flanneld.service"); err != nil {
			t.Errorf("after %s: %v", end.name, err)
		}
	}
	s.connected(t)
}

// ended waits until systemd has logged how a run of the daemon ended, and has started another one.
func (s *story) ended(t *testing.T, m *machines.Machine, name, run, result string) {
	t.Helper()
	script := fmt.Sprintf(`journalctl --sync
		journalctl --no-pager -b -o cat INVOCATION_ID=%s -g "Failed with result '%s'"`, run, result)
	err := machines.Await(s.ctx, 60*time.Second, func() error {
		if out, err := m.Run(s.ctx, "sh", "-ec", script); err != nil {
			return fmt.Errorf("no result %s: %s: %w", result, out, err)
		}
		if now := s.property(m, "flanneld.service", "InvocationID"); now == run {
			return fmt.Errorf("not started again, %s", s.property(m, "flanneld.service", "ActiveState"))
		}
		return nil
	})
	if err != nil {
		t.Errorf("after %s: %v", name, err)
	}
}

// memory of control groups of version 1: a machine has those of version 2 alone, which lack it where the host uses
// version 1 for memory.
const memory = "/sys/fs/cgroup/memory"

// killed is what a group says of the OOM killer's deeds.
var killed = regexp.MustCompile(`(?m)^oom_kill [1-9]`)

// starve gives the daemon no more memory until the OOM killer has ended it.
func (s *story) starve(t *testing.T, m *machines.Machine) {
	t.Helper()
	write := func(file, text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(memory); err != nil {
		s.sh(t, m, "systemctl set-property --runtime flanneld.service MemorySwapMax=1M MemoryMax=1M")
		return
	}
	group, err := os.MkdirTemp(memory, "flannel-machines-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.Remove(group)
	pids, err := m.Processes("flanneld.service")
	if err != nil {
		t.Fatal(err)
	}
	write(filepath.Join(group, "memory.limit_in_bytes"), "65536")
	for _, pid := range pids {
		write(filepath.Join(group, "cgroup.procs"), pid)
	}
	err = machines.Await(s.ctx, 60*time.Second, func() error {
		_, _ = m.Run(s.ctx, "flannelctl", "status") // an answer needs memory
		text, err := os.ReadFile(filepath.Join(group, "memory.oom_control"))
		if err == nil && !killed.Match(text) {
			err = fmt.Errorf("the OOM killer has killed nothing: %s", text)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
