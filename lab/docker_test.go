//go:build docker

package lab_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"flanneld/lab"
)

// newDocker builds dockerd of lab/docker, for some minutes, and returns the folder of its programs, which are kept for
// the next run.
var newDocker = sync.OnceValues(func() (string, error) {
	list := exec.Command("go", "list", "-m", "-f", "{{.Version}}", "github.com/moby/moby/v2")
	list.Dir = "docker"
	version, err := list.Output()
	if err != nil {
		return "", fmt.Errorf("version of docker: %w", err)
	}
	cache, err := filepath.Abs("../.cache")
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "docker-"+strings.TrimSpace(string(version)))
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	made, err := os.MkdirTemp(cache, "docker-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(made)
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", made,
		"github.com/moby/moby/v2/cmd/dockerd", "github.com/moby/moby/v2/cmd/docker-proxy")
	build.Dir, build.Env = "docker", append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build docker: %w\n%s", err, out)
	}
	return dir, os.Rename(made, dir)
})

// newDockers is a cluster whose hosts run docker 29 each.
type newDockers struct {
	*cluster
	hosts   []*lab.Host
	dockers []*docker
	addrs   []netip.Addr // of a container each
}

func startNewDockers(t *testing.T, more ...string) *newDockers {
	t.Helper()
	programs := must[string](t)(newDocker())
	s := &newDockers{cluster: newCluster(t)}
	ctx, cancel := context.WithTimeout(context.Background(), 3*patience)
	t.Cleanup(cancel)
	s.ctx = ctx
	e := s.etcd(vxlanConfig)
	s.hosts = s.cluster.hosts(2)
	s.startAll(s.hosts, e, "-ip-masq")
	for _, h := range s.hosts {
		d := s.docker(h, "nft")
		d.more = append([]string{"--feature=time-namespaces=false"}, more...) // runc of Debian 12 knows none
		for _, program := range []string{"dockerd", "docker-proxy"} {
			s.ok(os.Symlink(filepath.Join(programs, program), filepath.Join(d.dir, "bin", program)))
		}
		s.dockers = append(s.dockers, d)
		t.Cleanup(func() {
			if d.run != nil {
				d.end()
			}
		})
	}
	return s
}

// containers starts docker on all hosts, with options for mk-docker-opts.sh, and a container with a published port.
func (s *newDockers) containers(options ...string) {
	s.t.Helper()
	s.addrs = nil
	for _, d := range s.dockers {
		d.start(options...)
		d.load()
		must[string](s.t)(d.ask("run", "-d", "--name", "c1", lab.PodImage))
		out := must[string](s.t)(d.ask("inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}",
			"c1"))
		addr := must[netip.Addr](s.t)(netip.ParseAddr(out))
		if own := s.subnets(d.host)[0]; !own.Contains(addr) {
			s.t.Fatalf("%s: the container has %s, which is not in %s", d.host.Name(), addr, own)
		}
		s.addrs = append(s.addrs, addr)
	}
}

func (s *newDockers) stop() {
	s.t.Helper()
	for _, d := range s.dockers {
		must[string](s.t)(d.ask("rm", "-f", "c1"))
		d.stop()
		d.run = nil
	}
}

// pings has each container ping that of the other host once.
func (s *newDockers) pings() error {
	var errs []error
	for i, d := range s.dockers {
		_, err := d.ask("exec", "c1", "/bin/busybox", "ping", "-c", "1", "-W", "2", s.addrs[1-i].String())
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// routing returns what the doctor finds out about docker's rules on a host.
func (s *newDockers) routing(h *lab.Host) finding {
	s.t.Helper()
	for _, f := range s.doctor(h) {
		if f.Check == "docker-routing" {
			return f
		}
	}
	s.t.Fatal("the doctor does not check docker's rules")
	return finding{}
}

// Slow: four dockerd are started, load an image and start containers; the first run builds docker.
func TestContainersOfANewDockerReachEachOther(t *testing.T) {
	t.Run("with its rules of iptables", func(t *testing.T) {
		s := startNewDockers(t)
		// As without mk-docker-opts.sh: it leaves the option out where docker's own file has it.
		file := filepath.Join(t.TempDir(), "daemon.json")
		s.ok(os.WriteFile(file, []byte(`{"allow-direct-routing": false}`), 0o644))
		s.containers("-j", file)
		if s.pings() == nil {
			t.Error("docker lets packets of other hosts through by itself: the test shows nothing")
		}
		for i, h := range s.hosts {
			if f := s.routing(h); f.Result != "failure" || !strings.Contains(f.Evidence, s.addrs[i].String()) ||
				!strings.Contains(f.Fix, "allow-direct-routing") {
				t.Errorf("doctor: %+v, want that docker drops packets to %s", f, s.addrs[i])
			}
		}
		s.stop()
		s.containers()
		s.await(s.pings)
		for _, h := range s.hosts {
			if f := s.routing(h); f.Result != "ok" {
				t.Errorf("doctor with direct routing: %+v", f)
			}
		}
	})
	t.Run("with its rules of nftables", func(t *testing.T) {
		s := startNewDockers(t, "--firewall-backend=nftables", "--bridge-accept-fwmark=0x200/0x200")
		s.containers()
		if s.pings() == nil {
			t.Error("docker's rules accept packets without a mark: the table of docs/docker.md is not needed any more")
		}
		for _, h := range s.hosts {
			table := filepath.Join(h.Dir(), "mark.nft")
			s.ok(os.WriteFile(table, []byte(block(t, "docker.md", "docker 28 and later", "nft")), 0o644))
			s.ok(h.Run("nft -f " + table))
		}
		s.await(s.pings)
	})
}
