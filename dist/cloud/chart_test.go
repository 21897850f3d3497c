package cloud_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	"helm.sh/helm/v4/pkg/chart/v2/lint"
	"helm.sh/helm/v4/pkg/chart/v2/lint/support"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/engine"
	"sigs.k8s.io/yaml"
)

const chartDir = "../kubernetes/chart"

// render returns the documents of the chart by kind.
func render(t *testing.T, values map[string]any) (map[string]map[string]any, error) {
	t.Helper()
	chart, err := loader.Load(chartDir)
	if err != nil {
		t.Fatal(err)
	}
	all, err := util.ToRenderValues(chart, values, common.ReleaseOptions{Name: "flannel", Namespace: "kube-flannel"},
		common.DefaultCapabilities)
	if err != nil {
		t.Fatal(err)
	}
	files, err := engine.Render(chart, all)
	if err != nil {
		return nil, err
	}
	documents := map[string]map[string]any{}
	for name, text := range files {
		if strings.HasSuffix(name, ".tpl") {
			continue
		}
		addDocuments(t, documents, text)
	}
	return documents, nil
}

// addDocuments reads the documents of a YAML text.
func addDocuments(t *testing.T, to map[string]map[string]any, text string) {
	t.Helper()
	for document := range strings.SplitSeq(text, "\n---\n") {
		var d map[string]any
		if err := yaml.Unmarshal([]byte(document+"\n"), &d); err != nil {
			t.Fatalf("%v\n%s", err, document)
		}
		to[d["kind"].(string)] = d
	}
}

func mustRender(t *testing.T, values map[string]any) map[string]map[string]any {
	t.Helper()
	d, err := render(t, values)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// at returns what stands at a path of fields and indexes.
func at(t *testing.T, d any, path ...any) any {
	t.Helper()
	for _, step := range path {
		switch step := step.(type) {
		case string:
			d = d.(map[string]any)[step]
		case int:
			d = d.([]any)[step]
		}
	}
	return d
}

func TestTheChartIsWellFormed(t *testing.T) {
	result := lint.RunAll(chartDir, nil, "kube-flannel")
	for _, m := range result.Messages {
		if m.Severity > support.InfoSev {
			t.Error(m)
		}
	}
}

// Without values the chart is the manifest: there is one truth, in two forms.
func TestTheChartIsTheManifest(t *testing.T) {
	text, err := os.ReadFile("../kubernetes/kube-flannel.yml")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]map[string]any{}
	addDocuments(t, want, string(text))
	delete(want, "Namespace") // helm makes it
	got := mustRender(t, nil)
	delete(at(t, got["DaemonSet"], "spec", "template", "metadata").(map[string]any), "annotations")
	// A selector cannot be changed: the chart has that of kube-flannel's chart, the manifest that of its releases.
	selector := at(t, got["DaemonSet"], "spec", "selector", "matchLabels").(map[string]any)
	if d := cmp.Diff(map[string]any{"app": "flannel"}, selector); d != "" {
		t.Errorf("selector of the chart:\n%s", d)
	}
	selector["k8s-app"] = "flannel"
	for _, d := range []map[string]map[string]any{got, want} {
		data := d["ConfigMap"]["data"].(map[string]any)
		for name, text := range data {
			var v any
			if err := json.Unmarshal([]byte(text.(string)), &v); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			data[name] = v
		}
	}
	for kind, document := range want {
		if d := cmp.Diff(document, got[kind]); d != "" {
			t.Errorf("%s (-manifest +chart):\n%s", kind, d)
		}
	}
	if len(got) != len(want) {
		t.Errorf("the chart has %v", slices.Sorted(maps.Keys(got)))
	}
}

