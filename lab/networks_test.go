package lab_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"flanneld/api"
	"flanneld/lab"
)

// network2 starts a daemon for a second network on a host, with a name and a configuration, and returns its log.
func (c *cluster) network2(h *lab.Host, e *lab.Etcd, name, config string) (*lab.Process, string) {
	c.t.Helper()
	file, env := filepath.Join(h.Dir(), name+".json"), filepath.Join(h.Dir(), name+".env")
	c.ok(os.WriteFile(file, []byte(config), 0o644))
	p, err := h.Start(name, binaries.Flanneld, "-etcd-endpoints", e.URLFor(h), "-etcd-prefix", "/"+name,
		"-net-config-path", file,
		"-subnet-file", env, "-state-dir", h.StateDir(), "-probe-port", "0")
	c.ok(err)
	return p, env
}

// statusOf waits until the status of the daemon with a subnet file has a state, and a text in its reason, and returns
// it.
func (c *cluster) statusOf(h *lab.Host, env, state, text string) (s api.Status) {
	c.t.Helper()
	c.await(func() error {
		out, _ := c.ctl(h, "status", "--subnet-file", env, "--json")
		s = api.Status{}
		if err := json.NewDecoder(strings.NewReader(out)).Decode(&s); err != nil {
			return fmt.Errorf("status: %w: %s", err, out)
		}
		if s.State != state || !strings.Contains(s.Reason, text) {
			return fmt.Errorf("the state is %q %q, want %q with %q", s.State, s.Reason, state, text)
		}
		return nil
	})
	return s
}

// TestTwoNetworksOfAHostNeverShareADevice starts a second network with the device of the first one, which would destroy
// both.
func TestTwoNetworksOfAHostNeverShareADevice(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ backend, first, second, device string }{
		{"vxlan", "flannel.1", `{"Network":"10.6.0.0/16","Backend":{"Type":"vxlan","Port":4789}}`, ""},
		{"udp", "flannel0", `{"Network":"10.6.0.0/16","Backend":{"Type":"udp","Port":8286}}`, "flannel1"},
	} {
		t.Run(tt.backend, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t)
			e := c.etcd(network{tt.backend, lab.IPv4}.config())
			h := c.hosts(1)[0]
			d := c.startAll([]*lab.Host{h}, e)[0]
			before, err := h.Output("ip -d addr show dev " + tt.first)
			c.ok(err)
			second, env := c.network2(h, e, "blue", tt.second)
			if tt.device != "" {
				if s := c.statusOf(h, env, api.StateReady, ""); !slices.Equal(s.Devices, []string{tt.device}) {
					t.Errorf("the second network has the devices %v, want %s", s.Devices, tt.device)
				}
				c.wantState(d, api.StateReady, "")
				return
			}
			c.statusOf(h, env, api.StateNotReady, "the device flannel.1 is in use by another flanneld (pid ")
			c.statusOf(h, env, api.StateNotReady, "network "+lab.Prefix+", subnet file "+h.SubnetFile())
			c.wantState(d, api.StateReady, "")
			if after, err := h.Output("ip -d addr show dev flannel.1"); err != nil || after != before {
				t.Errorf("the first network was changed:\n%s\nbefore:\n%s", after, before)
			}
			// The newcomer takes over once the other daemon has ended.
			c.ok(d.Stop(c.ctx))
			c.statusOf(h, env, api.StateReady, "")
			c.ok(second.Stop(c.ctx))
		})
	}
}
