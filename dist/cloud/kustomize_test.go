package cloud_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

// An overlay that names the image and the endpoints of etcd, as docs/kubernetes.md shows it.
const etcdOverlay = `
resources: [base]
images: [{name: registry.example.com/flanneld, newName: registry.example.net/net, newTag: v7}]
patches:
  - patch: |
      apiVersion: apps/v1
      kind: DaemonSet
      metadata: {name: flannel, namespace: kube-flannel}
      spec: {template: {spec: {containers: [{name: flanneld, env: [{name: FLANNELD_ETCD_ENDPOINTS, value: "https://192.0.2.7:2379"}]}]}}}
`

// build makes what kubectl apply -k would send.
func build(t *testing.T, dir string) map[string]map[string]any {
	t.Helper()
	resources, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), dir)
	if err != nil {
		t.Fatal(err)
	}
	text, err := resources.AsYaml()
	if err != nil {
		t.Fatal(err)
	}
	documents := map[string]map[string]any{}
	addDocuments(t, documents, string(text))
	return documents
}

func TestKustomizeMakesTheManifests(t *testing.T) {
	for dir, manifest := range map[string]string{"../kubernetes": "kube-flannel.yml",
		"../kubernetes/etcd": "flannel.yaml"} {
		text, err := os.ReadFile(filepath.Join(dir, manifest))
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]map[string]any{}
		addDocuments(t, want, string(text))
		got := build(t, dir)
		for kind, document := range want {
			if d := cmp.Diff(document, got[kind]); d != "" {
				t.Errorf("%s, %s (-manifest +kustomize):\n%s", manifest, kind, d)
			}
		}
		if len(got) != len(want) {
			t.Errorf("%s: kustomize makes %d objects of %d", manifest, len(got), len(want))
		}
	}
}

func TestAnOverlayNamesTheImageAndTheEndpoints(t *testing.T) {
	dir := t.TempDir()
	if err := os.CopyFS(filepath.Join(dir, "base"), os.DirFS("../kubernetes/etcd")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(etcdOverlay), 0o600); err != nil {
		t.Fatal(err)
	}
	pod := at(t, build(t, dir)["DaemonSet"], "spec", "template", "spec")
	if image := at(t, pod, "containers", 0, "image"); image != "registry.example.net/net:v7" ||
		at(t, pod, "initContainers", 0, "image") != image {
		t.Errorf("image %v", image)
	}
	found := false
	for _, env := range at(t, pod, "containers", 0, "env").([]any) {
		found = found || at(t, env, "name") == "FLANNELD_ETCD_ENDPOINTS" && at(t, env, "value") == "https://192.0.2.7:2379"
	}
	if !found {
		t.Errorf("environment %v", at(t, pod, "containers", 0, "env"))
	}
}
