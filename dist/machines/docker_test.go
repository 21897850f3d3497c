//go:build machines

package machines_test

import (
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"flanneld/dist/machines"
	"flanneld/need"
)

// contained is a daemon in a container of docker: it has two capabilities and the folders that it writes to.
const contained = `docker rm --force flanneld >/dev/null 2>&1 || true
	docker run --rm --network host --cap-drop ALL --cap-add NET_ADMIN --entrypoint /usr/bin/flannelctl localhost/flanneld:0.1.0 cleanup >/dev/null
	rm -rf /var/lib/flannel/* /run/flannel/*
	iptables -C DOCKER-USER -s 10.5.0.0/16 -j ACCEPT 2>/dev/null || iptables -I DOCKER-USER -s 10.5.0.0/16 -j ACCEPT
	iptables -C DOCKER-USER -d 10.5.0.0/16 -j ACCEPT 2>/dev/null || iptables -I DOCKER-USER -d 10.5.0.0/16 -j ACCEPT
	docker run --detach --name flanneld --network host --cap-drop ALL --cap-add NET_ADMIN --cap-add NET_RAW \
		--security-opt no-new-privileges --read-only --volume /run/flannel:/run/flannel --volume /var/lib/flannel:/var/lib/flannel \
		%s localhost/flanneld:0.1.0 -etcd-endpoints=http://192.0.2.11:2379,http://192.0.2.12:2379 -etcd-prefix=/coreos.com/network/%s \
		-iface=eth0 -ip-masq -iptables-forward-rules=false '-network-config={"Network": "10.5.0.0/16", "Backend": {"Type": "%s"%s}}'`

// TestDockerRunsTheImageWithoutPrivileges uses docker 20 of Debian, which loads no OCI archives: the image is in its
// own format.
func TestDockerRunsTheImageWithoutPrivileges(t *testing.T) {
	need.Program(t, "debootstrap", "systemd-nspawn")
	out := filepath.Join(t.TempDir(), "out")
	must(t, "../release", "go", "run", ".", "-root", "../..", "-o", out, "-arch", runtime.GOARCH, "-version", "v0.1.0",
		"-kinds", "docker,archive")
	files := withEtcd(t, map[string]string{
		"/srv/image.tar":       filepath.Join(out, "flanneld-0.1.0-docker-"+runtime.GOARCH+".tar"),
		"/opt/flanneld.tar.gz": filepath.Join(out, "flanneld-0.1.0-linux-"+runtime.GOARCH+".tar.gz"),
	})
	s := newStory(t)
	s.ctl = []string{"docker", "exec", "flanneld", "flannelctl"}
	s.furnish(t, files, 2)
	s.each(t, func(m *machines.Machine) error { return m.Start(s.ctx) })
	for _, m := range s.Machines {
		if err := s.settled(m, "docker.service", "etcd.service"); err != nil {
			t.Fatal(err)
		}
		t.Logf("docker %s", s.sh(t, m, "docker version --format '{{.Server.Version}}'"))
		if got, want := s.sh(t, m, "docker load --input /srv/image.tar"),
			"Loaded image: localhost/flanneld:0.1.0"; !strings.Contains(got, want) {
			t.Errorf("docker says %q, want %q", got, want)
		}
		s.sh(t, m, "mkdir -p /run/flannel /var/lib/flannel")
	}
	if got := s.sh(t, s.Machines[0], "docker run --rm localhost/flanneld:0.1.0 -version 2>/dev/null"); got != "v0.1.0" {
		t.Errorf("the image says %q, want v0.1.0", got)
	}
	for _, c := range carriers {
		switch c.backend {
		case "extension": // the image has no programs that its commands could be
		case "udp", "wireguard":
			t.Run(c.backend+" with the device", func(t *testing.T) { s.inContainers(t, c, "--device /dev/net/tun") })
		default:
			t.Run(c.backend, func(t *testing.T) { s.inContainers(t, c, "") })
		}
	}
	t.Run("udp without the device says so", s.withoutDevice)
}

// inContainers runs a backend on all machines, which then reach one another.
func (s *story) inContainers(t *testing.T, c carrier, flags string) {
	if c.kind != "" && !s.knows(c.kind) {
		t.Skipf("the kernel has no %s", c.kind)
	}
	for _, m := range s.Machines {
		options := strings.ReplaceAll(c.options, "\n", " ")
		s.sh(t, m, fmt.Sprintf(contained, flags, c.backend, c.backend, options))
	}
	var addresses []string
	for _, m := range s.Machines {
		err := machines.Await(s.ctx, 30*time.Second, func() error {
			_, err := s.flannelctl(m, "status")
			return err
		})
		if err != nil {
			t.Fatalf("%s: %v\n%s", m.Name, err, s.sh(t, m, "docker logs flanneld 2>&1"))
		}
		addresses = append(addresses, s.onLoopback(t, m))
	}
	if err := s.answered(addresses); err != nil {
		t.Error(err)
	}
	for _, m := range s.Machines {
		log := s.sh(t, m, "docker logs flanneld 2>&1")
		if want := "kernel settings cannot be changed"; !strings.Contains(log, want) {
			t.Errorf("%s: the log does not say %q, as /proc/sys is read-only:\n%s", m.Name, want, log)
		}
		if strings.Contains(log, "level=ERROR") {
			t.Errorf("%s: %s", m.Name, log)
		}
	}
}

// withoutDevice looks at what a daemon says that cannot have what it needs.
func (s *story) withoutDevice(t *testing.T) {
	m := s.Machines[0]
	s.sh(t, m, fmt.Sprintf(contained, "", "without", "udp", ""))
	err := machines.Await(s.ctx, 30*time.Second, func() error {
		out, err := m.Run(s.ctx, "sh", "-c", "docker exec flanneld flannelctl status || [ $? = 3 ]")
		if err == nil && !strings.Contains(out, "/dev/net/tun") {
			err = fmt.Errorf("the status does not name what is missing:\n%s", out)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
