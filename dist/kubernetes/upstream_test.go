//go:build kubernetes

package kubernetes_test

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"flanneld/hack/blocks"
)

// upstream returns a path in the sources of the released flannel. Its images cannot be had where the tests run, so that
// its pods do not start: what is shown is that its objects become ours.
func (s *story) upstream(path string) string {
	p := s.plane
	p.t.Helper()
	c := exec.CommandContext(s.ctx, "go", "mod", "download", "-json", "github.com/flannel-io/flannel")
	c.Dir = "../../lab/flannel"
	out, err := c.Output()
	p.ok(err)
	var module struct{ Dir string }
	p.ok(json.Unmarshal(out, &module))
	return filepath.Join(module.Dir, path)
}

// replaceRepository has the manifest of kube-flannel's repository applied. Ours is refused until the DaemonSet was
// deleted, as the documentation says.
func (s *story) replaceRepository(t *testing.T) {
	p := s.plane
	p.must("apply", "--filename="+s.upstream("Documentation/kube-flannel.yml"))
	manifest, err := filepath.Abs("kube-flannel.yml")
	p.ok(err)
	const refused = "field is immutable"
	if out, err := p.kubectl("apply", "--filename="+manifest); err == nil || !strings.Contains(err.Error(), refused) {
		t.Fatalf("%v, want that %s\n%s", err, refused, out)
	}
	s.documented(t, blocks.KubeFlannel, false)
}

// replaceRelease has the manifest of a release of kube-flannel applied, which kustomize makes there.
func (s *story) replaceRelease(*testing.T) {
	text := s.plane.must("kustomize", s.upstream("Documentation/kustomization/kube-flannel"))
	s.applyLoosely(text)
	s.selects("app", "k8s-app")
}

// replaceChart has kube-flannel's chart applied.
func (s *story) replaceChart(t *testing.T) {
	s.applyLoosely(s.rendered(t, s.upstream("chart/kube-flannel"), "{}"))
	s.selects("app")
}

// applyLoosely gives objects to the API server that may have fields which it does not know.
func (s *story) applyLoosely(text string) {
	s.plane.must("apply", "--validate=warn", "--filename="+s.written(text))
}

// selects wants the DaemonSet to find its pods by these labels, and to have pods that do not start.
func (s *story) selects(labels ...string) {
	p := s.plane
	p.t.Helper()
	p.await(func() error {
		out, err := p.kubectl("--namespace=kube-flannel", "get", "daemonset", "kube-flannel-ds", "--output",
			`jsonpath={.spec.selector.matchLabels} {.status.currentNumberScheduled}`)
		count := strings.Count(out, `:"flannel"`)
		if err == nil && (count != len(labels) || !strings.HasSuffix(out, fmt.Sprint(" ", len(s.nodes)))) {
			err = fmt.Errorf("the DaemonSet of kube-flannel has %s, want the labels %s and a pod on each of %d nodes", out,
				labels, len(s.nodes))
		}
		return err
	})
}
