package dist_test

import (
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"flanneld/options"
	"flanneld/subnet"
)

// exampleFiles returns all files of the examples with what is in them.
func exampleFiles(t *testing.T) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir("examples", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		files[path] = string(text)
		return err
	})
	if err != nil || len(files) < 8 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	return files
}

func TestExamplesNameVariablesThatExistAndNetworksThatAreValid(t *testing.T) {
	var known []string
	for _, g := range options.Groups() {
		for _, f := range g.Flags {
			known = append(known, f.Variable())
		}
	}
	for path, text := range exampleFiles(t) {
		for _, name := range regexp.MustCompile(`FLANNELD_[A-Z0-9_]+`).FindAllString(text, -1) {
			if name != "FLANNELD_IMAGE" && !slices.Contains(known, name) {
				t.Errorf("%s: the daemon has no variable %s", path, name)
			}
		}
		for _, config := range regexp.MustCompile(`\{"Network".*\}\}`).FindAllString(text, -1) {
			if _, err := subnet.ParseConfig([]byte(config)); err != nil {
				t.Errorf("%s: %v", path, err)
			}
		}
		if ext := filepath.Ext(path); ext == ".yaml" || ext == ".yml" {
			for part := range strings.SplitSeq(text, "\n---\n") {
				var v any
				if err := yaml.Unmarshal([]byte(part), &v); err != nil {
					t.Errorf("%s: %v", path, err)
				}
			}
		}
	}
}

func TestTheDocumentationLinksEachExample(t *testing.T) {
	page, err := os.ReadFile("../docs/examples.md")
	if err != nil {
		t.Fatal(err)
	}
	folders, err := os.ReadDir("examples")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range folders {
		if !strings.Contains(string(page), "](../dist/examples/"+f.Name()) {
			t.Errorf("docs/examples.md does not link %s", f.Name())
		}
	}
}

func TestTheDaemonTakesTheSettingsOfTheComposeFile(t *testing.T) {
	var file struct {
		Services map[string]struct {
			Command     []string
			Environment map[string]string
		}
	}
	text := strings.ReplaceAll(exampleFiles(t)["examples/compose/compose.yaml"], "${TOKEN:-}", "TOKEN")
	text = regexp.MustCompile(`\$\{FIRST[^}]*\}`).ReplaceAllString(text, "192.0.2.1")
	if err := yaml.Unmarshal([]byte(text), &file); err != nil || len(file.Services) != 2 {
		t.Fatalf("%d services, %v", len(file.Services), err)
	}
	for name, s := range file.Services {
		var environ []string
		for k, v := range s.Environment {
			environ = append(environ, k+"="+v)
		}
		o, err := options.Parse(s.Command, environ, io.Discard)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if token, hosts := o.Joins(); !o.IPMasq || o.HealthzPort != 10280 || o.EtcdEmbedded != (name == "first") ||
			(token == "TOKEN" && slices.Equal(hosts, []string{"192.0.2.1"})) != (name == "other") {
			t.Errorf("%s: %+v", name, o)
		}
	}
}

func TestTheNetworkOfKubeadmIsThatOfTheManifest(t *testing.T) {
	manifest, err := os.ReadFile("kubernetes/kube-flannel.yml")
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range strings.Split(exampleFiles(t)["examples/kubeadm/cluster.yaml"], "\n---\n") {
		var c struct {
			APIVersion string `json:"apiVersion"`
			Kind       string
			Networking struct{ PodSubnet string }
		}
		if err := yaml.Unmarshal([]byte(part), &c); err != nil || c.APIVersion != "kubeadm.k8s.io/v1beta4" {
			t.Errorf("version %q, %v", c.APIVersion, err)
		}
		if c.Kind == "ClusterConfiguration" &&
			!strings.Contains(string(manifest), `"Network": "`+c.Networking.PodSubnet+`"`) {
			t.Errorf("the manifest's Network is not %s", c.Networking.PodSubnet)
		}
	}
}
