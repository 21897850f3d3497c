//go:build machines

package machines_test

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"flanneld/dist/machines"
	"flanneld/lab"
	"flanneld/need"
)

var work = flag.String("work", "../../.cache/machines",
	"`folder` for the machines' systems; what is expensive in it is kept for the next run")

const network = `{"Network": "10.5.0.0/16", "Backend": {"Type": "vxlan"}}`

// story is one cluster and what is known about it. Its steps build on one another.
type story struct {
	*machines.Cluster
	ctx        context.Context
	containers map[*machines.Machine]string // addresses
	before     map[*machines.Machine][]string
	ctl        []string // flannelctl, where it is not a program of the machine
}

func TestThreeMachines(t *testing.T) {
	need.Program(t, "debootstrap", "systemd-nspawn", "busybox")
	s := newStory(t)
	s.containers, s.before = map[*machines.Machine]string{}, map[*machines.Machine][]string{}
	start := time.Now()
	files := build(t)
	t.Logf("%5.1f s  programs and packages", time.Since(start).Seconds())
	s.furnish(t, files, 3)
	for _, step := range []struct {
		name string
		do   func(*testing.T)
	}{
		{"boot and install the package with apt", s.install},
		{"without etcd, docker waits and says for what, and the boot goes on", s.waits},
		{"with etcd, containers on all three reach one another", s.join},
		{"the daemon is confined", s.confined},
		{"the daemon comes back, however it ends", s.comesBack},
		{"the network services leave the device alone", s.unmanaged},
		{"NetworkManager leaves the device alone", s.networkManager},
		{"one machine is rebooted", s.rebootOne},
		{"all machines lose their power", s.rebootAll},
		{"all machines lose their power and come back without etcd, which is late", s.rebootWithoutEtcd},
		{"a second network, of the udp backend, runs beside the first and is restarted without loss", s.secondNetwork},
		{"docker is restarted when the subnet has changed, if asked to be", s.restart},
		{"an upgrade under traffic loses nothing", s.upgrade},
		{"the image runs", s.image},
		{"a removal leaves the traffic, a purge leaves nothing", s.remove},
		{"the packages of the other kind do the same", s.rpm},
	} {
		start := time.Now()
		if !t.Run(step.name, step.do) {
			t.FailNow()
		}
		t.Logf("%5.1f s  %s", time.Since(start).Seconds(), step.name)
	}
}

// newStory returns one that ends after a quarter of an hour.
func newStory(t *testing.T) *story {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	t.Cleanup(cancel)
	return &story{ctx: ctx}
}

// furnish makes machines with files in them, which are not started yet.
func (s *story) furnish(t *testing.T, files map[string]string, count int) {
	t.Helper()
	dir, err := filepath.Abs(*work)
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	base, err := machines.Root(s.ctx, dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%5.1f s  system", time.Since(start).Seconds())
	s.Cluster, err = machines.New(s.ctx, machines.Options{Dir: dir, Base: base, Files: files, Count: count})
	if s.Cluster != nil {
		t.Cleanup(func() { s.cleanUp(t) })
	}
	if err != nil {
		t.Fatal(err)
	}
}

// build returns what is to be on every machine: the packages of two versions, the image, and one of a container; etcd,
// and the units and archives by which a host of dist/cloud runs it.
func build(t *testing.T) (files map[string]string) {
	t.Helper()
	dir := t.TempDir()
	box, err := lab.PodArchive()
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "box.tar"), box, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	files = withEtcd(t, map[string]string{
		"/srv/box.tar":         filepath.Join(dir, "box.tar"),
		"/srv/image.tar":       filepath.Join(dir, "v0.2.0", "flanneld-0.2.0-image.tar"),
		"/opt/flanneld.tar.gz": filepath.Join(dir, "v0.1.0", "flanneld-0.1.0-linux-"+runtime.GOARCH+".tar.gz"),
	})
	program := filepath.Join(dir, "release")
	must(t, "../release", "go", "build", "-o", program, ".")
	for v, kinds := range map[string]string{"v0.1.0": "deb,rpm,archive", "v0.2.0": "deb,rpm,archive,image"} {
		out := filepath.Join(dir, v)
		must(t, ".", program, "-root", "../..", "-o", out, "-arch", runtime.GOARCH, "-version", v, "-kinds", kinds)
		for _, pattern := range []string{"*.deb", "*.rpm", "*.tar.gz", "*.tar"} {
			packages, _ := filepath.Glob(filepath.Join(out, pattern))
			for _, p := range packages {
				files["/srv/"+v+"/"+filepath.Base(p)] = p
			}
		}
	}
	return files
}

