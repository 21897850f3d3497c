package main_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"flanneld/need"
)

const (
	describe = "v1.2.3-4-gabcdef0"
	commit   = "abcdef0123456789abcdef0123456789abcdef01"
)

// output runs a program and returns what it prints.
func output(t *testing.T, name string, args ...string) string {
	t.Helper()
	var failure bytes.Buffer
	c := exec.Command(need.Program(t, name), args...)
	c.Stderr = &failure
	out, err := c.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, &failure)
	}
	return string(out)
}

// release builds a release of the repository at root for this architecture and returns its folder.
func release(t *testing.T, program, root, key string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "out")
	c := exec.Command(program, "-root", root, "-o", out, "-arch", "amd64", "-version", describe, "-commit", commit,
		"-sign-key", key, "-url", repositories)
	c.Env = append(os.Environ(), "SOURCE_DATE_EPOCH=1700000000")
	if text, err := c.CombinedOutput(); err != nil {
		t.Fatalf("release: %v\n%s", err, text)
	}
	return out
}

// checkout copies the files that git knows to another folder.
func checkout(t *testing.T, root string) string {
	t.Helper()
	to := t.TempDir()
	for file := range strings.Lines(output(t, "git", "-C", root, "ls-files", "--cached", "--others",
		"--exclude-standard")) {
		file = strings.TrimSuffix(file, "\n")
		text, err := os.ReadFile(filepath.Join(root, file))
		if errors.Is(err, fs.ErrNotExist) {
			continue // deleted, not committed yet
		}
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(filepath.Join(root, file))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Dir(filepath.Join(to, file)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(to, file), text, info.Mode().Perm()); err != nil {
			t.Fatal(err)
		}
	}
	return to
}

// published returns the checksum of every file of a release, by name.
func published(t *testing.T, dir string) map[string]string {
	t.Helper()
	sums := map[string]string{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			if d != nil && d.Name() == "stage" {
				return fs.SkipDir
			}
			return err
		}
		text, err := os.ReadFile(p)
		rel, _ := filepath.Rel(dir, p)
		sums[rel] = fmt.Sprintf("%x", sha256.Sum256(text))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return sums
}

// The tests below look at one release, because it takes a while to build.
//
// Slow: runs the whole build twice and compares the bytes.
func TestARelease(t *testing.T) {
	program := filepath.Join(t.TempDir(), "release")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	private, public := newKey(t)
	dir := release(t, program, "../..", private)
	t.Run("has the same bytes wherever it is built", func(t *testing.T) {
		again := published(t, release(t, program, checkout(t, "../.."), private))
		for name, sum := range published(t, dir) {
			if again[name] != sum {
				t.Errorf("%s differs between two builds", name)
			}
		}
	})
	t.Run("has checksums of all it publishes", func(t *testing.T) { checksums(t, dir) })
	t.Run("has a signature of the checksums", func(t *testing.T) { signed(t, dir, public) })
	t.Run("has an image that docker loads", func(t *testing.T) { dockerImage(t, dir) })
	t.Run("has a chart of its version", func(t *testing.T) { chart(t, dir) })
	t.Run("has notes from the changelog", func(t *testing.T) { notes(t, dir) })
	t.Run("has programs that know their version", func(t *testing.T) { versions(t, dir) })
	t.Run("has the same files in deb, rpm and archive", func(t *testing.T) { sameFiles(t, dir) })
	t.Run("names every module in the bill of materials", func(t *testing.T) { bill(t, dir) })
	t.Run("has an image of two layers", func(t *testing.T) { image(t, dir) })
	t.Run("has the lists for dnf that others make", func(t *testing.T) { yumLists(t, dir) })
	t.Run("has a repository from which dnf installs", func(t *testing.T) { yumInstalls(t, dir) })
	t.Run("has a repository of which dnf refuses", func(t *testing.T) { yumRefuses(t, dir) })
	t.Run("installs and leaves without a trace, as rpm", func(t *testing.T) { rpmLifecycle(t, dir) })
	t.Run("installs, upgrades and leaves without a trace, as deb", func(t *testing.T) { debLifecycle(t, dir) })
}

func checksums(t *testing.T, dir string) {
	c := exec.Command(need.Program(t, "sha256sum"), "--check", "--strict", "SHA256SUMS")
	c.Dir = dir
	out, err := c.CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	for _, want := range []string{"_amd64.deb: OK", ".x86_64.rpm: OK", "-linux-amd64.tar.gz: OK", ".cdx.json: OK",
		"-image.tar: OK", "-docker-amd64.tar: OK", ".tgz: OK", "-notes.md: OK"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("no line %q in\n%s", want, out)
		}
	}
}

func versions(t *testing.T, dir string) {
	for name, args := range map[string][]string{
		"flanneld": {"-version"}, "flannelctl": {"version", "--subnet-file", dir + "/subnet.env"}, "flannel": nil,
		"flannel-docker": {"version"}, "install-cni": {"-version"},
	} {
		out, err := exec.Command(filepath.Join(dir, "stage/amd64", name), args...).CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for _, want := range []string{describe, "commit " + commit, "date 2023-11-14T22:13:20Z", "go go1."} {
			if !strings.Contains(string(out), want) {
				t.Errorf("%s says %q; want %q in it", name, out, want)
			}
		}
	}
}

// match returns the only file of a pattern.
func match(t *testing.T, dir, pattern string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil || len(found) != 1 {
		t.Fatalf("%s: %v (%v), want one", pattern, found, err)
	}
	return found[0]
}

