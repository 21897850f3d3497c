//go:build machines

package machines_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"flanneld/api"
	"flanneld/dist/machines"
)

// TestAMachineWithAReadOnlySystemIsInTheNetwork boots machines whose / is mounted read-only: at first but for /var,
// then but for the folder of etcd.
func TestAMachineWithAReadOnlySystemIsInTheNetwork(t *testing.T) {
	s := withPackage(t)
	s.carries(t, carrier{backend: "vxlan"})
	before := s.subnets(t)
	for _, step := range []struct {
		name     string
		writable []string
		state    string
		problem  string
	}{
		{"var can be written", []string{"/var"}, api.StateReady, ""},
		{"only the folder of etcd can be written", []string{"/var/lib/etcd"}, api.StateDegraded,
			"the state file not written: "},
	} {
		t.Run(step.name, func(t *testing.T) {
			s.each(t, func(m *machines.Machine) error {
				if err := m.PowerOff(s.ctx); err != nil {
					return err
				}
				m.Writable = step.writable
				return m.Start(s.ctx)
			})
			s.reach(t)
			s.kept(t, before)
			for _, m := range s.Machines {
				for _, folder := range []string{"/", "/etc", "/etc/flannel", "/usr/bin"} {
					if out, err := m.Run(s.ctx, "touch", folder+"/x"); !strings.Contains(out, "Read-only file system") {
						t.Errorf("%s can be written: %q, %v", folder, out, err)
					}
				}
				if err := s.judged(m, step.state, step.problem); err != nil {
					t.Error(err)
				}
				s.sh(t, m, "systemctl restart flanneld")
			}
			s.reach(t)
			s.kept(t, before)
		})
	}
}

// judged waits until the status has a state, and a reason with a text.
func (s *story) judged(m *machines.Machine, state, problem string) error {
	return machines.Await(s.ctx, 20*time.Second, func() error {
		out, err := m.Run(s.ctx, "sh", "-c", "flannelctl status --output=json 2>/dev/null || [ $? = 5 ]")
		if err != nil {
			return err
		}
		var status api.Status
		if err := json.Unmarshal([]byte(out), &status); err != nil {
			return err
		}
		if status.State != state || !strings.Contains(status.Reason, problem) {
			return fmt.Errorf("%s: the state is %s, %q; want %s, %q", m.Name, status.State, status.Reason, state, problem)
		}
		return nil
	})
}