// withEtcd adds etcd, and the units by which a host of dist/cloud runs it.
func withEtcd(t *testing.T, files map[string]string) map[string]string {
	t.Helper()
	dir := t.TempDir()
	must(t, "../..", "go", "build", "-o", filepath.Join(dir, "etcd", "etcd"), "./lab/etcd")
	must(t, dir, "tar", "-czf", "etcd.tar.gz", "etcd")
	files["/opt/etcd.tar.gz"] = filepath.Join(dir, "etcd.tar.gz")
	for _, unit := range []string{"etcd.service", "flannel-install.service"} {
		files["/etc/systemd/system/"+unit] = "../cloud/files/" + unit
	}
	return files
}

// cleanUp removes the machines; after a failure it shows first what they have to say.
func (s *story) cleanUp(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), time.Minute)
	defer cancel()
	if t.Failed() {
		for _, m := range s.Machines {
			out, _ := m.Run(ctx, "sh", "-c",
				"systemctl --no-pager status flanneld docker etcd; journalctl --no-pager -b -n 40 -u flanneld -u docker -u "+
					"etcd; ip -br address; cat /run/flannel/subnet.env")
			t.Logf("%s:\n%s", m.Name, out)
		}
	}
	if err := s.Close(ctx); err != nil {
		t.Error(err)
	}
}

func must(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	c := exec.Command(name, args...)
	c.Dir = dir
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// sh runs a script in a machine, which must succeed.
func (s *story) sh(t *testing.T, m *machines.Machine, script string) string {
	t.Helper()
	out, err := m.Run(s.ctx, "sh", "-ec", script)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// each runs a step for all machines at once.
func (s *story) each(t *testing.T, do func(m *machines.Machine) error) {
	t.Helper()
	if err := s.Each(do); err != nil {
		t.Fatal(err)
	}
}

// property returns a property of a unit.
func (s *story) property(m *machines.Machine, unit, name string) string {
	out, _ := m.Run(s.ctx, "systemctl", "show", "--property="+name, "--value", unit)
	return out
}

// settled waits until units are active on a machine.
func (s *story) settled(m *machines.Machine, units ...string) error {
	return machines.Await(s.ctx, 60*time.Second, func() error {
		for _, u := range units {
			if state := s.property(m, u, "ActiveState"); state != "active" {
				return fmt.Errorf("%s: %s is %s: %s", m.Name, u, state, s.property(m, u, "StatusText"))
			}
		}
		return nil
	})
}

// connected waits until every container answers every other, by the addresses that docker gave them.
func (s *story) connected(t *testing.T) {
	t.Helper()
	s.each(t, func(m *machines.Machine) error {
		if err := s.settled(m, "flanneld.service", "docker.service"); err != nil {
			return err
		}
		for other, address := range s.containers {
			if other == m {
				continue
			}
			err := machines.Await(s.ctx, 30*time.Second, func() error {
				_, err := s.ping(m, address, "-c", "1", "-W", "1")
				return err
			})
			if err != nil {
				return err
			}
			// A packet as large as the container may send, not to be cut.
			if out, err := s.ping(m, address, "-c", "3", "-i", "0.05", "-M", "do", "-s", "1422"); err != nil {
				return fmt.Errorf("large packets: %w\n%s", err, out)
			}
		}
		return nil
	})
}

// ping pings from a machine's container, with the machine's own program.
func (s *story) ping(m *machines.Machine, address string, args ...string) (string, error) {
	script := `exec nsenter --target "$(docker inspect --format '{{.State.Pid}}' box)" --net ping ` +
		strings.Join(args, " ") + " " + address
	return m.Run(s.ctx, "sh", "-c", script)
}

// subnets returns what each machine has leased.
func (s *story) subnets(t *testing.T) (all []string) {
	t.Helper()
	for _, m := range s.Machines {
		all = append(all, s.sh(t, m, "grep ^FLANNEL_SUBNET= /run/flannel/subnet.env"))
	}
	return all
}

// prune leaves out of a search what changes by itself.
var prune = func() (script string) {
	for _, dir := range strings.Fields("/proc /sys /dev /run /tmp /srv /opt/etcd /opt/flanneld /etc/etcd /etc/cni " +
		"/etc/docker/key.json /var/log /var/tmp /var/cache /var/lib/docker /var/lib/containerd /var/lib/etcd /var/lib/apt " +
		"/var/lib/dpkg /var/lib/systemd") {
		script += "-path " + dir + " -prune -o "
	}
	return script
}()

// files returns the names of the files of a machine, without those that change by themselves.
func (s *story) files(t *testing.T, m *machines.Machine) []string {
	t.Helper()
	return strings.Fields(s.sh(t, m, "find / -xdev "+prune+" -print"))
}

var lossless = regexp.MustCompile(`(\d+) packets transmitted, (\d+) received, 0% packet loss`)

// without returns what is in a and not in b.
func without(a, b []string) (out []string) {
	for _, x := range a {
		if !slices.Contains(b, x) {
			out = append(out, x)
		}
	}
	return out
}
