//go:build machines

package machines_test

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"flanneld/dist/machines"
	"flanneld/lab"
)

func (s *story) install(t *testing.T) {
	endpoints := ""
	for _, m := range s.Machines {
		s.etcd(t, m, false)
		endpoints += ",http://" + m.Addr.String() + ":2379"
	}
	s.each(t, func(m *machines.Machine) error { return m.Start(s.ctx) })
	for _, m := range s.Machines {
		s.before[m] = s.files(t, m)
	}
	s.each(t, func(m *machines.Machine) error {
		if _, err := m.Run(s.ctx, "sh", "-c", "apt-get install -q -y --no-install-recommends /srv/v0.1.0/*.deb"); err != nil {
			return err
		}
		config := fmt.Sprintf("FLANNELD_ETCD_ENDPOINTS=%s\nFLANNELD_IFACE=eth0\nFLANNELD_IP_MASQ=true\n"+
			"FLANNELD_NETWORK_CONFIG='%s'\n", endpoints[1:], network)
		_, err := m.Run(s.ctx, "sh", "-ec", "cat >>/etc/flannel/flanneld.conf <<'END'\n"+config+"END\n")
		return err
	})
	// The last machine tells docker by its configuration file instead.
	last := s.Machines[len(s.Machines)-1]
	s.sh(t, last, `mkdir -p /etc/systemd/system/docker.service.d /etc/docker
		cp /usr/share/flannel/docker/flannel.conf /etc/systemd/system/docker.service.d/
		echo '{"log-level": "warn"}' >/etc/docker/daemon.json; systemctl daemon-reload`)
	s.each(t, func(m *machines.Machine) error {
		if state := s.property(m, "flanneld.service", "UnitFileState"); state != "enabled" {
			return fmt.Errorf("%s: flanneld.service is %s after the installation", m.Name, state)
		}
		_, err := m.Run(s.ctx, "systemctl", "restart", "--no-block", "flanneld.service", "docker.service")
		return err
	})
}

