package lab_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"flanneld/lab"
)

// The device of a second network looks like one that a former flannel has left.
func TestTheToolsLeaveOtherNetworksOfTheHostAlone(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	e := c.etcd(vxlanConfig)
	h := c.hosts(1)[0]
	daemon := c.flanneld(h, e)
	config, file := filepath.Join(h.Dir(), "blue.json"), filepath.Join(h.Dir(), "blue.env")
	c.ok(os.WriteFile(config, []byte(`{"Network":"10.6.0.0/16","Backend":{"Type":"vxlan","VNI":2}}`), 0o644))
	blue := []string{"-etcd-endpoints", e.URLFor(h), "-etcd-prefix", "/blue", "-net-config-path", config,
		"-subnet-file", file, "-state-dir", h.StateDir()}
	must[*lab.Process](t)(h.Start("blue", append([]string{binaries.Flanneld}, blue...)...))
	c.await(func() error {
		_, err := h.Exec(c.ctx, binaries.Flannelctl, "status", "--subnet-file", file)
		return err
	})
	c.healthy(h)
	c.healthy(h, "--subnet-file", file)
	c.ok(daemon.Stop(c.ctx))
	out := c.ctlOK(h, "cleanup", "--flannel")
	if !strings.Contains(out, "kept: flannel.2, the device of another network") || !strings.Contains(out, "flannel.1") {
		t.Errorf("cleanup prints:\n%s", out)
	}
	c.ok(h.Run("ip link show dev flannel.2"))
	if err := h.Run("ip link show dev flannel.1"); err == nil {
		t.Error("cleanup leaves the device of its own network")
	}
	c.healthy(h, "--subnet-file", file)
}
