//go:build machines

package machines_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"flanneld/dist/machines"
	"flanneld/need"
)

// carriers are the backends that a daemon runs under the unit as it is shipped, each with what the status says of where
// packets are carried; and what the kernel must have for it.
var carriers = []struct{ backend, options, path, kind string }{
	{"vxlan", "", "", "vxlan"},
	{"host-gw", "", "", ""},
	{"ipip", "", "", "ipip"},
	{"wireguard", "", "", ""}, // in the daemon, where the kernel has none
	{"extension", `, "SubnetAddCommand": "ip route replace $SUBNET via $PUBLIC_IP",
		"SubnetRemoveCommand": "ip route del $SUBNET via $PUBLIC_IP"`, "", ""},
	{"udp", `, "Kernel": true`, "user space: ", ""},
}

// dropIn enables what docs/systemd.md says for udp inside the kernel.
const dropIn = `install -D -m 644 /usr/share/flannel/systemd/udp-kernel.conf /etc/systemd/system/flanneld.service.d/udp-kernel.conf
	systemctl daemon-reload; systemctl restart flanneld`

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
		t.Run(c.backend, func(t *testing.T) { s.carries(t, c.backend, c.options, c.path, c.kind) })
	}
	t.Run("udp with its drop-in is carried inside the kernel", func(t *testing.T) {
		for _, m := range s.Machines {
			s.sh(t, m, dropIn)
		}
		s.reach(t, "kernel")
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

// carries runs a backend in a network of its own on all machines.
func (s *story) carries(t *testing.T, backend, options, path, kind string) {
	if kind != "" {
		_, err := s.Machines[0].Run(s.ctx, "sh", "-ec", "ip link add test0 type "+kind+" "+
			map[string]string{"vxlan": "id 99 dstport 9999"}[kind]+"; ip link delete test0")
		if err != nil {
			t.Skipf("the kernel has no %s: %v", kind, err)
		}
	}
	for _, m := range s.Machines {
		s.sh(t, m, fmt.Sprintf(`systemctl stop flanneld; flannelctl cleanup >/dev/null; rm -f /var/lib/flannel/*
			sed -i '/^FLANNELD_/d' /etc/flannel/flanneld.conf
			cat >>/etc/flannel/flanneld.conf <<'END'
FLANNELD_ETCD_ENDPOINTS=http://192.0.2.11:2379,http://192.0.2.12:2379
FLANNELD_ETCD_PREFIX=/coreos.com/network/%s
FLANNELD_IFACE=eth0
FLANNELD_NETWORK_CONFIG='{"Network": "10.5.0.0/16", "Backend": {"Type": "%s"%s}}'
END
			systemctl restart flanneld`, backend, backend, strings.ReplaceAll(options, "\n", " ")))
	}
	s.reach(t, path)
}

// reach waits until the machines reach one another by addresses of their subnets, and the status names the path.
func (s *story) reach(t *testing.T, path string) {
	t.Helper()
	var addresses []string
	for _, m := range s.Machines {
		if err := s.settled(m, "flanneld.service"); err != nil {
			t.Fatal(err)
		}
		subnet := strings.TrimPrefix(s.sh(t, m, "grep ^FLANNEL_SUBNET= /run/flannel/subnet.env"), "FLANNEL_SUBNET=")
		s.sh(t, m, "ip address flush dev lo to 10.5.0.0/16; ip address add "+subnet+" dev lo")
		addresses = append(addresses, netip.MustParsePrefix(subnet).Addr().String())
	}
	err := machines.Await(s.ctx, 30*time.Second, func() error {
		_, err := s.Machines[0].Run(s.ctx, "ping", "-c", "3", "-i", "0.05", "-W", "1", "-I", addresses[0], addresses[1])
		return err
	})
	if err != nil {
		t.Error(err)
	}
	for _, m := range s.Machines {
		err := machines.Await(s.ctx, 20*time.Second, func() error {
			out, err := m.Run(s.ctx, "flannelctl", "status", "--output=json")
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
