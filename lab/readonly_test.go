package lab_test

import (
	"strings"
	"syscall"
	"testing"

	"flanneld/api"
)

func TestAHostWithAReadOnlyStateFolderIsDegraded(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	e := c.etcd(vxlanConfig)
	hosts := c.hosts(2)
	daemons := c.startAll(hosts, e, "-probe-interval", "200ms")
	h, before := hosts[0], c.keyOf(hosts[0])
	c.ok(daemons[0].Stop(c.ctx))
	dir := h.StateDir()
	c.ok(syscall.Mount(dir, dir, "", syscall.MS_BIND, ""))
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	c.ok(syscall.Mount("", dir, "", syscall.MS_BIND|syscall.MS_REMOUNT|syscall.MS_RDONLY, ""))

	d := c.start(h, e, "-probe-interval", "200ms")
	c.ok(d.Ready(c.ctx))
	c.wantState(d, api.StateDegraded, "the state file not written: ")
	if after := c.keyOf(h); after != before {
		t.Errorf("the subnet is %s, want %s as before", after, before)
	}
	if !strings.Contains(d.Log(), "state folder cannot be written") {
		t.Errorf("the log does not say that the state folder cannot be written:\n%s", d.Log())
	}
	// The lock of the read-only folder counts.
	second := c.start(h, e, "-healthz-port", "0")
	if code, err := second.Wait(c.ctx); code != 1 || !strings.Contains(second.Log(), "another flanneld") {
		t.Errorf("a second daemon ended with %d, %v:\n%s", code, err, second.Log())
	}
}
