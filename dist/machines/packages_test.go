//go:build machines

package machines_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"flanneld/dist/machines"
)

func (s *story) upgrade(t *testing.T) {
	before := s.subnets(t)
	type traffic struct {
		out string
		err error
	}
	from, to := s.Machines[0], s.Machines[1]
	done := make(chan traffic, 1)
	go func() {
		out, err := s.ping(from, s.containers[to], "-q", "-i", "0.01", "-c", "1000")
		done <- traffic{out, err}
	}()
	s.each(t, func(m *machines.Machine) error {
		if _, err := m.Run(s.ctx, "sh", "-c", "apt-get install -q -y --no-install-recommends /srv/v0.2.0/*.deb"); err != nil {
			return err
		}
		if err := s.settled(m, "flanneld.service"); err != nil {
			return err
		}
		return machines.Await(s.ctx, 30*time.Second, func() error {
			out, err := m.Run(s.ctx, "sh", "-c", `readlink /proc/$(systemctl show --property=MainPID --value flanneld)/exe`)
			if err == nil && out != "/usr/bin/flanneld" {
				err = fmt.Errorf("%s: the old program still runs: %s", m.Name, out)
			}
			return err
		})
	})
	if v := s.sh(t, from, "flanneld -version 2>/dev/null"); v != "v0.2.0" {
		t.Errorf("version %s, want v0.2.0", v)
	}
	got := <-done
	if got.err != nil || !lossless.MatchString(got.out) {
		t.Errorf("pings: %v\n%s", got.err, got.out)
	}
	t.Log(lossless.FindString(got.out))
	s.connected(t)
	s.kept(t, before)
}

