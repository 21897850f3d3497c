//go:build machines

package machines_test

import (
	"cmp"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"flanneld/cni-plugin/plugintest"
	"flanneld/dist/machines"
	"flanneld/hack/blocks"
)

// preparation is what the machines of this test have that the documents take for granted: questions of apt are
// answered, what cannot be fetched is not wanted, the editor adds a line, a runtime has made its folders.
const preparation = `printf 'APT::Get::Assume-Yes "true";\nAPT::Install-Recommends "false";\n' >/etc/apt/apt.conf.d/90unattended
printf '#!/bin/sh\nsed -i "/^### Anything/a [Service]\\nNice=1" "$1"\n' >/usr/local/bin/editor-of-a-test
chmod +x /usr/local/bin/editor-of-a-test
mkdir -p /var/lib/cni/flannel /var/lib/cni/networks/flannel`

// usual brings a machine into the state that a command finds, whatever the one before has done.
const usual = `dpkg-query -W -f '${Status}' flanneld-docker 2>/dev/null | grep -q 'ok installed' || apt-get install ./flanneld_*.deb ./flannel-cni-plugin_*.deb ./flanneld-docker_*.deb
systemctl disable --now flanneld@blue 2>/dev/null || true
rm -rf /etc/systemd/system/flanneld.service.d /etc/systemd/system/docker.service.d /etc/flannel/blue.conf
/usr/lib/flannel/flannel-docker daemon-json -remove
docker swarm leave --force >/dev/null 2>&1 || true
sed -i '/^FLANNELD_/d' /etc/flannel/flanneld.conf
echo FLANNELD_ETCD_ENDPOINTS=http://192.0.2.11:2379,http://192.0.2.12:2379 >>/etc/flannel/flanneld.conf
systemctl daemon-reload
systemctl enable flanneld 2>/dev/null
systemctl restart flanneld docker`

// TestCommandsOfTheDocumentsRunOnAMachine runs the commands of the documents that need systemd, packages or docker, as
// they stand, beside the packages of a release: the blocks first, then the commands in sentences, and those that remove
// packages last. On the other machine a flannel is swapped.
func TestCommandsOfTheDocumentsRunOnAMachine(t *testing.T) {
	s := newStory(t)
	files := build(t)
	files["/usr/local/bin/flannel"] = built(t, "../../lab/flannel", "github.com/flannel-io/flannel", "1")
	files["/usr/bin/etcdctl"] = built(t, "../../lab/etcdctl", "go.etcd.io/etcd/etcdctl/v3", "0")
	for _, plugin := range []string{"bridge", "host-local"} {
		files["/opt/cni/bin/"+plugin] = filepath.Join(plugintest.Reference(t), plugin)
	}
	s.furnish(t, files, 2)
	s.each(t, func(m *machines.Machine) error { return m.Start(s.ctx) })
	for _, m := range s.Machines {
		s.sh(t, m, preparation)
	}
	s.migrated(t, s.Machines[1])
	m := s.Machines[0]
	s.documented(t, m, blocks.Machine, 20, func() {
		s.sh(t, m, "cd /srv/v0.2.0\n"+usual)
		if err := s.settled(m, "flanneld.service", "docker.service"); err != nil {
			t.Fatal(err)
		}
	})
}

// documented runs the commands of a place on a machine, each after a preparation.
func (s *story) documented(t *testing.T, m *machines.Machine, place blocks.Place, atLeast int, before func()) {
	t.Helper()
	commands, err := blocks.At("../..", place)
	if err != nil {
		t.Fatal(err)
	}
	slices.SortStableFunc(commands, func(a, b blocks.Command) int { return cmp.Compare(turn(a), turn(b)) })
	for i, c := range commands {
		if i > 0 { // the first finds a machine without our packages
			before()
		}
		start := time.Now()
		out, err := s.atTerminal(m, c.Run)
		if err != nil {
			t.Errorf("%s:\n%s\n%v\n%s", c.File, c.Text, err, out)
		}
		t.Logf("%5.1f s  %s: %s", time.Since(start).Seconds(), c.File, strings.TrimSpace(c.Text))
	}
	if len(commands) < atLeast {
		t.Errorf("%d commands of %s, want those of all documents", len(commands), place)
	}
}

// turn says when a command has its turn: the installation first, the removal last.
func turn(c blocks.Command) int {
	switch packages := c.File == "docs/packages.md"; {
	case packages && !c.Inline:
		return 0
	case packages:
		return 3
	case c.Inline:
		return 2
	}
	return 1
}

// atTerminal runs a script in the folder of a release, as a person does: some commands want a terminal.
func (s *story) atTerminal(m *machines.Machine, script string) (string, error) {
	file := "/tmp/commands"
	if err := os.WriteFile(filepath.Join(m.Root(), "root/commands"), []byte("cd /srv/v0.2.0\n"+script),
		0o644); err != nil {
		return "", err
	}
	return m.Run(s.ctx, "env", "TERM=dumb", "SYSTEMD_PAGER=cat", "SYSTEMD_EDITOR=/usr/local/bin/editor-of-a-test",
		"script", "-qec", "sh -eu /root/commands", file)
}

// built builds a program of others from the module that holds its version.
func built(t *testing.T, module, pkg, cgo string) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "program")
	c := exec.Command("go", "build", "-o", program, pkg)
	c.Dir, c.Env = module, append(os.Environ(), "CGO_ENABLED="+cgo)
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", pkg, err, out)
	}
	return program
}

// flannelUnit is the service of a host before its migration.
const flannelUnit = `[Unit]
After=network-online.target

[Service]
Type=notify
ExecStart=/usr/local/bin/flannel -etcd-endpoints=http://127.0.0.1:2379 -iface=eth0 -ip-masq
Restart=always

[Install]
WantedBy=multi-user.target
`

// migrated runs what docs/migration.md says on a machine that runs flannel, which keeps its subnet.
func (s *story) migrated(t *testing.T, m *machines.Machine) {
	t.Helper()
	if err := m.Write("/etc/systemd/system/flannel.service", flannelUnit, 0o644); err != nil {
		t.Fatal(err)
	}
	// The members of the store have just been started: they elect a leader first.
	s.sh(t, m, "timeout 60 sh -c 'until etcdctl endpoint health; do :; done'")
	s.sh(t, m, "etcdctl put /coreos.com/network/config '"+network+
		"'; systemctl daemon-reload; systemctl enable --now flannel")
	subnet := "grep ^FLANNEL_SUBNET= /run/flannel/subnet.env"
	before := s.sh(t, m, subnet)
	s.documented(t, m, blocks.Flannel, 4, func() {
		if after := s.sh(t, m, subnet); after != before {
			t.Errorf("%s, want %s as flannel had it", after, before)
		}
	})
	if state := s.property(m, "flannel.service", "ActiveState"); state != "active" {
		t.Errorf("flannel is %s after the way back", state)
	}
	if after := s.sh(t, m, subnet); after != before {
		t.Errorf("%s, want %s as flannel had it", after, before)
	}
}
