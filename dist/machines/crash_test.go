//go:build machines

package machines_test

import (
	"fmt"
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

// comesBack ends the daemon in each way that is not its own doing. The runtime treats a SIGSEGV from outside as a panic.
func (s *story) comesBack(t *testing.T) {
	m := s.Machines[0]
	kill := func(signal string) string { return "systemctl kill --kill-whom=main --signal=" + signal + " flanneld" }
	memory := func(most string) string {
		return "systemctl set-property --runtime flanneld.service MemorySwapMax=" + most + " MemoryMax=" + most
	}
	for _, end := range []struct{ name, prepare, do, result string }{
		{"a panic", "true", kill("SEGV"), "(core-dump|signal)"},
		{"SIGQUIT", "true", kill("QUIT"), "(core-dump|signal)"},
		{"SIGKILL", "true", kill("KILL"), "signal"},
		{"the watchdog", impatient, kill("STOP"), "watchdog"},
		{"the OOM killer", "true", memory("1M"), "oom-kill"},
	} {
		s.sh(t, m, end.prepare)
		run := s.property(m, "flanneld.service", "InvocationID")
		s.sh(t, m, end.do)
		s.ended(t, m, end.name, run, end.result)
		s.sh(t, m, "rm -f "+limits+"; systemctl daemon-reload; "+memory("infinity"))
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
