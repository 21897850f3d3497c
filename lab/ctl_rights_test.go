package lab_test

import (
	"strings"
	"testing"

	"flanneld/lab"
)

// asNobody runs flannelctl as a user without rights. The program is opened as root: its folder is closed to others.
func (c *cluster) asNobody(h *lab.Host, args ...string) (string, error) {
	script := `exec 3<"$0" && exec setpriv --reuid=65534 --regid=65534 --clear-groups /proc/self/fd/3 "$@"`
	args = append([]string{"sh", "-c", script, binaries.Flannelctl, "--subnet-file", h.SubnetFile(), "--state-dir",
		h.StateDir()}, args...)
	return h.Exec(c.ctx, args...)
}

// What may not be read must not be taken for missing or corrupt.
func TestAUserWithoutRightsIsToldToRunFlannelctlAsRoot(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	e := c.etcd(vxlanConfig)
	h := c.hosts(1)[0]
	daemon := c.flanneld(h, e)
	check := func(commands ...string) {
		t.Helper()
		for _, command := range commands {
			out, err := c.asNobody(h, strings.Fields(command)...)
			switch {
			case err == nil:
				t.Errorf("%s succeeds:\n%s", command, out)
			case !strings.Contains(err.Error(), "permission denied") || !strings.Contains(err.Error(), "run flannelctl as root"):
				t.Errorf("%s: %v", command, err)
			}
			if out != "" {
				t.Errorf("%s prints an answer that it cannot know:\n%s", command, out)
			}
		}
	}
	check("status", "peers", "leases", "drain", "doctor", "bundle -f /nowhere/bundle.tar.gz", "cleanup --dry-run")
	c.ok(daemon.Stop(c.ctx))
	check("doctor", "bundle -f /nowhere/bundle.tar.gz")
}
