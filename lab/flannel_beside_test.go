//go:build flannel

package lab_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"flanneld/api"
	"flanneld/lab"
)

// TestOursWaitsWhileARealFlannelHasTheDevice starts our daemon on a host whose flannel was not stopped.
func TestOursWaitsWhileARealFlannelHasTheDevice(t *testing.T) {
	const blue = `{"Network":"10.6.0.0/16","Backend":{"Type":"vxlan"}}`
	for name, service := range map[string]bool{"as root": false, "with the capabilities of the service": true} {
		t.Run(name, func(t *testing.T) {
			m := flannels(t, lab.IPv4, vxlanConfig, 2)
			h := m.hosts[0]
			records := m.records()
			before, err := h.Output("ip -d addr show dev flannel.1")
			m.ok(err)

			file, env := filepath.Join(h.Dir(), "blue.json"), filepath.Join(h.Dir(), "blue.env")
			m.ok(os.WriteFile(file, []byte(blue), 0o644))
			args := []string{binaries.Flanneld, "-etcd-endpoints", m.store.URLFor(h), "-etcd-prefix", "/blue",
				"-net-config-path", file,
				"-subnet-file", env, "-state-dir", h.StateDir(), "-probe-port", "0"}
			if service {
				args = append([]string{"setpriv", "--bounding-set", "-all,+net_admin,+net_raw", "--no-new-privs"}, args...)
			}
			p := must[*lab.Process](t)(h.Start("blue", args...))
			m.statusOf(h, env, api.StateNotReady,
				"the device flannel.1 is in use by another flanneld (the released flannel, pid ")
			m.statusOf(h, env, api.StateNotReady, "subnet file "+h.SubnetFile())
			if after, err := h.Output("ip -d addr show dev flannel.1"); err != nil || after != before {
				t.Errorf("the device of flannel was changed:\n%s\nbefore:\n%s", after, before)
			}
			m.sameRecords(records)
			m.allReachAll()

			m.ok(m.stop[0]())
			m.statusOf(h, env, api.StateReady, "")
			m.ok(p.Stop(m.ctx))
		})
	}
}

// TestARealFlannelBesideOursIsNamed starts flannel on a host whose daemon was not stopped.
func TestARealFlannelBesideOursIsNamed(t *testing.T) {
	m := &migration{cluster: newCluster(t), stop: make([]func() error, 2)}
	m.store = m.etcd(vxlanConfig)
	m.hosts = m.cluster.hosts(2)
	daemons := m.startAll(m.hosts, m.store)
	m.pods = m.cluster.pods(m.hosts...)
	m.allReachAll()
	m.wantState(daemons[0], api.StateReady, "")

	m.flannel(0)
	m.wantState(daemons[0], api.StateDegraded, "another flannel on this host, ")
	if out, _ := m.ctl(m.hosts[0], "status"); !strings.Contains(out, "flannel on this host") {
		t.Errorf("flannelctl status says\n%s", out)
	}
	m.allReachAll()
	m.ok(m.stop[0]())
	m.wantState(daemons[0], api.StateReady, "")
	m.allReachAll()
	m.await(func() error {
		if s := ctlJSON[api.Status](m.cluster, m.hosts[0], "status"); s.Failing != 0 || s.Peers != 1 {
			return fmt.Errorf("%d peers, %d failing", s.Peers, s.Failing)
		}
		return nil
	})
}
