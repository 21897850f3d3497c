// Package plugintest gives tests the programs that the plugin works with: itself, the reference plugins of the CNI
// project, and cnitool. The latter come through the module proxy and are kept in the folder .cache of this module.
package plugintest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	pluginsVersion = "v1.9.1"
	cnitoolVersion = "v1.3.1"
	buildTimeout   = 5 * time.Minute
)

// reference are the packages by the names of their programs.
var reference = map[string]string{
	"bridge":     "github.com/containernetworking/plugins/plugins/main/bridge@" + pluginsVersion,
	"loopback":   "github.com/containernetworking/plugins/plugins/main/loopback@" + pluginsVersion,
	"host-local": "github.com/containernetworking/plugins/plugins/ipam/host-local@" + pluginsVersion,
	"portmap":    "github.com/containernetworking/plugins/plugins/meta/portmap@" + pluginsVersion,
	"bandwidth":  "github.com/containernetworking/plugins/plugins/meta/bandwidth@" + pluginsVersion,
	"cnitool":    "github.com/containernetworking/cni/cnitool@" + cnitoolVersion,
}

// Reference returns the folder of the reference plugins and cnitool. It builds what is not there yet.
func Reference(t testing.TB) string {
	t.Helper()
	root, err := moduleRoot()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(root, ".cache", "cni-plugins-"+pluginsVersion)
	if err := install(dir); err != nil {
		t.Fatalf("build the reference plugins (the Go module proxy is needed once): %v", err)
	}
	return dir
}

// Flannel builds the plugin into a folder, as it is released, and returns the program's path.
func Flannel(t testing.TB, dir string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), buildTimeout)
	defer cancel()
	out := filepath.Join(dir, "flannel")
	c := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", out, "flanneld/cni-plugin")
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := c.CombinedOutput(); err != nil {
		t.Fatalf("build the plugin: %v\n%s", err, text)
	}
	return out
}

func moduleRoot() (string, error) {
	out, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("go env GOMOD: %w", err)
	}
	return filepath.Dir(strings.TrimSpace(string(out))), nil
}

// install builds the programs that the folder lacks. Test processes take turns.
func install(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	lock, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return fmt.Errorf("lock %s: %w", dir, err)
	}
	var errs []error
	for name, pkg := range reference {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), buildTimeout)
		c := exec.CommandContext(ctx, "go", "install", pkg)
		c.Dir = "/" // outside of any module
		c.Env = append(os.Environ(), "GOBIN="+dir, "CGO_ENABLED=0", "GOFLAGS=")
		if text, err := c.CombinedOutput(); err != nil {
			errs = append(errs, fmt.Errorf("go install %s: %w\n%s", pkg, err, text))
		}
		cancel()
	}
	return errors.Join(errs...)
}