// etcd says whether a machine's etcd starts when it boots.
func (s *story) etcd(t *testing.T, m *machines.Machine, on bool) {
	t.Helper()
	file := filepath.Join(m.Root(), machines.EtcdSwitch)
	err := os.Remove(file)
	if on {
		err = os.WriteFile(file, nil, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (s *story) waits(t *testing.T) {
	// After a reboot, so that it is the boot that must not wait.
	s.each(t, func(m *machines.Machine) error {
		m.Kill()
		return m.Start(s.ctx)
	})
	s.each(t, func(m *machines.Machine) error {
		if err := s.settled(m, "multi-user.target"); err != nil {
			return err
		}
		return machines.Await(s.ctx, 30*time.Second, func() error {
			for unit, want := range map[string]string{"docker.service": "flanneld.service is activating: not ready: store " +
				"unreachable since ", "flanneld.service": "not ready"} {
				state, status := s.property(m, unit, "ActiveState"), s.property(m, unit, "StatusText")
				if state != "activating" || !strings.Contains(status, want) {
					return fmt.Errorf("%s: %s is %s with status %q; want it activating, and %q", m.Name, unit, state, status, want)
				}
			}
			return nil
		})
	})
	t.Logf("docker: %s", s.property(s.Machines[0], "docker.service", "StatusText"))
}

func (s *story) join(t *testing.T) {
	s.each(t, func(m *machines.Machine) error {
		if err := os.WriteFile(filepath.Join(m.Root(), machines.EtcdSwitch), nil, 0o644); err != nil {
			return err
		}
		if _, err := m.Run(s.ctx, "systemctl", "start", "etcd.service"); err != nil {
			return err
		}
		if err := s.settled(m, "flanneld.service", "docker.service"); err != nil {
			return err
		}
		_, err := m.Run(s.ctx, "sh", "-ec",
			"docker load --quiet --input /srv/box.tar; docker run --detach --restart=always --stop-timeout=1 --name=box "+
				lab.PodImage)
		return err
	})
	for _, m := range s.Machines {
		address := s.sh(t, m, "docker inspect --format '{{.NetworkSettings.IPAddress}}' box")
		subnet := netip.MustParsePrefix(strings.TrimPrefix(s.sh(t, m, "grep ^FLANNEL_SUBNET= /run/flannel/subnet.env"),
			"FLANNEL_SUBNET="))
		if a, err := netip.ParseAddr(address); err != nil || !subnet.Contains(a) {
			t.Errorf("%s: container has %q, want an address in %s", m.Name, address, subnet)
		}
		if mtu := s.sh(t, m, "docker exec box /bin/busybox cat /sys/class/net/eth0/mtu"); mtu != "1450" {
			t.Errorf("%s: MTU of the container is %s, want 1450", m.Name, mtu)
		}
		s.containers[m] = address
	}
	s.connected(t)
	if text := s.sh(t, s.Machines[2], "cat /etc/docker/daemon.json"); !strings.Contains(text, `"log-level": "warn"`) ||
		!strings.Contains(text, `"ip-masq": false`) {
		t.Errorf("daemon.json: %s", text)
	}
}

func (s *story) confined(t *testing.T) {
	m := s.Machines[0]
	pid := s.property(m, "flanneld.service", "MainPID")
	status := s.sh(t, m, "cat /proc/"+pid+"/status")
	// CAP_NET_ADMIN is 12, CAP_NET_RAW 13.
	for _, want := range []string{"CapEff:\t0000000000003000", "CapBnd:\t0000000000003000", "NoNewPrivs:\t1",
		"Seccomp:\t2"} {
		if !strings.Contains(status, want) {
			t.Errorf("no %q in\n%s", want, status)
		}
	}
	if out, err := m.Run(s.ctx, "nsenter", "--target", pid, "--mount", "touch", "/usr/x", "/etc/x"); err == nil {
		t.Errorf("the daemon's view of the system is not read-only: %s", out)
	}
	if got := s.sh(t, m, "cat /proc/sys/net/ipv6/conf/flannel.1/accept_ra"); got != "0" {
		t.Errorf("accept_ra of the device: %s, want 0", got)
	}
	if out := s.sh(t, m, "systemd-analyze --no-pager --man=no verify flanneld.service flanneld@blue.service "+
		"docker.service flannel-docker-restart.path 2>&1"); strings.Contains(out, "flannel") {
		t.Errorf("systemd-analyze verify: %s", out)
	}
	s.sh(t, m, "systemd-analyze --no-pager security --threshold=25 flanneld.service >/dev/null")
	// Who changes something of ours is named, which a daemon that does not see other processes could not do.
	s.sh(t, m, `set -- $(ip route show dev flannel.1 proto 70); (echo route delete "$1"; sleep 2) | ip -batch -`)
	if log := s.sh(t, m, "journalctl --no-pager -u flanneld -g 'drift found'"); !strings.Contains(log, "by=\"ip (pid ") {
		t.Errorf("the log does not say who has deleted the route: %s", log)
	}
	for _, m := range s.Machines {
		log := s.sh(t, m, "journalctl --no-pager -u flanneld")
		for line := range strings.Lines(strings.ToLower(log)) {
			if strings.Contains(line, "permi") || strings.Contains(line, "read-only") || strings.Contains(line, "level=error") {
				t.Errorf("%s: %s", m.Name, line)
			}
		}
	}
}

func (s *story) unmanaged(t *testing.T) {
	for _, m := range s.Machines {
		if out := s.sh(t, m, "networkctl --no-pager --no-legend list flannel.1"); !strings.HasSuffix(out, "unmanaged") {
			t.Errorf("%s: systemd-networkd: %q, want it unmanaged", m.Name, out)
		}
		before := s.sh(t, m, "cat /sys/class/net/flannel.1/address")
		if out := s.sh(t, m, "udevadm test-builtin net_setup_link /sys/class/net/flannel.1 2>&1"); !strings.Contains(out,
			"80-flannel.link is applied") {
			t.Errorf("%s: udev: %s, want 80-flannel.link to be applied", m.Name, out)
		}
		if after := s.sh(t, m, "cat /sys/class/net/flannel.1/address"); after != before {
			t.Errorf("%s: udev has changed the hardware address from %s to %s", m.Name, before, after)
		}
		if got := s.sh(t, m, "sysctl -n net.ipv4.ip_forward"); got != "1" {
			t.Errorf("%s: ip_forward is %s, want 1", m.Name, got)
		}
	}
}

// networkManager runs the real one on a machine, with our file and without it. Not the other way round: it remembers
// over a restart what it has managed.
func (s *story) networkManager(t *testing.T) {
	m := s.Machines[0]
	const file = "/usr/lib/NetworkManager/conf.d/flannel.conf"
	s.sh(t, m, "systemctl start NetworkManager")
	managed := func(want string) {
		t.Helper()
		err := machines.Await(s.ctx, 20*time.Second, func() error {
			got, err := m.Run(s.ctx, "nmcli", "--get-values", "GENERAL.NM-MANAGED", "device", "show", "flannel.1")
			if err == nil && got != want {
				err = fmt.Errorf("managed by NetworkManager: %s, want %s", got, want)
			}
			return err
		})
		if err != nil {
			devices, _ := m.Run(s.ctx, "nmcli", "device")
			t.Errorf("%v\n%s", err, devices)
		}
	}
	managed("no")
	s.connected(t)
	s.sh(t, m, "mv "+file+" /tmp/flannel.conf; systemctl restart NetworkManager")
	managed("yes")
	s.sh(t, m, "systemctl stop NetworkManager; mv /tmp/flannel.conf "+file)
}

// kept checks that every machine has the subnet that it had.
func (s *story) kept(t *testing.T, before []string) {
	t.Helper()
	if after := s.subnets(t); !slices.Equal(before, after) {
		t.Errorf("subnets: %v, want %v as before", after, before)
	}
}

// rebootOne reboots in good order; the other steps take the power away.
func (s *story) rebootOne(t *testing.T) {
	before, m := s.subnets(t), s.Machines[1]
	if err := errors.Join(m.PowerOff(s.ctx), m.Start(s.ctx)); err != nil {
		t.Fatal(err)
	}
	s.connected(t)
	s.kept(t, before)
}

func (s *story) rebootAll(t *testing.T) {
	before := s.subnets(t)
	s.each(t, func(m *machines.Machine) error {
		m.Kill()
		return m.Start(s.ctx)
	})
	s.connected(t)
	s.kept(t, before)
}

func (s *story) rebootWithoutEtcd(t *testing.T) {
	before := s.subnets(t)
	s.each(t, func(m *machines.Machine) error {
		m.Kill()
		if err := os.Remove(filepath.Join(m.Root(), machines.EtcdSwitch)); err != nil {
			return err
		}
		return m.Start(s.ctx)
	})
	s.connected(t)
	s.kept(t, before)
	for _, m := range s.Machines {
		if state := s.property(m, "etcd.service", "ActiveState"); state != "inactive" {
			t.Errorf("%s: etcd is %s, want it absent", m.Name, state)
		}
	}
	t.Logf("flanneld: %s", s.property(s.Machines[0], "flanneld.service", "StatusText"))
	s.each(t, func(m *machines.Machine) error {
		if err := os.WriteFile(filepath.Join(m.Root(), machines.EtcdSwitch), nil, 0o644); err != nil {
			return err
		}
		if _, err := m.Run(s.ctx, "systemctl", "start", "etcd.service"); err != nil {
			return err
		}
		return machines.Await(s.ctx, 60*time.Second, func() error {
			if status := s.property(m, "flanneld.service", "StatusText"); !strings.HasSuffix(status, "2 peers") {
				return fmt.Errorf("%s: flanneld: %s; want nothing but 2 peers", m.Name, status)
			}
			return nil
		})
	})
	s.connected(t)
	s.kept(t, before)
}

// secondNetwork uses the udp backend: its device must be allowed to the confined daemon, and outlive it in the store of
// systemd.
func (s *story) secondNetwork(t *testing.T) {
	both := s.Machines[:2]
	var addresses []string
	for _, m := range both {
		s.sh(t, m, `grep -E '^FLANNELD_(ETCD_ENDPOINTS|IFACE)=' /etc/flannel/flanneld.conf >/etc/flannel/blue.conf
			echo "FLANNELD_NETWORK_CONFIG='{\"Network\": \"10.6.0.0/16\", \"Backend\": {\"Type\": \"udp\"}}'" >>/etc/flannel/blue.conf
			systemctl start flanneld@blue.service`)
		if err := s.settled(m, "flanneld.service", "flanneld@blue.service"); err != nil {
			t.Fatal(err)
		}
		subnet := strings.TrimPrefix(s.sh(t, m, "grep ^FLANNEL_SUBNET= /run/flannel/networks/blue.env"), "FLANNEL_SUBNET=")
		s.sh(t, m, "ip address add "+subnet+" dev lo")
		addresses = append(addresses, netip.MustParsePrefix(subnet).Addr().String())
	}
	from := both[0]
	err := machines.Await(s.ctx, 10*time.Second, func() error {
		_, err := from.Run(s.ctx, "ping", "-c", "1", "-W", "1", "-I", addresses[0], addresses[1])
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan string, 1)
	go func() {
		out, _ := from.Run(s.ctx, "ping", "-q", "-i", "0.01", "-c", "300", "-W", "3", "-I", addresses[0], addresses[1])
		done <- out
	}()
	s.sh(t, from, "systemctl restart flanneld@blue.service")
	if out := <-done; !lossless.MatchString(out) {
		t.Errorf("pings over a restart: %s", out)
	}
	for _, m := range both {
		s.sh(t, m, "systemctl stop flanneld@blue.service; rm /etc/flannel/blue.conf; test -e /run/flannel/subnet.env")
		if s.property(m, "flanneld.service", "ActiveState") != "active" {
			t.Errorf("%s: the end of the second network has ended the first", m.Name)
		}
	}
}

func (s *story) restart(t *testing.T) {
	m := s.Machines[1]
	s.sh(t, m, "systemctl start flannel-docker-restart.path")
	rewrite := func() string {
		s.sh(t, m, "cat /run/flannel/subnet.env >/tmp/copy; cat /tmp/copy >/run/flannel/subnet.env")
		// The unit that the path starts has ended when it has a result for this run.
		s.sh(t, m, "systemctl start flannel-docker-restart.service")
		return s.property(m, "docker.service", "MainPID")
	}
	before := s.property(m, "docker.service", "MainPID")
	if after := rewrite(); after != before {
		t.Errorf("docker was restarted although the subnet is the same: pid %s, before %s", after, before)
	}
	s.sh(t, m, "echo FLANNEL_SUBNET=10.5.1.1/24 >/run/flannel/docker.env")
	if after := rewrite(); after == before {
		t.Error("docker was not restarted although the subnet is another one")
	}
	s.connected(t)
	s.sh(t, m, "systemctl stop flannel-docker-restart.path")
}
