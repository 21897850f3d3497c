package main_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"flanneld/need"
)

// newKey makes a key, and returns the files of its private half, armored, and of its public half, as gpgv reads it.
func newKey(t *testing.T) (private, public string) {
	t.Helper()
	dir := t.TempDir()
	private, public = filepath.Join(dir, "private.asc"), filepath.Join(dir, "public.gpg")
	at := time.Unix(1600000000, 0)
	e, err := openpgp.NewEntity("Release of a test", "", "release@localhost",
		&packet.Config{Algorithm: packet.PubKeyAlgoEdDSA, Time: func() time.Time { return at }})
	if err != nil {
		t.Fatal(err)
	}
	var secret, open bytes.Buffer
	w, err := armor.Encode(&secret, openpgp.PrivateKeyType, nil)
	if err == nil {
		err = errors.Join(e.SerializePrivate(w, nil), w.Close(), e.Serialize(&open),
			os.WriteFile(private, secret.Bytes(), 0o600), os.WriteFile(public, open.Bytes(), 0o644))
	}
	if err != nil {
		t.Fatal(err)
	}
	return private, public
}

func signed(t *testing.T, dir, public string) {
	verify := func(file string) (string, error) {
		out, err := exec.Command(need.Program(t, "gpgv"), "--keyring", public, filepath.Join(dir, "SHA256SUMS.asc"),
			file).CombinedOutput()
		return string(out), err
	}
	sums := filepath.Join(dir, "SHA256SUMS")
	if out, err := verify(sums); err != nil || !strings.Contains(out, "Good signature") {
		t.Errorf("%v\n%s", err, out)
	}
	text, err := os.ReadFile(sums)
	if err != nil {
		t.Fatal(err)
	}
	forged := filepath.Join(t.TempDir(), "SHA256SUMS")
	if err := os.WriteFile(forged, append(text, "0 another\n"...), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := verify(forged); err == nil {
		t.Errorf("checksums that were changed are verified:\n%s", out)
	}
}

// entries returns the files of a tar by name.
func entries(t *testing.T, r io.Reader) map[string]string {
	t.Helper()
	files := map[string]string{}
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		var text []byte
		if err == nil {
			text, err = io.ReadAll(tr)
		}
		if err != nil {
			t.Fatal(err)
		}
		files[h.Name] = string(text)
	}
}

func unpacked(t *testing.T, text string) io.Reader {
	t.Helper()
	z, err := gzip.NewReader(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return z
}

func dockerImage(t *testing.T, dir string) {
	text, err := os.ReadFile(match(t, dir, "*-docker-amd64.tar"))
	if err != nil {
		t.Fatal(err)
	}
	files := entries(t, bytes.NewReader(text))
	var manifest []struct {
		RepoTags, Layers []string
	}
	if err := json.Unmarshal([]byte(files["manifest.json"]), &manifest); err != nil || len(manifest) != 1 {
		t.Fatalf("manifest.json: %v: %s", err, files["manifest.json"])
	}
	if want := []string{"localhost/flanneld:1.2.3-4.gabcdef0"}; !slices.Equal(manifest[0].RepoTags, want) {
		t.Errorf("tags %v, want %v", manifest[0].RepoTags, want)
	}
	var programs []string
	for _, l := range manifest[0].Layers {
		programs = append(programs, archived(t, unpacked(t, files[l]))...)
	}
	if !slices.Contains(programs, "/usr/bin/flanneld") || !slices.Contains(programs, "/usr/bin/install-cni") {
		t.Errorf("programs %v, want those of the image", programs)
	}
}

func chart(t *testing.T, dir string) {
	file := match(t, dir, "flannel-1*.tgz")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	files := entries(t, unpacked(t, string(text)))
	for file, want := range map[string]string{
		"flannel/Chart.yaml":               "\nversion: 1.2.3+4.gabcdef0\nappVersion: 1.2.3-4.gabcdef0\n",
		"flannel/values.yaml":              "    tag: 1.2.3-4.gabcdef0\n",
		"flannel/templates/daemonset.yaml": "kind: DaemonSet",
	} {
		if !strings.Contains(files[file], want) {
			t.Errorf("%s: %q, want %q in it", file, files[file], want)
		}
	}
	render := exec.Command("go", "run", "./render", file, "kube-flannel", "{}")
	render.Dir = "../cloud"
	out, err := render.CombinedOutput()
	const want = "image: registry.example.com/flanneld:1.2.3-4.gabcdef0"
	if err != nil || !strings.Contains(strings.ReplaceAll(string(out), `"`, ""), want) {
		t.Errorf("helm renders no %q: %v\n%s", want, err, out)
	}
}

func notes(t *testing.T, dir string) {
	text, err := os.ReadFile(match(t, dir, "*-notes.md"))
	if err != nil {
		t.Fatal(err)
	}
	changelog, err := os.ReadFile("../../CHANGELOG.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(changelog), "## Unreleased\n\n")
	first, _, _ := strings.Cut(rest, "\n")
	if !strings.HasPrefix(string(text), "# flanneld "+describe+"\n\n"+first) || strings.Contains(string(text), "\n## ") {
		t.Errorf("the notes are not the section of the changelog: %.300s", text)
	}
}

func TestTheNotesAreThoseOfTheVersion(t *testing.T) {
	program := filepath.Join(t.TempDir(), "release")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	root := checkout(t, "../..")
	const changelog = "# Changelog\n\n## Unreleased\n\n- next\n\n## 1.2.30 (2026-02-01)\n\n- thirty\n\n## 1.2.3 (2026-01-01)\n\n- three\n"
	if err := os.WriteFile(filepath.Join(root, "CHANGELOG.md"), []byte(changelog), 0o644); err != nil {
		t.Fatal(err)
	}
	for version, want := range map[string]string{
		"v1.2.3": "- three\n", "v1.2.30": "- thirty\n", "v1.2.31": "- next\n",
	} {
		out := filepath.Join(t.TempDir(), "out")
		c := exec.Command(program, "-root", root, "-o", out, "-arch", "amd64", "-version", version, "-kinds", "notes")
		c.Env = append(os.Environ(), "SOURCE_DATE_EPOCH=1700000000")
		if text, err := c.CombinedOutput(); err != nil {
			t.Fatalf("release: %v\n%s", err, text)
		}
		text, err := os.ReadFile(match(t, out, "*-notes.md"))
		if got := string(text); err != nil || got != "# flanneld "+version+"\n\n"+want {
			t.Errorf("%s: %q (%v), want %q", version, got, err, want)
		}
	}
}
