//go:build machines

package machines_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"flanneld/dist/machines"
	"flanneld/need"
)

// TestTheExamplesSetUpMachines has Ansible, the scripts of the Vagrantfile and Docker Compose set up machines on which
// flanneld has never been.
func TestTheExamplesSetUpMachines(t *testing.T) {
	need.Program(t, "debootstrap", "systemd-nspawn", "ansible-playbook", "ruby")
	out := filepath.Join(t.TempDir(), "out")
	must(t, "../release", "go", "run", ".", "-root", "../..", "-o", out, "-arch", runtime.GOARCH, "-version", "v0.1.0",
		"-kinds", "deb,docker")
	deb := filepath.Join(out, "flanneld_0.1.0-1_"+runtime.GOARCH+".deb")
	files := map[string]string{
		"/srv/flanneld.deb":         deb,
		"/srv/image.tar":            filepath.Join(out, "flanneld-0.1.0-docker-"+runtime.GOARCH+".tar"),
		"/srv/compose/compose.yaml": "../examples/compose/compose.yaml",
	}
	for _, c := range []struct {
		name  string
		count int
		do    func(s *story, t *testing.T, deb string)
	}{
		{"Ansible", 3, (*story).ansible}, {"Vagrant", 3, (*story).vagrant}, {"Docker Compose", 2, (*story).compose},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStory(t)
			s.furnish(t, files, c.count)
			s.each(t, func(m *machines.Machine) error {
				if err := m.Start(s.ctx); err != nil {
					return err
				}
				// What the packages need is there, and the machines have no way to a mirror.
				if _, err := m.Run(s.ctx, "sh", "-c", "rm -rf /etc/apt/sources.list*"); err != nil {
					return err
				}
				return s.settled(m, "docker.service")
			})
			c.do(s, t, deb)
		})
	}
}

// joined waits until each machine has all others as peers, and all answer its probes.
func (s *story) joined(t *testing.T, flannelctl func(m *machines.Machine) []string) {
	t.Helper()
	want := fmt.Sprintf("%d peers probed, all answer", len(s.Machines)-1)
	if len(s.Machines) == 2 {
		want = "1 peer probed, all answer"
	}
	s.each(t, func(m *machines.Machine) error {
		return machines.Await(s.ctx, time.Minute, func() error {
			out, err := m.Run(s.ctx, append(flannelctl(m), "status")...)
			if err == nil && !strings.Contains(out, want) {
				err = fmt.Errorf("%s: want %q in\n%s", m.Name, want, out)
			}
			return err
		})
	})
}

// installed is the command of a machine with our package.
func installed(*machines.Machine) []string { return []string{"flannelctl"} }

