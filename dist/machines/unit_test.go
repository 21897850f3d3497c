//go:build machines

package machines_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"flanneld/dist/machines"
	"flanneld/need"
)

// carrier is a backend that carries packets.
type carrier struct{ backend, options, path, kind string }

// carriers are the backends that a daemon runs under the unit as it is shipped, each with what the status says of where
// packets are carried; and what the kernel must have for it.
var carriers = []carrier{
	{backend: "vxlan", kind: "vxlan"},
	{backend: "host-gw"},
	{backend: "ipip", kind: "ipip"},
	{backend: "wireguard"}, // in the daemon, where the kernel has none
	{backend: "extension", options: `, "SubnetAddCommand": "ip route replace $SUBNET via $PUBLIC_IP",
		"SubnetRemoveCommand": "ip route del $SUBNET via $PUBLIC_IP"`},
	{backend: "udp", options: `, "Kernel": true`, path: "user space: "},
}

// dropIn enables a drop-in of the package as docs/systemd.md says.
func dropIn(name string) string {
	return fmt.Sprintf("install -D -m 644 /usr/share/flannel/systemd/%[1]s.conf "+
		"/etc/systemd/system/flanneld.service.d/%[1]s.conf; systemctl daemon-reload; systemctl restart flanneld", name)
}

func TestEveryBackendRunsUnderTheUnit(t *testing.T) {
	need.Program(t, "debootstrap", "systemd-nspawn")
	s := newStory(t)
	s.furnish(t, withEtcd(t, daemonOnly(t)), 2)
	s.each(t, func(m *machines.Machine) error {
		if err := m.Start(s.ctx); err != nil {
			return err
		}
		_, err := m.Run(s.ctx, "sh", "-ec", "systemctl disable --now docker.socket docker.service; nft flush ruleset\n"+
			"apt-get install -q -y --no-install-recommends /srv/flanneld_*.deb")
		return err
	})
	for _, c := range carriers {
		t.Run(c.backend, func(t *testing.T) {
			s.carries(t, c)
			s.carriedBy(t, c.path)
		})
	}
	t.Run("udp with its drop-in is carried inside the kernel", func(t *testing.T) {
		for _, m := range s.Machines {
			s.sh(t, m, dropIn("udp-kernel"))
		}
		s.reach(t)
		s.carriedBy(t, "kernel")
	})
	t.Run("wireguard with its drop-in", func(t *testing.T) {
		for _, m := range s.Machines {
			s.sh(t, m, dropIn("wireguard"))
		}
		s.carries(t, carrier{backend: "wireguard"})
	})
}

// daemonOnly builds the package of the daemon, and the archive that is unpacked with etcd.
func daemonOnly(t *testing.T) map[string]string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "out")
	must(t, "../release", "go", "run", ".", "-root", "../..", "-o", out, "-arch", runtime.GOARCH, "-version", "v0.1.0",
		"-kinds", "deb,archive")
	name := "flanneld_0.1.0-1_" + runtime.GOARCH + ".deb"
	return map[string]string{
		"/srv/" + name:         filepath.Join(out, name),
		"/opt/flanneld.tar.gz": filepath.Join(out, "flanneld-0.1.0-linux-"+runtime.GOARCH+".tar.gz"),
	}
}

// carries runs a backend in a network of its own on all machines, which then reach one another.
func (s *story) carries(t *testing.T, c carrier) {
	t.Helper()
	if c.kind != "" && !s.knows(c.kind) {
		t.Skipf("the kernel has no %s", c.kind)
	}
	s.configure(t, c)
	s.reach(t)
}

// flannelctl runs it on a machine.
func (s *story) flannelctl(m *machines.Machine, args ...string) (string, error) {
	command := s.ctl
	if command == nil {
		command = []string{"flannelctl"}
	}
	return m.Run(s.ctx, slices.Concat(command, args)...)
}

// knows reports whether the kernel has a kind of device.
func (s *story) knows(kind string) bool {
	_, err := s.Machines[0].Run(s.ctx, "sh", "-ec", "ip link add test0 type "+kind+" "+
		map[string]string{"vxlan": "id 99 dstport 9999"}[kind]+"; ip link delete test0")
	return err == nil
}

// configure starts the daemons in a network of their own for a backend.
func (s *story) configure(t *testing.T, c carrier) {
	t.Helper()
	for _, m := range s.Machines {
		s.sh(t, m, fmt.Sprintf(`systemctl stop flanneld; flannelctl cleanup >/dev/null; rm -f /var/lib/flannel/*
			sed -i '/^FLANNELD_/d' /etc/flannel/flanneld.conf
			cat >>/etc/flannel/flanneld.conf <<'END'
FLANNELD_ETCD_ENDPOINTS=http://192.0.2.11:2379,http://192.0.2.12:2379
FLANNELD_ETCD_PREFIX=/coreos.com/network/%s
FLANNELD_IFACE=eth0
FLANNELD_NETWORK_CONFIG='{"Network": "10.5.0.0/16", "Backend": {"Type": "%s"%s}}'
END
			systemctl restart flanneld`, c.backend, c.backend, strings.ReplaceAll(c.options, "\n", " ")))
	}
}

// reach waits until the machines reach one another by addresses of their subnets.
func (s *story) reach(t *testing.T) {
	t.Helper()
	var addresses []string
	for _, m := range s.Machines {
		if err := s.settled(m, "flanneld.service"); err != nil {
			t.Fatal(err)
		}
		addresses = append(addresses, s.onLoopback(t, m))
	}
	if err := s.answered(addresses); err != nil {
		t.Error(err)
	}
}

// onLoopback gives a machine the first address of its subnet, as a pod would have one of the others.
func (s *story) onLoopback(t *testing.T, m *machines.Machine) string {
	t.Helper()
	subnet := strings.TrimPrefix(s.sh(t, m, "grep ^FLANNEL_SUBNET= /run/flannel/subnet.env"), "FLANNEL_SUBNET=")
	s.sh(t, m, "ip address flush dev lo to 10.5.0.0/16; ip address add "+subnet+" dev lo")
	return netip.MustParsePrefix(subnet).Addr().String()
}

// answered waits until the second machine answers the first, by these addresses.
func (s *story) answered(addresses []string) error {
	return machines.Await(s.ctx, 30*time.Second, func() error {
		_, err := s.Machines[0].Run(s.ctx, "ping", "-c", "3", "-i", "0.05", "-W", "1", "-I", addresses[0], addresses[1])
		return err
	})
}

// carriedBy waits until the status names where packets are carried.
func (s *story) carriedBy(t *testing.T, path string) {
	t.Helper()
	for _, m := range s.Machines {
		err := machines.Await(s.ctx, 20*time.Second, func() error {
			out, err := s.flannelctl(m, "status", "--output=json")
			if err != nil {
				return err
			}
			var status struct {
				Path string `json:"datapath_path"`
			}
			if err := json.Unmarshal([]byte(out), &status); err != nil {
				return err
			}
			if !strings.HasPrefix(status.Path, path) || path == "" && status.Path != "" {
				return fmt.Errorf("%s: datapath_path is %q, want %q", m.Name, status.Path, path)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		t.Logf("%s: %s", m.Name, s.property(m, "flanneld.service", "StatusText"))
	}
}
