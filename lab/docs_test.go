package lab_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"flanneld/lab"
)

// documents returns all of docs/ and the files beside it.
func documents(t *testing.T) []string {
	t.Helper()
	files := must[[]string](t)(filepath.Glob("../docs/*.md"))
	return append(files, "../README.md", "../README.zh.md", "../CONTRIBUTING.md")
}

func TestLinksBetweenDocumentsLeadSomewhere(t *testing.T) {
	t.Parallel()
	for _, file := range documents(t) {
		text := string(must[[]byte](t)(os.ReadFile(file)))
		for _, m := range regexp.MustCompile(`\]\(([^)#:]+)(#[^)]*)?\)`).FindAllStringSubmatch(text, -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(file), m[1])); err != nil {
				t.Errorf("%s links to %s, which is not there", file, m[1])
			}
		}
	}
	index := string(must[[]byte](t)(os.ReadFile("../docs/README.md")))
	for _, file := range must[[]string](t)(filepath.Glob("../docs/*.md")) {
		if name := filepath.Base(file); name != "README.md" && !strings.Contains(index, "]("+name+")") {
			t.Errorf("docs/README.md does not name %s", name)
		}
	}
}

func TestEveryPageBeginsWithWhoNeedsItAndTheShortestWay(t *testing.T) {
	t.Parallel()
	for _, file := range must[[]string](t)(filepath.Glob("../docs/*.md")) {
		if name := filepath.Base(file); name == "README.md" || strings.HasSuffix(name, ".zh.md") {
			continue
		}
		text := string(must[[]byte](t)(os.ReadFile(file)))
		if !regexp.MustCompile(`\A# [^\n]+\n\n(\[[^\n]+\n\n)?For [^#|]*?\. Shortest way: `).MatchString(text) {
			t.Errorf("%s does not begin with whom it is for, and the shortest way", file)
		}
	}
}

// TestADaemonWithLeastRights runs with the role that docs/security.md describes.
func TestADaemonWithLeastRights(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	e := c.etcd(vxlanConfig)
	c.ok(authorize(c, e, "flannel", map[string]bool{"/": false, "/subnets/": true, "/claims/": true}))
	hosts := c.hosts(2)
	var daemons []*lab.Daemon
	for _, h := range hosts {
		daemons = append(daemons, c.start(h, e, "-etcd-username", "flannel", "-etcd-password", "secret"))
	}
	c.ok(lab.Ready(c.ctx, daemons...))
	c.healthy(hosts[0])
	c.refused(hosts[0], 1, "permission denied", "network", "set",
		`{"Network":"10.5.0.0/16","SubnetMin":"10.5.16.0","Backend":{"Type":"vxlan"}}`, "--force")
}
