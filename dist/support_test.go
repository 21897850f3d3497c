package dist_test

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestTheVersionsThatAreSupportedAreThoseOfTheTests compares docs/support.md with the versions that the tests use.
func TestTheVersionsThatAreSupportedAreThoseOfTheTests(t *testing.T) {
	page, err := os.ReadFile("../docs/support.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ file, version, says string }{
		{"../go.mod", `go\.etcd\.io/etcd/server/v3 v(\d+\.\d+)`, "| etcd | %, "},
		{"kubernetes/components/go.mod", `k8s\.io/kubernetes v(\d+\.\d+)`, "| Kubernetes | %, "},
		{"../lab/flannel/go.mod", `flannel-io/flannel v(\d+\.\d+)`, "| flannel in the same network | %; "},
		{"../lab/docker/go.mod", `moby/moby/v2 v(\S+)`, "(moby %)"},
		{"../lab/apiserver/go.mod", `k8s.io/apiserver v0\.(\d+)`, "the library of 1.%:"},
		{"../cni-plugin/plugintest/plugintest.go", `pluginsVersion += +"v(\d+\.\d+)`, "reference plugins %"},
		{"../Makefile", `(?m)^KERNELS \?= (\S+) `, "; % and "},
		{"../Makefile", `(?m)^KERNELS \?= \S+ (\S+)$`, " and % of Debian in virtual machines"},
	} {
		text, err := os.ReadFile(c.file)
		if err != nil {
			t.Fatal(err)
		}
		m := regexp.MustCompile(c.version).FindSubmatch(text)
		if m == nil {
			t.Errorf("%s has no %s", c.file, c.version)
			continue
		}
		if want := strings.Replace(c.says, "%", string(m[1]), 1); !strings.Contains(string(page), want) {
			t.Errorf("docs/support.md does not say %q, the version in %s", want, c.file)
		}
	}
}