func (s *story) image(t *testing.T) {
	out := s.sh(t, s.Machines[0], `ctr image import --index-name localhost/flanneld:test /srv/image.tar >/dev/null
		name=$(ctr image list --quiet | grep flanneld | head -n 1)
		ctr run --rm --net-host --cpu-shares=0 "$name" v /usr/bin/flanneld -version 2>/dev/null`)
	if out != "v0.2.0" {
		t.Errorf("the image says %q, want v0.2.0", out)
	}
	// As Kubernetes runs it: privileged, on the host's network, with the folders of the host; and the CNI plugin by an
	// init container.
	m := s.Machines[0]
	s.sh(t, m, `systemctl stop flanneld
		name=$(ctr image list --quiet | grep flanneld | head -n 1)
		endpoints=$(sed -n 's/^FLANNELD_ETCD_ENDPOINTS=//p' /etc/flannel/flanneld.conf)
		mount() { echo --mount "type=bind,src=$1,dst=$2,options=rbind:rw"; }
		mkdir -p /tmp/cni-bin
		ctr run --rm --cpu-shares=0 $(mount /tmp/cni-bin /host/opt/cni/bin) "$name" i /usr/bin/install-cni
		cmp /tmp/cni-bin/flannel /opt/cni/bin/flannel
		ctr run --detach --privileged --net-host --cpu-shares=0 $(mount /run/flannel /run/flannel) $(mount /var/lib/flannel /var/lib/flannel) \
			"$name" f /usr/bin/flanneld -etcd-endpoints="$endpoints" -iface=eth0 -ip-masq`)
	err := machines.Await(s.ctx, 20*time.Second, func() error {
		out, err := m.Run(s.ctx, "flannelctl", "status", "--output=json")
		if err == nil && !strings.Contains(strings.ReplaceAll(out, " ", ""), `"ready":true`) {
			err = fmt.Errorf("status: %s", out)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	s.sh(t, m, "ctr task kill --signal TERM f; while ctr task list | grep -q '^f .*RUNNING'; do sleep 0.1; done; ctr "+
		"container delete f; systemctl start flanneld")
	s.connected(t)
}

func (s *story) remove(t *testing.T) {
	m, other := s.Machines[2], s.Machines[0]
	s.sh(t, m, "apt-get remove -q -y flanneld")
	if out, err := s.ping(other, s.containers[m], "-c", "3", "-i", "0.1", "-W", "1"); err != nil {
		t.Errorf("after the removal: %v\n%s", err, out)
	}
	// Nobody tells systemd anything. docker remembers the address of its bridge, unless it is given one.
	if out := s.sh(t, m, "cat /etc/docker/daemon.json"); strings.Contains(out, "ip-masq") ||
		!strings.Contains(out, "log-level") {
		t.Errorf("daemon.json after the removal: %s", out)
	}
	s.sh(t, m, `docker rm --force box; echo '{"bip": "172.17.0.1/16"}' >/etc/docker/daemon.json; systemctl restart docker`)
	if out := s.sh(t, m, "ip -4 -o address show dev docker0; systemctl cat docker"); !strings.Contains(out,
		" 172.17.0.1/16 ") || strings.Contains(out, "/usr/lib/flannel") {
		t.Errorf("docker after the removal:\n%s", out)
	}
	s.sh(t, m, `cp /etc/flannel/flanneld.conf /srv; rm -r /etc/docker/daemon.json; rm -f /etc/systemd/system/docker.service.d/flannel.conf.removed
		apt-get purge -q -y flanneld flanneld-docker flannel-cni-plugin`)
	if left := without(s.files(t, m), s.before[m]); len(left) > 0 {
		t.Errorf("files that are left: %v", left)
	}
	out := s.sh(t, m, "ip -o link; ip route; nft list tables; ls /run")
	if strings.Contains(out, "flannel") {
		t.Errorf("left in the kernel or in /run:\n%s", out)
	}
	s.sh(t, other, "docker rm --force box; FLANNEL_CLEAN=yes apt-get remove -q -y flanneld")
	if out := s.sh(t, other, "ip -o link; ip route; nft list tables"); strings.Contains(out, "flannel") {
		t.Errorf("left after a removal with FLANNEL_CLEAN=yes:\n%s", out)
	}
	s.sh(t, other, "apt-get install -q -y --no-install-recommends /srv/v0.2.0/flanneld_*.deb")
	if err := s.settled(other, "flanneld.service"); err != nil {
		t.Errorf("installed again: %v", err)
	}
}

// rpm installs the packages of the other kind on the machine that has none any more. Its system is Debian's: what our
// scripts know Debian by is put aside.
func (s *story) rpm(t *testing.T) {
	m, other := s.Machines[2], s.Machines[0]
	helper := s.sh(t, m, "command -v deb-systemd-helper")
	s.sh(t, m, "mv "+helper+" /srv; rpm --initdb")
	rpm := func(args string) { s.sh(t, m, "rpm --force-debian --nodeps --nosignature "+args) }
	rpm("--install /srv/v0.1.0/*.rpm")
	if state := s.property(m, "flanneld.service", "UnitFileState"); state != "enabled" {
		t.Errorf("flanneld.service is %s, want what the presets of the system say: enabled", state)
	}
	s.sh(t, m, "grep -h ^FLANNELD_ /srv/flanneld.conf >>/etc/flannel/flanneld.conf; systemctl start flanneld.service; "+
		"systemctl restart docker.service")
	if err := s.settled(m, "flanneld.service", "docker.service"); err != nil {
		t.Fatal(err)
	}
	subnet := s.sh(t, m, "grep ^FLANNEL_SUBNET= /run/flannel/subnet.env")
	address := netip.MustParsePrefix(strings.TrimPrefix(subnet, "FLANNEL_SUBNET=")).Addr().String()
	reached := func(when string) {
		t.Helper()
		err := machines.Await(s.ctx, 20*time.Second, func() error {
			_, err := other.Run(s.ctx, "ping", "-c", "1", "-W", "1", address)
			return err
		})
		if err != nil {
			t.Errorf("%s: %v", when, err)
		}
	}
	reached("installed")
	before := s.property(m, "flanneld.service", "MainPID")
	rpm("--upgrade /srv/v0.2.0/*.rpm")
	err := machines.Await(s.ctx, 30*time.Second, func() error {
		after, version := s.property(m, "flanneld.service", "MainPID"), s.sh(t, m, "flanneld -version 2>/dev/null")
		if after == before || version != "v0.2.0" {
			return fmt.Errorf("after the upgrade process %s, before it %s, version %s", after, before, version)
		}
		return s.settled(m, "flanneld.service")
	})
	if err != nil {
		t.Error(err)
	}
	reached("upgraded")
	rpm("--erase flanneld flanneld-docker flannel-cni-plugin")
	if state := s.property(m, "flanneld.service", "LoadState"); state != "not-found" {
		t.Errorf("after the removal flanneld.service is %s", state)
	}
	reached("removed")
	s.sh(t, m, "mv /srv/deb-systemd-helper "+helper)
}
