// Package cloud_test checks the configurations for machines that are made by a provisioning service. It is a module of its own because
// it uses the code of Ignition and the types of Kubernetes.
package cloud_test

import (
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/coreos/ignition/v2/config"
	v3_4 "github.com/coreos/ignition/v2/config/v3_4"
	"github.com/coreos/ignition/v2/config/v3_4/types"
	"sigs.k8s.io/yaml"
)

// tool returns a program's path; without it the test is skipped, or fails where skipping is not allowed.
func tool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err == nil {
		return path
	}
	if os.Getenv("CI") != "" {
		t.Fatalf("%s is missing: install what hack/debian-packages lists", name)
	}
	t.Skipf("%s is missing", name)
	return ""
}

// ignite translates a configuration, and returns it as Ignition reads it. Ignition may have nothing to say about it.
func ignite(t *testing.T, file, filesDir string) ([]byte, types.Config) {
	t.Helper()
	text, err := translate(file, filesDir)
	if err != nil {
		t.Fatal(err)
	}
	// What ignition-validate does.
	if _, report, err := config.Parse(text); err != nil || len(report.Entries) > 0 {
		t.Fatalf("%s: Ignition says: %v\n%s", file, err, report.String())
	}
	c, report, err := v3_4.Parse(text)
	if err != nil || len(report.Entries) > 0 {
		t.Fatalf("%s: Ignition 3.4.0 says: %v\n%s", file, err, report.String())
	}
	return text, c
}

// node returns the whole configuration of a host: the cluster's, with its own merged into it by Ignition's own code.
func node(t *testing.T, variant string, n int) types.Config {
	t.Helper()
	dir := t.TempDir()
	text, cluster := ignite(t, filepath.Join(variant, "cluster.bu"), "..")
	if err := os.WriteFile(filepath.Join(dir, "cluster.ign"), text, 0o644); err != nil {
		t.Fatal(err)
	}
	_, own := ignite(t, filepath.Join(variant, fmt.Sprintf("node%d.bu", n)), dir)
	if len(own.Ignition.Config.Merge) != 1 {
		t.Errorf("node%d merges %d configurations, want the cluster's", n, len(own.Ignition.Config.Merge))
	}
	return v3_4.Merge(cluster, own)
}

// files returns the texts that a configuration writes, by path; those to be fetched are empty.
func files(t *testing.T, c types.Config) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, f := range c.Storage.Files {
		_, encoded, ok := strings.Cut(*f.Contents.Source, ";base64,")
		text, err := base64.StdEncoding.DecodeString(encoded)
		if !ok || err != nil {
			text = nil
		}
		out[f.Path] = string(text)
	}
	return out
}

func TestIgnitionAcceptsEveryHost(t *testing.T) {
	for variant := range variants {
		for n := 1; n <= 3; n++ {
			have := files(t, node(t, variant, n))
			if want := fmt.Sprintf("NODE_NAME=node%d\nNODE_ADDRESS=192.0.2.1%d\n", n, n); have["/etc/cluster/node.env"] != want {
				t.Errorf("%s: node.env is %q, want %q", variant, have["/etc/cluster/node.env"], want)
			}
			if member := fmt.Sprintf("node%d=http://192.0.2.1%d:2380", n, n); !strings.Contains(have["/etc/cluster/cluster.env"], member) {
				t.Errorf("%s: the list of members lacks %s", variant, member)
			}
			for _, path := range []string{"/opt/flanneld.tar.gz", "/opt/etcd.tar.gz"} {
				if _, ok := have[path]; !ok {
					t.Errorf("%s: no %s", variant, path)
				}
			}
		}
	}
}

func TestBothSystemsGetTheSameFiles(t *testing.T) {
	fcos, flatcar := files(t, node(t, "fcos", 1)), files(t, node(t, "flatcar", 1))
	for path, text := range fcos {
		if flatcar[path] != text {
			t.Errorf("%s differs between the systems", path)
		}
	}
	if len(fcos) != len(flatcar) {
		t.Errorf("%d and %d files", len(fcos), len(flatcar))
	}
}

// program is what a unit runs that only a host of the cluster has.
var program = regexp.MustCompile(`(?m)^(Exec\w+=-?)(/opt/\S+|/usr/bin/flanneld|/usr/sbin/restorecon)`)

func TestTheUnitsOfAHostAreCleanForSystemd(t *testing.T) {
	dir := t.TempDir()
	have := files(t, node(t, "fcos", 1))
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
		if err := os.WriteFile(to, []byte(program.ReplaceAllString(text, "${1}/bin/true")), 0o644); err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(name, ".service") {
			units = append(units, to)
		}
	}
	if len(units) != 4 {
		t.Errorf("units: %v, want those of etcd, flanneld, docker and the installation", units)
	}
	c := exec.Command(tool(t, "systemd-analyze"), append([]string{"verify", "--man=no"}, units...)...)
	c.Env = append(os.Environ(), "SYSTEMD_UNIT_PATH="+dir+":")
	out, err := c.CombinedOutput()
	if err != nil || strings.Contains(string(out), dir) || strings.Contains(string(out), "flannel") {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
}

func TestEveryUnitThatIsEnabledIsThere(t *testing.T) {
	for variant := range variants {
		c := node(t, variant, 2)
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
			"/etc/cluster/flanneld.env":                         "FLANNELD_ETCD_ENDPOINTS=",
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

func TestTheTranslationRefusesWhatItDoesNotKnow(t *testing.T) {
	for name, text := range map[string]string{
		"an unknown key":      "variant: fcos\nversion: 1.5.0\nboot_device: {}\n",
		"another version":     "variant: fcos\nversion: 9.9.9\n",
		"another variant":     "variant: what\nversion: 1.5.0\n",
		"two kinds of text":   "variant: fcos\nversion: 1.5.0\nstorage: {files: [{path: /x, contents: {inline: a, source: b}}]}\n",
		"a missing file":      "variant: fcos\nversion: 1.5.0\nstorage: {files: [{path: /x, contents: {local: none}}]}\n",
		"a key written twice": "variant: fcos\nvariant: fcos\nversion: 1.5.0\n",
	} {
		file := filepath.Join(t.TempDir(), "x.bu")
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if out, err := translate(file, "."); err == nil {
			t.Errorf("%s: got %s, want an error", name, out)
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
