package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"
)

// stage is where the programs of one architecture lie before they are packed.
type stage struct {
	arch   string
	dir    string // programs
	manual string // manual pages and completions, the same for all
	root   string // of the repository
}

// programs are the commands of the repository, each with the name of its file.
var programs = map[string]string{
	"flanneld":       "./cmd/flanneld",
	"flannelctl":     "./cmd/flannelctl",
	"flannel":        "./cni-plugin",
	"flannel-docker": "./dist/flannel-docker",
	"install-cni":    "./dist/install-cni",
}

// programs returns the names of the programs, sorted.
func (s stage) programs() []string { return slices.Sorted(maps.Keys(programs)) }

// buildStage builds the programs of one architecture.
func (r release) buildStage(ctx context.Context, arch string, manual string) (stage, error) {
	s := stage{arch: arch, dir: filepath.Join(r.out, "stage", arch), manual: manual, root: r.root}
	for name, source := range programs {
		if err := r.compile(ctx, arch, source, filepath.Join(s.dir, name)); err != nil {
			return stage{}, err
		}
	}
	return s, nil
}

// compile builds a static program in which nothing depends on where and when it was built.
func (r release) compile(ctx context.Context, arch, source, to string) error {
	flags := fmt.Sprintf("-s -w -buildid= -X %[1]s.number=%[2]s -X %[1]s.commit=%[3]s -X %[1]s.date=%[4]s",
		"flanneld/version", r.version.git, r.version.commit, r.time.Format(time.RFC3339))
	c := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", flags, "-o", to, source)
	c.Dir = r.root
	c.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch, "GOFLAGS=", "GOAMD64=v1", "GOARM64=v8.0")
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s for %s: %w\n%s", source, arch, err, out)
	}
	return nil
}

// buildManual makes the manual pages, completions and the configuration file, with programs of this machine's
// architecture.
func (r release) buildManual(ctx context.Context) (string, error) {
	dir, tools := filepath.Join(r.out, "stage/manual"), filepath.Join(r.out, "stage/tools")
	for name, source := range map[string]string{"flannelctl": programs["flannelctl"],
		"generate": "./dist/manual/generate"} {
		if err := r.compile(ctx, "", source, filepath.Join(tools, name)); err != nil {
			return "", err
		}
	}
	out, err := exec.CommandContext(ctx, filepath.Join(tools, "generate"), "-flannelctl",
		filepath.Join(tools, "flannelctl"), "-o", dir).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("generate the manual: %w\n%s", err, out)
	}
	for shell, file := range map[string]string{"bash": "flannelctl.bash", "zsh": "_flannelctl",
		"fish": "flannelctl.fish"} {
		text, err := exec.CommandContext(ctx, filepath.Join(tools, "flannelctl"), "completion", shell).Output()
		if err != nil {
			return "", fmt.Errorf("completion of flannelctl for %s: %w", shell, err)
		}
		if err := os.WriteFile(filepath.Join(dir, file), text, 0o644); err != nil {
			return "", err
		}
	}
	for _, page := range manualPages(dir) {
		err = errors.Join(err, compress(page))
	}
	return dir, err
}

// manualPages returns the manual pages in a folder, before they are compressed: one for each command.
func manualPages(dir string) []string {
	pages, _ := filepath.Glob(filepath.Join(dir, "*.[18]")) // the pattern is valid
	return pages
}