// ansible runs the playbook twice: the second run finds nothing to change. A program that enters the machine stands in
// for ssh.
func (s *story) ansible(t *testing.T, deb string) {
	dir := t.TempDir()
	inventory := "[overlay]\n"
	for _, m := range s.Machines {
		ssh := filepath.Join(dir, m.Name)
		script := "#!/bin/sh\n# the command is the last argument\nfor command; do :; done\nexec " +
			strings.Join(m.Enter(), " ") + " HOME=/root sh -c \"$command\"\n"
		if err := os.WriteFile(ssh, []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
		inventory += fmt.Sprintf("%s ansible_host=%s ansible_ssh_executable=%s\n", m.Name, m.Addr, ssh)
	}
	hosts := filepath.Join(dir, "hosts.ini")
	if err := os.WriteFile(hosts, []byte(inventory+"[overlay:vars]\nansible_become=false\nansible_pipelining=true\n"+
		"ansible_ssh_transfer_method=piped\nansible_python_interpreter=/usr/bin/python3\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, want := range []*regexp.Regexp{
		regexp.MustCompile(`changed=[1-9]\d* +unreachable=0 +failed=0`), regexp.MustCompile(`changed=0 +unreachable=0 +failed=0`),
	} {
		c := exec.CommandContext(s.ctx, "ansible-playbook", "--inventory", hosts, "--extra-vars", "flanneld_package="+deb,
			"site.yml")
		c.Dir = "../examples/ansible"
		c.Env = append(os.Environ(), "HOME="+dir, "ANSIBLE_NOCOWS=1", "LC_ALL=C.UTF-8")
		out, err := c.CombinedOutput()
		if n := len(want.FindAll(out, -1)); err != nil || n != len(s.Machines) {
			t.Fatalf("%d machines as wanted (%s): %v\n%s", n, want, err, out)
		}
	}
	s.joined(t, installed)
	if hosts := s.sh(t, s.Machines[0], "flannelctl hosts list"); strings.Count(hosts, "\n") != len(s.Machines) {
		t.Errorf("hosts that have joined: %s", hosts)
	}
}

// recorder reads a Vagrantfile without Vagrant, and prints what its machines are.
const recorder = `require "json"
class Recorder
  attr_reader :facts
  def initialize = @facts = { provisions: [] }
  def vm = self
  def define(name)
    machine = Recorder.new
    yield machine
    MACHINES << machine.facts.merge(name: name)
  end
  def network(kind, ip:) = @facts[:ip] = ip
  def provision(kind, **how) = @facts[:provisions] << how
  def method_missing(*) = nil
end
MACHINES = []
module Vagrant
  def self.configure(_version) = yield(Recorder.new)
end
load "Vagrantfile"
puts MACHINES.to_json
`

// vagrant gives each machine the second address of its counterpart in the Vagrantfile, and runs its provisioners.
func (s *story) vagrant(t *testing.T, deb string) {
	c := exec.CommandContext(s.ctx, "ruby", "-e", recorder)
	c.Dir, c.Env = "../examples/vagrant", append(os.Environ(), "PACKAGE="+deb)
	out, err := c.Output()
	if err != nil {
		t.Fatal(err)
	}
	var described []struct {
		Name, IP   string
		Provisions []struct{ Source, Destination, Inline string }
	}
	if err := json.Unmarshal(out, &described); err != nil || len(described) != len(s.Machines) {
		t.Fatalf("%d machines: %v\n%s", len(described), err, out)
	}
	for i, d := range described { // Vagrant starts one after the other, too
		m := s.Machines[i]
		s.sh(t, m, "ip address add "+d.IP+"/24 dev eth0")
		if len(d.Provisions) != 2 || d.Provisions[0].Source != deb {
			t.Fatalf("%s has the provisioners %+v, want the package and a script", d.Name, d.Provisions)
		}
		s.sh(t, m, "cp /srv/flanneld.deb "+d.Provisions[0].Destination)
		if out, err := m.Run(s.ctx, "sh", "-c", d.Provisions[1].Inline); err != nil {
			t.Fatalf("%s: %v\n%s", d.Name, err, out)
		}
	}
	s.joined(t, installed)
}

// compose starts the containers as docs/examples.md says.
func (s *story) compose(t *testing.T, _ string) {
	first, other := s.Machines[0], s.Machines[1]
	common := fmt.Sprintf("FIRST=%s\nFLANNELD_IMAGE=localhost/flanneld:0.1.0\n", first.Addr)
	up := func(m *machines.Machine, env string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(m.Root(), "srv/compose/.env"), []byte(common+env), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, end := range []string{"-s", "-d"} {
			s.sh(t, m, "iptables -I DOCKER-USER "+end+" 10.5.0.0/16 -j ACCEPT")
		}
		s.sh(t, m, "docker load --quiet --input /srv/image.tar; cd /srv/compose; docker-compose up --detach")
	}
	flannelctl := func(m *machines.Machine) []string {
		service := map[*machines.Machine]string{first: "first", other: "other"}[m]
		return []string{"env", "--chdir=/srv/compose", "docker-compose", "exec", "-T", service, "flannelctl"}
	}
	up(first, "COMPOSE_PROFILES=first\n")
	token := ""
	err := machines.Await(s.ctx, 30*time.Second, func() error {
		out, err := first.Run(s.ctx, append(flannelctl(first), "token", "create")...)
		_, token, _ = strings.Cut(out, "-join ")
		token, _, _ = strings.Cut(token, "@")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	up(other, "COMPOSE_PROFILES=other\nTOKEN="+token+"\n")
	s.joined(t, flannelctl)
}
