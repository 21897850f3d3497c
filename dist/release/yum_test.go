package main_test

import (
	"bytes"
	"encoding/xml"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"flanneld/need"
)

// repositories is where the repositories of the release of the tests are served, as it says.
const repositories = "https://packages.example.com"

// dnf is the real one, with a root, a configuration and a state of its own.
type dnf struct {
	t     *testing.T
	root  string
	state string
}

// newDNF returns one whose only repository is a copy of that in dir, and the copy.
func newDNF(t *testing.T, dir string) (d dnf, copied string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	d = dnf{t: t, root: newRoot(t), state: t.TempDir()}
	copied = filepath.Join(d.state, "served/yum")
	output(t, "mkdir", "-p", filepath.Dir(copied), d.state+"/repos", d.state+"/log")
	output(t, "cp", "-r", filepath.Join(dir, "yum"), copied)
	output(t, "touch", d.state+"/dnf.conf")
	d.configure(copied, repositories, "file://"+filepath.Dir(copied))
	return d, copied
}

// configure installs the file for hosts, changed.
func (d dnf) configure(copied string, replaced ...string) {
	d.t.Helper()
	text, err := os.ReadFile(filepath.Join(copied, "flanneld.repo"))
	if err != nil {
		d.t.Fatal(err)
	}
	if !strings.Contains(string(text), "\ngpgcheck=1\nrepo_gpgcheck=1\n") {
		d.t.Fatalf("the configuration of a host checks no signatures: %s", text)
	}
	text = []byte(strings.NewReplacer(replaced...).Replace(string(text)))
	if err := os.WriteFile(filepath.Join(d.state, "repos/flanneld.repo"), text, 0o644); err != nil {
		d.t.Fatal(err)
	}
}

// run runs dnf, which has nothing in its caches.
func (d dnf) run(args ...string) (string, error) {
	d.t.Helper()
	if err := os.RemoveAll(filepath.Join(d.state, "cache")); err != nil {
		d.t.Fatal(err)
	}
	options := []string{"--installroot=" + d.root, "--releasever=1", "--forcearch=x86_64", "--noplugins", "--assumeyes",
		"--config=" + d.state + "/dnf.conf", "--setopt=install_weak_deps=0", "--setopt=reposdir=" + d.state + "/repos"}
	for _, name := range []string{"cachedir", "logdir", "persistdir"} {
		options = append(options, "--setopt="+name+"="+filepath.Join(d.state, strings.TrimSuffix(name, "dir")))
	}
	c := exec.Command(need.Program(d.t, "dnf"), append(options, args...)...)
	c.Env = append(os.Environ(), "LC_ALL=C", "HOME="+d.state)
	text, err := c.CombinedOutput()
	return string(text), err
}

// refuses says that an installation fails for a reason.
func (d dnf) refuses(what, reason string) {
	d.t.Helper()
	text, err := d.run("install", "flanneld")
	if err == nil || !strings.Contains(text, reason) {
		d.t.Errorf("dnf and %s: %v, want it to fail with %q\n%s", what, err, reason, text)
	}
	if _, err := os.Stat(filepath.Join(d.root, "usr/bin/flanneld")); err == nil {
		d.t.Errorf("dnf has installed %s", what)
	}
}

func yumInstalls(t *testing.T, dir string) {
	d, _ := newDNF(t, dir)
	if text, err := d.run("install", "flanneld-docker", "flannel-cni-plugin"); err != nil {
		t.Fatalf("install: %v\n%s", err, text)
	}
	for _, file := range []string{"usr/bin/flanneld", "usr/lib/flannel/flannel-docker", "opt/cni/bin/flannel"} {
		if _, err := os.Stat(filepath.Join(d.root, file)); err != nil {
			t.Error(err)
		}
	}
	if text, err := d.run("remove", "flanneld"); err != nil {
		t.Errorf("remove: %v\n%s", err, text)
	}
	if _, err := os.Stat(filepath.Join(d.root, "usr/bin/flanneld")); err == nil {
		t.Error("dnf has not removed the package")
	}
}

func yumRefuses(t *testing.T, dir string) {
	t.Run("a package that was changed", func(t *testing.T) {
		d, copied := newDNF(t, dir)
		forge(t, match(t, copied, "flanneld-1*.x86_64.rpm"))
		d.refuses("a package that was changed", "incorrect checksum")
	})
	t.Run("lists that were changed", func(t *testing.T) {
		d, copied := newDNF(t, dir)
		forge(t, match(t, copied, "flanneld-1*.x86_64.rpm"))
		output(t, "createrepo_c", "--quiet", copied)
		d.refuses("lists that were changed", "repomd.xml GPG signature verification error")
	})
	t.Run("a package of which the signature is wrong", func(t *testing.T) {
		d, copied := newDNF(t, dir)
		forge(t, match(t, copied, "flanneld-1*.x86_64.rpm"))
		output(t, "createrepo_c", "--quiet", copied)
		d.configure(copied, repositories, "file://"+filepath.Dir(copied), "repo_gpgcheck=1", "repo_gpgcheck=0")
		d.refuses("a package of which the signature is wrong", "GPG check FAILED")
	})
	t.Run("a package without a signature", func(t *testing.T) {
		d, copied := newDNF(t, dir)
		output(t, "rpmsign", "--delsign", match(t, copied, "flanneld-1*.x86_64.rpm"))
		output(t, "createrepo_c", "--quiet", copied)
		d.configure(copied, repositories, "file://"+filepath.Dir(copied), "repo_gpgcheck=1", "repo_gpgcheck=0")
		d.refuses("a package without a signature", "is not signed")
	})
}

// forge changes the last bytes of a file.
func forge(t *testing.T, file string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	text[len(text)-20] ^= 0xff
	if err := os.WriteFile(file, text, 0o644); err != nil {
		t.Fatal(err)
	}
}

// node is an element of XML.
type node struct {
	XMLName  xml.Name
	Attrs    []xml.Attr `xml:",any,attr"`
	Text     string     `xml:",chardata"`
	Children []node     `xml:",any"`
}

// lines returns an element and those in it, one a line, without those that depend on when the list was made.
func (n node) lines(path string) (out []string) {
	path += "/" + n.XMLName.Local
	if strings.HasSuffix(path, "/package/time") {
		return nil
	}
	line := path
	for _, a := range n.Attrs {
		line += " " + a.Name.Local + "=" + a.Value
	}
	out = append(out, line+" "+strings.TrimSpace(n.Text))
	for _, c := range n.Children {
		out = append(out, c.lines(path)...)
	}
	return out
}

// The lists are those that the program of others makes of the same packages.
func yumLists(t *testing.T, dir string) {
	served := t.TempDir()
	output(t, "sh", "-c", "cp "+dir+"/yum/*.rpm "+served)
	output(t, "createrepo_c", "--quiet", "--no-database", "--compress-type=gz", served)
	for _, list := range []string{"primary", "filelists", "other"} {
		read := func(repository string) []string {
			t.Helper()
			text := output(t, "zcat", match(t, repository, "repodata/*-"+list+".xml.gz"))
			var n node
			if err := xml.NewDecoder(bytes.NewReader([]byte(text))).Decode(&n); err != nil {
				t.Fatal(err)
			}
			return n.lines("")
		}
		if diff := cmp.Diff(read(served), read(filepath.Join(dir, "yum"))); diff != "" {
			t.Errorf("%s (-createrepo_c +ours):\n%s", list, diff)
		}
	}
}