// Each value of kube-flannel's chart reaches the option of the backend that it stands for.
func TestValuesOfTheChartReachTheNetworkConfiguration(t *testing.T) {
	for _, tt := range []struct {
		name   string
		values string
		want   string
	}{
		{"vxlan", `flannel: {backend: vxlan, backendPort: 8472, vni: 7, GBP: true, directRouting: true, mtu: 1400, psk: ignored}`,
			`{"EnableNFTables": false, "Network": "10.244.0.0/16", "Backend": {"Type": "vxlan", "Port": 8472, "VNI": 7, "GBP": true, "DirectRouting": true, "MTU": 1400}}`},
		{"wireguard", `flannel: {backend: wireguard, backendPort: 51820, backendPortv6: 51821, psk: key, mtu: 1400, tunnelMode: auto, keepaliveInterval: 25}`,
			`{"EnableNFTables": false, "Network": "10.244.0.0/16", "Backend": {"Type": "wireguard", "ListenPort": 51820, "ListenPortV6": 51821, "PSK": "key", "MTU": 1400, "Mode": "auto", "PersistentKeepaliveInterval": 25}}`},
		{"udp", `flannel: {backend: udp, backendPort: 8285}`,
			`{"EnableNFTables": false, "Network": "10.244.0.0/16", "Backend": {"Type": "udp", "Port": 8285}}`},
		{"host-gw, nftables", `flannel: {backend: host-gw, enableNFTables: true}`,
			`{"EnableNFTables": true, "Network": "10.244.0.0/16", "Backend": {"Type": "host-gw"}}`},
		{"both families", `{podCidr: 10.5.0.0/16, podCidrv6: "fd00:5::/48"}`,
			`{"EnableNFTables": false, "Network": "10.5.0.0/16", "IPv6Network": "fd00:5::/48", "EnableIPv6": true, "Backend": {"Type": "vxlan"}}`},
		{"IPv6 alone", `{podCidr: "", podCidrv6: "fd00:5::/48"}`,
			`{"EnableNFTables": false, "EnableIPv4": false, "IPv6Network": "fd00:5::/48", "EnableIPv6": true, "Backend": {"Type": "vxlan"}}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var values map[string]any
			if err := yaml.Unmarshal([]byte(tt.values), &values); err != nil {
				t.Fatal(err)
			}
			text := at(t, mustRender(t, values)["ConfigMap"], "data", "net-conf.json").(string)
			var got, want any
			if err := json.Unmarshal([]byte(text), &got); err != nil {
				t.Fatalf("%v\n%s", err, text)
			}
			if err := json.Unmarshal([]byte(tt.want), &want); err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got  %s\nwant %s", text, tt.want)
			}
		})
	}
}

func TestValuesOfTheChartReachThePods(t *testing.T) {
	var values map[string]any
	err := yaml.Unmarshal([]byte(`
global: {imagePullSecrets: [{name: registry}]}
flannel:
  image: {repository: registry.example.net/net, tag: v7}
  args: [--ip-masq, --kube-subnet-mgr, --iface=eth1]
  cniBinDir: /var/lib/rancher/bin
  cniConfDir: /var/lib/rancher/net.d
  healthz: {port: 0}
  tolerations: [{key: only, operator: Exists}]
  nodeSelector: {role: worker}
`), &values)
	if err != nil {
		t.Fatal(err)
	}
	pod := at(t, mustRender(t, values)["DaemonSet"], "spec", "template", "spec")
	daemon := at(t, pod, "containers", 0).(map[string]any)
	text := fmt.Sprint(pod)
	for what, ok := range map[string]bool{
		"image": daemon["image"] == "registry.example.net/net:v7" &&
			at(t, pod, "initContainers", 0, "image") == daemon["image"],
		"arguments": fmt.Sprint(daemon["args"]) == "[--ip-masq --kube-subnet-mgr --iface=eth1]",
		"no probes": daemon["livenessProbe"] == nil && daemon["readinessProbe"] == nil,
		"folders": strings.Contains(text, "path:/var/lib/rancher/bin") &&
			strings.Contains(text, "path:/var/lib/rancher/net.d"),
		"tolerations":  fmt.Sprint(at(t, pod, "tolerations")) == "[map[key:only operator:Exists]]",
		"nodes":        fmt.Sprint(at(t, pod, "nodeSelector")) == "map[kubernetes.io/os:linux role:worker]",
		"pull secrets": fmt.Sprint(at(t, pod, "imagePullSecrets")) == "[map[name:registry]]",
	} {
		if !ok {
			t.Errorf("not so: %s", what)
		}
	}
}

func TestTheChartCanLeaveTheConfigurationOfCNIAlone(t *testing.T) {
	d := mustRender(t, map[string]any{"flannel": map[string]any{"skipCNIConfigInstallation": true}})
	if text := fmt.Sprint(d["DaemonSet"]); strings.Contains(text, "net.d") || strings.Contains(text, "cni-conf") {
		t.Errorf("the configuration of CNI is installed: %s", text)
	}
}

func TestTheChartCanGiveThePodAllRights(t *testing.T) {
	d := mustRender(t, map[string]any{"flannel": map[string]any{"privileged": true}})
	got := at(t, d["DaemonSet"], "spec", "template", "spec", "containers", 0, "securityContext")
	if want := map[string]any{"privileged": true, "readOnlyRootFilesystem": true}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestTheChartWantsANetwork(t *testing.T) {
	if _, err := render(t, map[string]any{"podCidr": ""}); err == nil || !strings.Contains(err.Error(), "podCidr") {
		t.Errorf("got %v, want an error that names podCidr", err)
	}
}
