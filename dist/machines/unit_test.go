//go:build machines

package machines_test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/netip"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"flanneld/api"
	"flanneld/dist/machines"
	"flanneld/ip/iptest"
	"flanneld/need"
)

// carrier is a backend that carries packets.
type carrier struct {
	backend, options, path, kind string
	network                      string        // empty: as the backend
	gap                          time.Duration // for which a restart takes the traffic away; 0: nothing is lost
}

// carriers are the backends that a daemon runs under the unit as it is shipped, each with what the status says of where
// packets are carried; and what the kernel must have for it.
var carriers = []carrier{
	{backend: "vxlan", kind: "vxlan"},
	{backend: "host-gw"},
	{backend: "ipip", kind: "ipip"},
	{backend: "wireguard", gap: iptest.Time(time.Second)}, // in the daemon, where the kernel has none
	{backend: "extension", options: `, "SubnetAddCommand": "ip route replace $SUBNET via $PUBLIC_IP",
		"SubnetRemoveCommand": "ip route del $SUBNET via $PUBLIC_IP"`},
	{backend: "udp", options: `, "Kernel": true`, path: "user space: "},
}

// withPackage boots two machines, the first with etcd, that have the package of the daemon and run no containers.
func withPackage(t *testing.T) *story {
	t.Helper()
	need.Program(t, "debootstrap", "systemd-nspawn")
	s := newStory(t)
	s.furnish(t, withEtcd(t, daemonOnly(t)), 2)
	s.each(t, func(m *machines.Machine) error {
		if err := m.Start(s.ctx); err != nil {
			return err
		}
		_, err := m.Run(s.ctx, "sh", "-ec", "systemctl disable --now docker.socket docker.service containerd.service\n"+
			"nft flush ruleset; apt-get install -q -y --no-install-recommends /srv/flanneld_*.deb")
		return err
	})
	return s
}

// dropIn enables a drop-in of the package as docs/systemd.md says.
func dropIn(name string) string {
	return fmt.Sprintf("install -D -m 644 /usr/share/flannel/systemd/%[1]s.conf "+
		"/etc/systemd/system/flanneld.service.d/%[1]s.conf; systemctl daemon-reload; systemctl restart flanneld", name)
}

func TestEveryBackendRunsUnderTheUnit(t *testing.T) {
	s := withPackage(t)
	for _, c := range carriers {
		t.Run(c.backend, func(t *testing.T) {
			s.carries(t, c)
			s.carriedBy(t, c.path)
		})
	}
	t.Run("udp with its drop-in for the daemon", func(t *testing.T) {
		for _, m := range s.Machines {
			s.sh(t, m, dropIn("udp"))
		}
		s.reach(t)
		s.carriedBy(t, "user space: ")
	})
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
	t.Run("extension with its drop-in runs commands that send frames and write files", s.commands)
}

// neighbourly is a command of extension that opens a packet socket as arping does, and writes a file.
const neighbourly = `#!/bin/sh -e
python3 -c 'import socket; socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0x0608).bind(("eth0", 0))'
echo "$PUBLIC_IP" >"/srv/peers/${SUBNET%/*}"
ip route replace "$SUBNET" via "$PUBLIC_IP"
`

// commands has the unit refuse what only the drop-in allows, and the drop-in what is to be uncommented in it.
func (s *story) commands(t *testing.T) {
	const allow = `sed -i 's|^#ReadWritePaths=.*|ReadWritePaths=/srv/peers|' /etc/systemd/system/flanneld.service.d/extension.conf
		systemctl daemon-reload; systemctl restart flanneld`
	for _, m := range s.Machines {
		if err := m.Write("/usr/local/bin/add-peer", neighbourly, 0o755); err != nil {
			t.Fatal(err)
		}
		s.sh(t, m, "mkdir -p /srv/peers")
	}
	s.configure(t, carrier{backend: "extension", network: "commands",
		options: `, "SubnetAddCommand": "/usr/local/bin/add-peer", "SubnetRemoveCommand": "ip route del $SUBNET"`})
	for _, step := range []struct{ script, refused string }{
		{"true", "Address family not supported"},
		{dropIn("extension"), "Read-only file system"},
		{allow, ""},
	} {
		for _, m := range s.Machines {
			s.sh(t, m, step.script)
		}
		s.each(t, func(m *machines.Machine) error { return s.refused(m, step.refused) })
	}
	s.reach(t)
	for i, m := range s.Machines {
		if got, want := s.sh(t, m, "cat /srv/peers/*"), s.Machines[1-i].Addr.String(); got != want {
			t.Errorf("%s: the command has written %q, want %q", m.Name, got, want)
		}
	}
}

// refused waits until a machine says of its peer why its command fails; empty: it does not.
func (s *story) refused(m *machines.Machine, why string) error {
	return machines.Await(s.ctx, 60*time.Second, func() error {
		out, err := m.Run(s.ctx, "sh", "-c", "flannelctl peers --output=json 2>/dev/null || [ $? = 3 ]")
		if err != nil {
			return err
		}
		var peers []api.Peer
		if err := json.Unmarshal([]byte(out), &peers); err != nil {
			return err
		}
		if len(peers) != 1 || peers[0].Programmed != (why == "") || !strings.Contains(peers[0].Reason, why) {
			return fmt.Errorf("%s: its peers are %+v, want one with the reason %q", m.Name, peers, why)
		}
		return nil
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
			ip address flush dev lo to 10.5.0.0/16
			sed -i '/^FLANNELD_/d' /etc/flannel/flanneld.conf
			cat >>/etc/flannel/flanneld.conf <<'END'
FLANNELD_ETCD_ENDPOINTS=http://192.0.2.11:2379,http://192.0.2.12:2379
FLANNELD_ETCD_PREFIX=/coreos.com/network/%s
FLANNELD_IFACE=eth0
FLANNELD_NETWORK_CONFIG='{"Network": "10.5.0.0/16", "Backend": {"Type": "%s"%s}}'
END
			systemctl restart flanneld`, cmp.Or(c.network, c.backend), c.backend, strings.ReplaceAll(c.options, "\n", " ")))
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
