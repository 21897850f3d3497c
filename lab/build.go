package lab

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Binaries are the paths of the programs that a lab runs.
type Binaries struct {
	Flanneld   string
	Flannelctl string
	Etcd       string // empty: only the embedded one is used
}

// Built returns the programs that were built into a folder.
func Built(dir string) Binaries {
	return Binaries{Flanneld: filepath.Join(dir, "flanneld"), Flannelctl: filepath.Join(dir, "flannelctl"),
		Etcd: filepath.Join(dir, "etcd")}
}

// Build builds the programs into a folder, from the module that the working directory lies in.
func Build(ctx context.Context, dir string) (Binaries, error) {
	b := Built(dir)
	for out, pkg := range map[string]string{b.Flanneld: "flanneld/cmd/flanneld", b.Flannelctl: "flanneld/cmd/flannelctl",
		b.Etcd: "flanneld/lab/etcd"} {
		if err := GoBuild(ctx, out, pkg); err != nil {
			return Binaries{}, err
		}
	}
	return b, nil
}

// ReleasedFlannel is the name of the released flannel's program beside those of a lab.
const ReleasedFlannel = "flanneld-released"

// BuildFlannel builds the released flannel. module is the path of lab/flannel, which pins its version.
func BuildFlannel(ctx context.Context, out, module string) error {
	return goBuild(ctx, module, "1", "-o", out, "github.com/flannel-io/flannel") // its udp backend is written in C
}

// GoBuild builds one package without cgo.
func GoBuild(ctx context.Context, out, pkg string) error {
	return goBuild(ctx, "", "0", "-ldflags", "-X flanneld/version.number=lab", "-o", out, pkg)
}

// goBuild runs go build in a module; empty: that of the working directory.
func goBuild(ctx context.Context, module, cgo string, args ...string) error {
	cmd := exec.CommandContext(ctx, "go", append([]string{"build"}, args...)...)
	cmd.Dir, cmd.Env = module, append(os.Environ(), "CGO_ENABLED="+cgo)
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", cmd, err, text)
	}
	return nil
}
