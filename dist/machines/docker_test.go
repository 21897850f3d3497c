//go:build machines

package machines_test

import (
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"flanneld/need"
)

// TestDockerLoadsTheImageInItsOwnFormat uses docker 20 of Debian, which does not load OCI archives.
func TestDockerLoadsTheImageInItsOwnFormat(t *testing.T) {
	need.Program(t, "debootstrap", "systemd-nspawn")
	s := newStory(t)
	out := filepath.Join(t.TempDir(), "out")
	must(t, "../release", "go", "run", ".", "-root", "../..", "-o", out, "-arch", runtime.GOARCH, "-version", "v0.1.0",
		"-kinds", "docker")
	s.furnish(t, map[string]string{
		"/srv/image.tar": filepath.Join(out, "flanneld-0.1.0-docker-"+runtime.GOARCH+".tar"),
	}, 1)
	m := s.Machines[0]
	if err := m.Start(s.ctx); err != nil {
		t.Fatal(err)
	}
	if err := s.settled(m, "docker.service"); err != nil {
		t.Fatal(err)
	}
	t.Logf("docker %s", s.sh(t, m, "docker version --format '{{.Server.Version}}'"))
	if got, want := s.sh(t, m, "docker load --input /srv/image.tar"),
		"Loaded image: localhost/flanneld:0.1.0"; !strings.Contains(got, want) {
		t.Errorf("docker says %q, want %q", got, want)
	}
	if got := s.sh(t, m, "docker run --rm localhost/flanneld:0.1.0 -version 2>/dev/null"); got != "v0.1.0" {
		t.Errorf("the image says %q, want v0.1.0", got)
	}
}
