// Package cloud_test checks the configurations for machines that are made by a provisioning service. It is a module of
// its own because it uses butane, Ignition and the types of Kubernetes.
package cloud_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	v3_4 "github.com/coreos/ignition/v2/config/v3_4"
	"github.com/coreos/ignition/v2/config/v3_4/types"
	"github.com/google/go-cmp/cmp"
	"github.com/vincent-petithory/dataurl"
	"sigs.k8s.io/yaml"

	"flanneld/need"
)

// programs is the folder with butane and ignition-validate, built from their modules.
var programs string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "cloud")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	programs = dir
	for name, source := range map[string]string{"butane": "github.com/coreos/butane/internal",
		"ignition-validate": "github.com/coreos/ignition/v2/validate"} {
		if out, err := exec.Command("go", "build", "-o", filepath.Join(dir, name), source).CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build %s: %v\n%s", name, err, out)
			return 1
		}
	}
	return m.Run()
}

// program runs butane or ignition-validate.
func program(name string, args ...string) (stdout string, err error) {
	c := exec.Command(filepath.Join(programs, name), args...)
	var out, stderr strings.Builder
	c.Stdout, c.Stderr = &out, &stderr
	err = c.Run()
	if err != nil {
		err = fmt.Errorf("%s %v: %w\n%s%s", name, args, err, stderr.String(), out.String())
	}
	return out.String(), err
}

// translate writes a configuration as Ignition into a file, as docs/coreos.md says, and has it validated.
func translate(file, filesDir, to string) error {
	text, err := program("butane", "--strict", "--files-dir", filesDir, file)
	if err != nil {
		return err
	}
	if err := os.WriteFile(to, []byte(text), 0o644); err != nil {
		return err
	}
	// It fails on errors only. Warnings are printed.
	out, err := program("ignition-validate", to)
	if err == nil && out != "" {
		err = fmt.Errorf("%s: ignition-validate says: %s", file, out)
	}
	return err
}

var (
	variants = []string{"fcos", "flatcar"}
	members  = []string{"static", "discovery"} // how those of etcd find one another
)

