package lab_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"flanneld/api"
	"flanneld/lab"
)

// state returns the status of a daemon that is in this state everywhere it is shown, with a reason that contains the
// text.
func (c *cluster) state(d *lab.Daemon, state, reason string) error {
	code, text, err := d.Get(c.ctx, "/status")
	if err != nil {
		return err
	}
	var s api.Status
	if err := json.Unmarshal([]byte(text), &s); err != nil || code != 200 {
		return fmt.Errorf("status %d %q: %w", code, text, err)
	}
	if s.State != state || !strings.Contains(strings.Join(s.Reasons, "\n"), reason) || reason == "" && len(s.Reasons) > 0 {
		return fmt.Errorf("the state is %q %q, want %q with %q", s.State, s.Reasons, state, reason)
	}
	ready, _, err := d.Get(c.ctx, "/readyz")
	if (state == api.StateNotReady) != (ready == 503) || err != nil {
		err = errors.Join(err, fmt.Errorf("%s, and /readyz answers %d", state, ready))
	}
	if n := c.metric(d, "flannel_degraded"); (n == 1) != (state == api.StateDegraded) {
		err = errors.Join(err, fmt.Errorf("%s, and flannel_degraded is %d", state, n))
	}
	if line := d.Status(); !strings.HasPrefix(line, state+": ") {
		err = errors.Join(err, fmt.Errorf("%s, and the service manager shows %q", state, line))
	}
	if _, page, pageErr := d.Get(c.ctx, "/"); !strings.Contains(page, state+"</span>") {
		err = errors.Join(err, pageErr, fmt.Errorf("%s, and the page does not say so:\n%s", state, page))
	}
	return err
}

func (c *cluster) wantState(d *lab.Daemon, state, reason string) {
	c.t.Helper()
	c.await(func() error { return c.state(d, state, reason) })
}

// saysOnce reports whether the status says a text once, in whichever lines.
func (c *cluster) saysOnce(h *lab.Host, text string) error {
	out, _ := c.ctl(h, "status")
	if n := strings.Count(out, text); n != 1 {
		return fmt.Errorf("the status says %q %d times, want once:\n%s", text, n, out)
	}
	return nil
}

func TestTrafficFlowsAndSomethingIsWrong(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	e := c.etcd(vxlanConfig)
	hosts := c.hosts(3)
	daemons := c.startAll(hosts[:2], e, "-probe-interval", "200ms")
	h, d := hosts[0], daemons[0]
	c.wantState(d, api.StateReady, "")
	if !strings.Contains(d.Log(), "bootstrap done") {
		t.Errorf("the log does not say that all is set up:\n%s", d.Log())
	}

	c.ok(hosts[1].Run("ip link set eth0 down"))
	c.wantState(d, api.StateDegraded, hosts[1].Addr.String()+") does not answer: 3 of 3 probes lost")
	c.ok(hosts[1].Run("ip link set eth0 up"))
	c.wantState(d, api.StateReady, "")

	e.Kill()
	c.wantState(d, api.StateDegraded, "store unreachable since ")
	c.await(func() error { return c.saysOnce(h, "connection refused") })
	c.ok(e.Start(c.ctx))
	c.wantState(d, api.StateReady, "")

	// A folder in the place of the subnet file cannot be replaced.
	c.ok(os.Remove(h.SubnetFile()))
	c.ok(os.MkdirAll(filepath.Join(h.SubnetFile(), "sub"), 0o755))
	third := c.flanneld(hosts[2], e, "-probe-interval", "200ms") // its arrival makes a pass
	c.wantState(d, api.StateDegraded, "the subnet file not written: ")
	c.ok(os.RemoveAll(h.SubnetFile()))
	c.wantState(d, api.StateReady, "")
	if env, err := h.Env(); err != nil || len(env.Subnets) != 1 {
		t.Errorf("subnet file %+v: %v", env, err)
	}
	c.wantState(third, api.StateReady, "")
}

func TestAHostThatWaitsIsNotReady(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	d := c.start(c.host("host1"), c.etcd(""))
	c.wantState(d, api.StateNotReady, "/config is missing")
}