// archived returns the files of a tar, with mode and owner.
func archived(t *testing.T, r io.Reader) (files []string) {
	t.Helper()
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		link := h.Typeflag == tar.TypeSymlink
		if h.Uid != 0 || h.Gid != 0 || h.Mode&0o022 != 0 && !link {
			t.Errorf("%s belongs to %d:%d with mode %o", h.Name, h.Uid, h.Gid, h.Mode)
		}
		if h.Typeflag == tar.TypeReg || link {
			files = append(files, "/"+strings.TrimPrefix(strings.TrimPrefix(h.Name, "."), "/"))
		}
	}
	slices.Sort(files)
	return files
}

func sameFiles(t *testing.T, dir string) {
	var deb, rpm []string
	for _, name := range []string{"flanneld", "flanneld-docker", "flannel-cni-plugin"} {
		deb = append(deb, archived(t, strings.NewReader(output(t, "dpkg-deb", "--fsys-tarfile",
			match(t, dir, name+"_*_amd64.deb"))))...)
		for file := range strings.Lines(output(t, "rpm", "-qp", "--nosignature", "-l",
			match(t, dir, name+"-1*.x86_64.rpm"))) {
			rpm = append(rpm, strings.TrimSuffix(file, "\n"))
		}
	}
	f, err := os.Open(match(t, dir, "*-linux-amd64.tar.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	tgz := archived(t, z)
	// nfpm writes a changelog of its own into no package, zsh completions lie where the distribution looks for them.
	for i := range deb {
		deb[i] = strings.Replace(deb[i], "zsh/vendor-completions", "zsh/site-functions", 1)
	}
	slices.Sort(deb)
	slices.Sort(rpm)
	if !slices.Equal(deb, rpm) || !slices.Equal(rpm, tgz) {
		t.Errorf("deb: %v\nrpm: %v\ntar: %v", deb, rpm, tgz)
	}
	for _, want := range []string{"/usr/bin/flanneld", "/usr/bin/flannelctl", "/etc/flannel/flanneld.conf",
		"/usr/share/man/man8/flanneld.8.gz", "/usr/share/man/man1/flannelctl.1.gz",
		"/usr/share/man/man1/flannelctl-leases-list.1.gz", "/opt/cni/bin/flannel", "/usr/lib/flannel/mk-docker-opts.sh",
		"/usr/share/doc/flanneld/examples/compose/compose.yaml",
		"/usr/share/doc/flanneld/examples/ansible/roles/flanneld/tasks/main.yml"} {
		if !slices.Contains(tgz, want) {
			t.Errorf("no %s in %v", want, tgz)
		}
	}
}

func bill(t *testing.T, dir string) {
	text, err := os.ReadFile(match(t, dir, "*.cdx.json"))
	if err != nil {
		t.Fatal(err)
	}
	var b struct {
		BomFormat  string
		Components []struct{ Name, Version, Purl string }
	}
	if err := json.Unmarshal(text, &b); err != nil || b.BomFormat != "CycloneDX" {
		t.Fatalf("%v, format %q", err, b.BomFormat)
	}
	known := map[string]bool{}
	for _, c := range b.Components {
		known[c.Name+" "+c.Version] = true
	}
	linked := 0
	for _, name := range []string{"flanneld", "flannelctl", "flannel"} {
		for line := range strings.Lines(output(t, "go", "version", "-m", filepath.Join(dir, "stage/amd64", name))) {
			if f := strings.Fields(line); len(f) > 2 && f[0] == "dep" {
				linked++
				if !known[f[1]+" "+f[2]] {
					t.Errorf("%s links %s %s, which the bill lacks", name, f[1], f[2])
				}
			}
		}
	}
	if linked < 20 {
		t.Errorf("only %d modules were seen", linked)
	}
}

func image(t *testing.T, dir string) {
	read := func(digest string, into any) {
		t.Helper()
		text, err := os.ReadFile(filepath.Join(dir, "image/blobs", strings.Replace(digest, ":", "/", 1)))
		if err == nil {
			err = json.Unmarshal(text, into)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	type descriptor struct {
		MediaType, Digest string
		Platform          struct{ Architecture string }
	}
	var index, images struct{ Manifests []descriptor }
	text, err := os.ReadFile(filepath.Join(dir, "image/index.json"))
	if err == nil {
		err = json.Unmarshal(text, &index)
	}
	if err != nil || len(index.Manifests) != 1 {
		t.Fatalf("index: %v, %+v", err, index)
	}
	read(index.Manifests[0].Digest, &images)
	if len(images.Manifests) != 1 || images.Manifests[0].Platform.Architecture != "amd64" {
		t.Fatalf("images: %+v, want one for amd64", images)
	}
	var manifest struct {
		Config descriptor
		Layers []descriptor
	}
	read(images.Manifests[0].Digest, &manifest)
	var files []string
	for _, l := range manifest.Layers {
		f, err := os.Open(filepath.Join(dir, "image/blobs", strings.Replace(l.Digest, ":", "/", 1)))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		z, err := gzip.NewReader(f)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, archived(t, z)...)
	}
	want := []string{"/usr/bin/flannelctl", "/usr/bin/flanneld", "/opt/cni/bin/flannel", "/usr/bin/install-cni"}
	if len(manifest.Layers) != 2 || !slices.Equal(files, want) {
		t.Errorf("%d layers with %v, want 2 with %v", len(manifest.Layers), files, want)
	}
	var config struct {
		Architecture, Os string
		Config           struct{ Entrypoint []string }
	}
	read(manifest.Config.Digest, &config)
	if config.Os != "linux" || config.Architecture != "amd64" ||
		!slices.Equal(config.Config.Entrypoint, []string{"/usr/bin/flanneld"}) {
		t.Errorf("configuration: %+v", config)
	}
}