// node returns the whole configuration of a host: its own, with those that it embeds merged into it by Ignition's own
// code.
func node(t *testing.T, variant, members string, n int) types.Config {
	t.Helper()
	dir, name := t.TempDir(), fmt.Sprintf("node%d", n)
	for _, err := range []error{
		translate(filepath.Join(variant, "cluster.bu"), "..", filepath.Join(dir, "cluster.ign")),
		translate(filepath.Join(variant, members+".bu"), ".", filepath.Join(dir, "members.ign")),
		translate(filepath.Join(variant, name+".bu"), dir, filepath.Join(dir, name+".ign")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(filepath.Join(dir, name+".ign"))
	if err != nil {
		t.Fatal(err)
	}
	config := parse(t, text)
	for _, embedded := range config.Ignition.Config.Merge {
		config = v3_4.Merge(config, parse(t, []byte(contents(t, embedded))))
	}
	return config
}

func parse(t *testing.T, text []byte) types.Config {
	t.Helper()
	c, report, err := v3_4.Parse(text)
	if err != nil || len(report.Entries) > 0 {
		t.Fatalf("Ignition says: %v\n%s", err, report.String())
	}
	return c
}

// contents returns the text that a configuration carries; of what is to be fetched it is empty.
func contents(t *testing.T, r types.Resource) string {
	t.Helper()
	if !strings.HasPrefix(*r.Source, "data:") {
		return ""
	}
	url, err := dataurl.DecodeString(*r.Source)
	if err != nil {
		t.Fatal(err)
	}
	if r.Compression == nil || *r.Compression == "" {
		return string(url.Data)
	}
	z, err := gzip.NewReader(bytes.NewReader(url.Data))
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// files returns the texts that a configuration writes, by path.
func files(t *testing.T, c types.Config) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, f := range c.Storage.Files {
		out[f.Path] = contents(t, f.Contents)
	}
	return out
}

func TestIgnitionAcceptsEveryHost(t *testing.T) {
	for _, variant := range variants {
		for _, how := range members {
			for n := 1; n <= 3; n++ {
				have := files(t, node(t, variant, how, n))
				if want := fmt.Sprintf("NODE_NAME=node%d\nNODE_ADDRESS=192.0.2.1%d\n", n,
					n); have["/etc/cluster/node.env"] != want {
					t.Errorf("%s: node.env is %q, want %q", variant, have["/etc/cluster/node.env"], want)
				}
				want := map[string]string{"static": fmt.Sprintf("node%d=http://192.0.2.1%d:2380", n, n),
					"discovery": "ETCD_DISCOVERY_SRV=example.com"}[how]
				if !strings.Contains(have["/etc/cluster/members.env"], want) {
					t.Errorf("%s, %s: the members lack %s", variant, how, want)
				}
				for _, path := range []string{"/opt/flanneld.tar.gz", "/opt/etcd.tar.gz"} {
					if _, ok := have[path]; !ok {
						t.Errorf("%s: no %s", variant, path)
					}
				}
			}
		}
	}
}

func TestBothSystemsGetTheSameFiles(t *testing.T) {
	for _, how := range members {
		fcos, flatcar := files(t, node(t, "fcos", how, 1)), files(t, node(t, "flatcar", how, 1))
		if diff := cmp.Diff(fcos, flatcar); diff != "" {
			t.Errorf("%s: Fedora CoreOS and Flatcar differ:\n%s", how, diff)
		}
	}
}

// hosted is what a unit runs that only a host of the cluster has.
var hosted = regexp.MustCompile(`(?m)^(Exec\w+=-?)(/opt/\S+|/usr/bin/flanneld|/usr/sbin/restorecon)`)

func TestTheUnitsOfAHostAreCleanForSystemd(t *testing.T) {
	dir := t.TempDir()
	have := files(t, node(t, "fcos", "static", 1))
	have["/etc/systemd/system/docker.service"] = "[Service]\nType=notify\nExecStart=/bin/true\n"
	var units []string
	for path, text := range have {
		name, ok := strings.CutPrefix(path, "/etc/systemd/system/")
		if !ok {
			continue
		}
		to := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, []byte(hosted.ReplaceAllString(text, "${1}/bin/true")), 0o644); err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(name, ".service") {
			units = append(units, to)
		}
	}
	if len(units) != 4 {
		t.Errorf("units: %v, want those of etcd, flanneld, docker and the installation", units)
	}
	c := exec.Command(need.Program(t, "systemd-analyze"), append([]string{"verify", "--man=no"}, units...)...)
	c.Env = append(os.Environ(), "SYSTEMD_UNIT_PATH="+dir+":")
	out, err := c.CombinedOutput()
	if err != nil || strings.Contains(string(out), dir) || strings.Contains(string(out), "flannel") {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
}

func TestEtcdIsLessExposedThanThreeOfTen(t *testing.T) {
	out, err := exec.Command(need.Program(t, "systemd-analyze"), "security", "--offline=yes", "--threshold=30",
		"--no-pager", "files/etcd.service").CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestEveryUnitThatIsEnabledIsThere(t *testing.T) {
	for _, variant := range variants {
		c := node(t, variant, "static", 2)
		have := files(t, c)
		for _, u := range c.Systemd.Units {
			if _, ok := have["/etc/systemd/system/"+u.Name]; !ok && u.Name != "docker.service" {
				t.Errorf("%s: %s is enabled and not written", variant, u.Name)
			}
		}
		for path, want := range map[string]string{
			"/etc/systemd/system/flanneld.service.d/opt.conf":   "After=flannel-install.service",
			"/etc/systemd/system/docker.service.d/flannel.conf": "flannel-docker wait",
			"/etc/systemd/system/etcd.service":                  "Requires=flannel-install.service",
			"/etc/systemd/network/10-flannel.network":           "Unmanaged=yes",
			"/etc/systemd/network/80-flannel.link":              "MACAddressPolicy=none",
			"/etc/systemd/system/flannel-install.service":       "ConditionPathExists=!",
			"/etc/systemd/system/flanneld.service":              "Type=notify",
			"/etc/cluster/flanneld.env":                         "FLANNELD_NETWORK_CONFIG=",
			"/etc/cluster/members.env":                          "FLANNELD_ETCD_ENDPOINTS=",
			"/etc/sysctl.d/50-flannel.conf":                     "ip_forward",
			"/etc/NetworkManager/conf.d/flannel.conf":           "managed=0",
			"/etc/tmpfiles.d/flannel.conf":                      "xtables.lock",
		} {
			if !strings.Contains(have[path], want) {
				t.Errorf("%s: %s has no %q", variant, path, want)
			}
		}
	}
}

// A folder of configurations that no program complains of proves something only if the programs can complain.
func TestWhatIsWrongIsRefused(t *testing.T) {
	for name, text := range map[string]string{
		"an unknown key":  "variant: fcos\nversion: 1.5.0\nsystemd: {unit: []}\n",
		"another version": "variant: fcos\nversion: 9.9.9\n",
		"another variant": "variant: what\nversion: 1.5.0\n",
		"two kinds of text": "variant: fcos\nversion: 1.5.0\n" +
			"storage: {files: [{path: /x, contents: {inline: a, source: b}}]}\n",
		"a missing file":      "variant: fcos\nversion: 1.5.0\nstorage: {files: [{path: /x, contents: {local: none}}]}\n",
		"a key written twice": "variant: fcos\nvariant: fcos\nversion: 1.5.0\n",
		"a relative path":     "variant: fcos\nversion: 1.5.0\nstorage: {files: [{path: x, contents: {inline: a}}]}\n",
		"a unit with a typo":  "variant: fcos\nversion: 1.5.0\nsystemd: {units: [{name: a.service, contents: \"[Unit\"}]}\n",
	} {
		file := filepath.Join(t.TempDir(), "x.bu")
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := translate(file, t.TempDir(), file+".ign"); err == nil {
			t.Errorf("%s: accepted, want an error", name)
		}
	}
}

func TestTheHistoricConfigurationInTheDocumentIsWhole(t *testing.T) {
	text, err := os.ReadFile("../../docs/coreos.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(text), "```yaml\n#cloud-config\n")
	block, _, end := strings.Cut(rest, "```")
	if !ok || !end {
		t.Fatal("docs/coreos.md has no cloud-config")
	}
	var c struct {
		Hostname string `json:"hostname"`
		CoreOS   struct {
			Etcd2   map[string]string `json:"etcd2"`
			Flannel map[string]string `json:"flannel"`
			Units   []struct {
				Name    string `json:"name"`
				Command string `json:"command"`
				DropIns []struct {
					Name    string `json:"name"`
					Content string `json:"content"`
				} `json:"drop-ins"`
			} `json:"units"`
		} `json:"coreos"`
	}
	if err := yaml.UnmarshalStrict([]byte(block), &c); err != nil {
		t.Fatal(err)
	}
	if c.CoreOS.Etcd2["name"] != c.Hostname || c.CoreOS.Flannel["etcd_endpoints"] == "" || len(c.CoreOS.Units) != 3 {
		t.Errorf("got %+v, want etcd2, flannel and three units", c)
	}
}

// TestTheCommandsOfTheDocumentTranslate runs the block of docs/coreos.md as it stands, on a copy of this tree's folder,
// for each system.
func TestTheCommandsOfTheDocumentTranslate(t *testing.T) {
	text, err := os.ReadFile("../../docs/coreos.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(text), "```sh butane\n")
	block, _, end := strings.Cut(rest, "```")
	if !ok || !end {
		t.Fatal("docs/coreos.md has no commands")
	}
	for _, variant := range variants {
		t.Run(variant, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.CopyFS(filepath.Join(dir, "dist"), os.DirFS("..")); err != nil {
				t.Fatal(err)
			}
			c := exec.Command("sh", "-euc", strings.Replace(block, "dist/cloud/fcos", "dist/cloud/"+variant, 1))
			c.Dir, c.Env = dir, append(os.Environ(), "PATH="+programs+":"+os.Getenv("PATH"))
			if out, err := c.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			made, _ := filepath.Glob(filepath.Join(dir, "dist/cloud", variant, "node*.ign")) // the pattern is valid
			if len(made) != 3 {
				t.Errorf("made %v, want what three machines are given", made)
			}
			for _, file := range made {
				if out, err := program("ignition-validate", file); err != nil || out != "" {
					t.Errorf("%s: %v %s", file, err, out)
				}
			}
		})
	}
}
