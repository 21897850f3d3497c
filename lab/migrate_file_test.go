package lab_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"flanneld/api"
	"flanneld/lab"
)

// mounted is a folder as kubelet mounts a ConfigMap: its files are links through one link, which is exchanged.
type mounted struct {
	c       *cluster
	dir     string
	changes int
}

func (m *mounted) file() string { return filepath.Join(m.dir, "net-conf.json") }

func (m *mounted) set(text string) {
	m.c.t.Helper()
	m.changes++
	data := fmt.Sprintf("..%d", m.changes)
	m.c.ok(os.Mkdir(filepath.Join(m.dir, data), 0o755))
	m.c.ok(os.WriteFile(filepath.Join(m.dir, data, "net-conf.json"), []byte(text), 0o644))
	m.c.ok(os.Symlink(data, filepath.Join(m.dir, "..tmp")))
	m.c.ok(os.Rename(filepath.Join(m.dir, "..tmp"), filepath.Join(m.dir, "..data")))
	if m.changes == 1 {
		m.c.ok(os.Symlink(filepath.Join("..data", "net-conf.json"), m.file()))
	}
}

// TestANetworkMovesWhoseConfigurationIsAFile writes what the command asks for.
func TestANetworkMovesWhoseConfigurationIsAFile(t *testing.T) {
	t.Parallel()
	const network = `{"Network":"10.5.0.0/16","Backend":`
	c := newCluster(t)
	m := &mounted{c: c, dir: t.TempDir()}
	m.set(network + `{"Type":"vxlan"}}`)
	hosts := c.hosts(2)
	daemons := c.startAll(hosts, c.etcd(""), "-net-config-path", m.file())
	pods := must[[]*lab.Pod](t)(lab.Pods(hosts...))
	pings := c.meshed(pods)
	type outcome struct {
		out  string
		code int
	}
	ended := make(chan outcome, 1)
	go func() {
		out, code := c.migratesIn(hosts[0], "2m", "--to", toHostGW)
		ended <- outcome{out, code}
	}()
	m.set(network + `{"Type":"vxlan"},"Next":` + toHostGW + `}`)
	for _, h := range hosts {
		c.await(func() error {
			if out := c.ctlOK(h, "leases", "-o", "json"); strings.Count(out, `"host-gw"`) != len(hosts) {
				return errors.New("host-gw is not offered by all:\n" + out)
			}
			return nil
		})
	}
	m.set(network + toHostGW + `,"Previous":{"Type":"vxlan"}}`)
	for _, h := range hosts {
		c.await(func() error {
			if out := c.ctlOK(h, "leases"); strings.Contains(out, "vxlan") {
				return errors.New("host-gw is not the main one of all:\n" + out)
			}
			return nil
		})
	}
	m.set(network + toHostGW + `,"Migrated":{"Type":"vxlan"}}`)
	o := <-ended
	if o.code != 0 || strings.Count(o.out, "write this to "+m.file()+" on each host") == 0 {
		t.Errorf("exit code %d:\n%s", o.code, o.out)
	}
	for _, h := range hosts {
		c.await(func() error { return c.alone(h, toHostGW) })
	}
	c.nothingLost("the move", pings)
	// What is wrong with a file stops nobody, and is shown until it is right.
	m.set(`{`)
	c.await(func() error { return c.pending(hosts[0], "is invalid") })
	m.set(network + toHostGW + `}`)
	c.await(func() error { return c.pending(hosts[0], "") })
	for i, d := range daemons {
		if n := strings.Count(d.Log(), "starting flanneld"); n != 1 {
			t.Errorf("daemon %d was started %d times", i, n)
		}
	}
}

// pending wants the status to say what holds up the network configuration; empty: nothing.
func (c *cluster) pending(h *lab.Host, want string) error {
	s := ctlJSON[api.Status](c, h, "status")
	if got := s.Pending; (got == "") != (want == "") || !strings.Contains(got, want) {
		return fmt.Errorf("pending %q, want %q", got, want)
	}
	return nil
}
