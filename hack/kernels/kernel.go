package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// kernel is one of Debian's, unpacked.
type kernel struct {
	name string // as uname -r says it
	root string // of the package's files
}

func (k kernel) image() string   { return filepath.Join(k.root, "boot", "vmlinuz-"+k.name) }
func (k kernel) modules() string { return filepath.Join(k.root, "lib", "modules", k.name) }

// fetch returns the newest kernel of a line, such as 6.1, that the package lists of this machine know. It is downloaded
// and unpacked once, and never installed.
func fetch(ctx context.Context, dir, line string) (kernel, error) {
	name, err := newest(ctx, line)
	if errors.Is(err, errUnknown) {
		if err = command(ctx, dir, "apt-get", "update", "-qq"); err == nil {
			name, err = newest(ctx, line)
		}
	}
	if err != nil {
		return kernel{}, err
	}
	k := kernel{name, filepath.Join(dir, name)}
	if _, err := os.Stat(k.root); err == nil {
		return k, nil
	}
	work, err := os.MkdirTemp(dir, ".fetch-")
	if err != nil {
		return kernel{}, err
	}
	defer os.RemoveAll(work)
	unpacked := kernel{name, filepath.Join(work, "root")}
	for _, args := range [][]string{
		{"apt-get", "download", "-q", "linux-image-" + name},
		{"sh", "-c", "dpkg-deb -x *.deb root"},
		{"depmod", "-b", unpacked.root, name},
	} {
		if err := command(ctx, work, args...); err != nil {
			return kernel{}, err
		}
	}
	return k, os.Rename(unpacked.root, k.root)
}

var errUnknown = errors.New("no package lists know such a kernel")

func newest(ctx context.Context, line string) (string, error) {
	out, err := exec.CommandContext(ctx, "apt-cache", "pkgnames", "linux-image-"+line+".").Output()
	if err != nil {
		return "", fmt.Errorf("list packages: %w", err)
	}
	name := latest(strings.Fields(string(out)), line)
	if name == "" {
		return "", errUnknown
	}
	return name, nil
}

// latest returns the newest kernel for usual machines among packages, without the prefix of their names.
func latest(packages []string, line string) string {
	usual := regexp.MustCompile(`^linux-image-(` + regexp.QuoteMeta(line) + `\.[0-9][0-9.+a-z-]*-amd64)$`)
	special := regexp.MustCompile(`-(cloud|rt)-amd64$`)
	best := ""
	for _, p := range packages {
		m := usual.FindStringSubmatch(p)
		if m != nil && !special.MatchString(p) && slices.Compare(numbers(m[1]), numbers(best)) > 0 {
			best = m[1]
		}
	}
	return best
}

// numbers returns those of a version, by which versions of one line are compared.
func numbers(version string) (out []int) {
	for _, text := range regexp.MustCompile(`[0-9]+`).FindAllString(version, -1) {
		n, _ := strconv.Atoi(text) // too large: the largest
		out = append(out, n)
	}
	return out
}

// command runs a program; the error has what it said.
func command(ctx context.Context, dir string, args ...string) error {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}
