package cloud_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	rbac "k8s.io/api/rbac/v1"
	"sigs.k8s.io/yaml"
)

// manifests are the documents of the Kubernetes manifest, read strictly into the types of the API: an unknown field is
// an error.
type manifests struct {
	namespace core.Namespace
	account   core.ServiceAccount
	config    core.ConfigMap
	daemon    apps.DaemonSet
	role      rbac.ClusterRole // of the one with the Kubernetes API as the store
	binding   rbac.ClusterRoleBinding
}

func readManifests(t *testing.T) manifests {
	t.Helper()
	var m manifests
	readInto(t, "etcd/flannel.yaml", map[string]any{
		"v1 Namespace": &m.namespace, "v1 ServiceAccount": &m.account, "v1 ConfigMap": &m.config,
		"apps/v1 DaemonSet": &m.daemon,
	})
	return m
}

// readInto reads the documents of a manifest, one of each kind.
func readInto(t *testing.T, name string, kinds map[string]any) {
	t.Helper()
	text, err := os.ReadFile("../kubernetes/" + name)
	if err != nil {
		t.Fatal(err)
	}
	for document := range strings.SplitSeq(string(text), "\n---\n") {
		var head struct {
			APIVersion string `json:"apiVersion"`
			Kind       string `json:"kind"`
		}
		if err := yaml.Unmarshal([]byte(document), &head); err != nil {
			t.Fatal(err)
		}
		kind := head.APIVersion + " " + head.Kind
		into := kinds[kind]
		if into == nil {
			t.Fatalf("a second or unknown document: %s", kind)
		}
		delete(kinds, kind)
		if err := yaml.UnmarshalStrict([]byte(document), into); err != nil {
			t.Fatalf("%s: %v", kind, err)
		}
	}
	if len(kinds) > 0 {
		t.Fatalf("documents missing: %v", kinds)
	}
}

// What a cluster with kube-flannel has is what our manifest replaces: kubectl apply finds objects by these names.
func TestTheManifestTakesOverFromKubeFlannel(t *testing.T) {
	var m manifests
	readInto(t, "kube-flannel.yml", map[string]any{
		"v1 Namespace": &m.namespace, "v1 ServiceAccount": &m.account, "v1 ConfigMap": &m.config,
		"apps/v1 DaemonSet":                        &m.daemon,
		"rbac.authorization.k8s.io/v1 ClusterRole": &m.role, "rbac.authorization.k8s.io/v1 ClusterRoleBinding": &m.binding,
	})
	pod := m.daemon.Spec.Template
	c := pod.Spec.Containers[0]
	rules := map[string]string{}
	for _, r := range m.role.Rules {
		rules[strings.Join(r.Resources, ",")] = strings.Join(r.Verbs, ",")
	}
	for what, ok := range map[string]bool{
		"names of the objects": m.namespace.Name == "kube-flannel" && m.config.Name == "kube-flannel-cfg" &&
			m.daemon.Name == "kube-flannel-ds" &&
			m.account.Name == "flannel" && m.role.Name == "flannel" && m.binding.Name == "flannel",
		"all in one namespace": m.account.Namespace == m.namespace.Name && m.config.Namespace == m.namespace.Name &&
			m.daemon.Namespace == m.namespace.Name,
		"selector (immutable)": fmt.Sprint(m.daemon.Spec.Selector.MatchLabels) == fmt.Sprint(map[string]string{"app": "flannel", "k8s-app": "flannel"}),
		"arguments":            slices.Equal(c.Args[:2], []string{"--ip-masq", "--kube-subnet-mgr"}),
		"rights and no more": fmt.Sprint(rules) == fmt.Sprint(map[string]string{"pods": "get", "nodes": "get,list,watch",
			"nodes/status": "patch"}),
		"the binding fits": m.binding.RoleRef.Name == m.role.Name && m.binding.Subjects[0].Name == m.account.Name &&
			m.binding.Subjects[0].Namespace == m.namespace.Name,
		"access to the API": pod.Spec.AutomountServiceAccountToken == nil && pod.Spec.ServiceAccountName == m.account.Name,
		"the node's name":   c.Env[0].Name == "NODE_NAME" && c.Env[0].ValueFrom.FieldRef.FieldPath == "spec.nodeName",
		"the configuration": json.Valid([]byte(m.config.Data["cni-conf.json"])) &&
			json.Valid([]byte(m.config.Data["net-conf.json"])),
		"the list is cbr0": strings.Contains(m.config.Data["cni-conf.json"], `"name": "cbr0"`),
		"it is mounted": slices.ContainsFunc(c.VolumeMounts,
			func(v core.VolumeMount) bool { return v.MountPath == "/etc/kube-flannel" }) &&
			mounted(pod.Spec, "/run/flannel") == "/run/flannel" && mounted(pod.Spec, "/host/etc/cni/net.d") == "/etc/cni/net.d",
		"two capabilities and no more":           twoCapabilities(c),
		"probes ask where the daemon is told to": probed(c),
		"every node": pod.Spec.HostNetwork &&
			pod.Spec.Tolerations[0].Operator == core.TolerationOpExists && pod.Spec.PriorityClassName == "system-node-critical",
	} {
		if !ok {
			t.Errorf("not so: %s", what)
		}
	}
}

func TestTheManifestFitsTheTypesOfKubernetes(t *testing.T) {
	m := readManifests(t)
	pod := m.daemon.Spec.Template
	for what, ok := range map[string]bool{
		"all in one namespace": m.account.Namespace == m.namespace.Name &&
			m.config.Namespace == m.namespace.Name && m.daemon.Namespace == m.namespace.Name,
		"the selector fits the pods": fmt.Sprint(m.daemon.Spec.Selector.MatchLabels) == fmt.Sprint(pod.Labels),
		"the pods use the account":   pod.Spec.ServiceAccountName == m.account.Name,
		"the host's network":         pod.Spec.HostNetwork,
		"the first on a node":        pod.Spec.PriorityClassName == "system-node-critical",
		"every node, ready or not": len(pod.Spec.Tolerations) == 1 &&
			pod.Spec.Tolerations[0].Operator == core.TolerationOpExists && pod.Spec.Tolerations[0].Key == "",
		"two capabilities and no more": twoCapabilities(pod.Spec.Containers[0]),
		// the host's network and folders are privileges, too
		"the namespace admits privileged pods": m.namespace.Labels["pod-security.kubernetes.io/enforce"] == "privileged",
		"no access to the API": pod.Spec.AutomountServiceAccountToken != nil &&
			!*pod.Spec.AutomountServiceAccountToken,
		"one image":                              pod.Spec.InitContainers[0].Image == pod.Spec.Containers[0].Image,
		"an init container installs the plugin":  pod.Spec.InitContainers[0].Command[0] == "/usr/bin/install-cni",
		"a node at a time or a few":              m.daemon.Spec.UpdateStrategy.RollingUpdate.MaxUnavailable.String() == "10%",
		"probes ask where the daemon is told to": probed(pod.Spec.Containers[0]),
		"the daemon keeps its state over a pod":  mounted(pod.Spec, "/var/lib/flannel") == "/var/lib/flannel",
		"the plugin finds the subnet file":       mounted(pod.Spec, "/run/flannel") == "/run/flannel",
		"the plugin is where kubelets look for it": mounted(pod.Spec, "/host/opt/cni/bin") == "/opt/cni/bin" &&
			mounted(pod.Spec, "/host/etc/cni/net.d") == "/etc/cni/net.d",
	} {
		if !ok {
			t.Errorf("not so: %s", what)
		}
	}
}

// twoCapabilities reports whether the container of the daemon has those that the manifests give, and no other rights.
func twoCapabilities(c core.Container) bool {
	s := c.SecurityContext
	return s.Privileged == nil && !*s.AllowPrivilegeEscalation && *s.ReadOnlyRootFilesystem &&
		fmt.Sprint(s.Capabilities.Drop) == "[ALL]" && fmt.Sprint(s.Capabilities.Add) == "[NET_ADMIN NET_RAW]"
}

// probed reports whether both probes ask the address and port that the daemon's flags name.
func probed(c core.Container) bool {
	for _, p := range []*core.Probe{c.LivenessProbe, c.ReadinessProbe} {
		if p == nil || !slices.Contains(c.Args, "-healthz-ip="+p.HTTPGet.Host) ||
			!slices.Contains(c.Args, "-healthz-port="+p.HTTPGet.Port.String()) {
			return false
		}
	}
	return true
}

// mounted returns the host's folder that containers see at a path.
func mounted(pod core.PodSpec, path string) string {
	for _, c := range slices.Concat(pod.InitContainers, pod.Containers) {
		for _, m := range c.VolumeMounts {
			for _, v := range pod.Volumes {
				if m.MountPath == path && v.Name == m.Name && v.HostPath != nil {
					return v.HostPath.Path
				}
			}
		}
	}
	return ""
}

func TestEveryVolumeIsDeclaredAndUsed(t *testing.T) {
	pod := readManifests(t).daemon.Spec.Template.Spec
	used := map[string]bool{}
	for _, c := range slices.Concat(pod.InitContainers, pod.Containers) {
		for _, m := range c.VolumeMounts {
			used[m.Name] = true
		}
	}
	for _, v := range pod.Volumes {
		if !used[v.Name] {
			t.Errorf("volume %s is not used", v.Name)
		}
		delete(used, v.Name)
	}
	if len(used) > 0 {
		t.Errorf("volumes used and not declared: %v", used)
	}
}

func TestTheConfigurationInTheManifestIsValid(t *testing.T) {
	m := readManifests(t)
	for name, text := range m.config.Data {
		if !json.Valid([]byte(text)) {
			t.Errorf("%s is no JSON", name)
		}
	}
	list, err := os.ReadFile("../cni/10-flannel.conflist")
	if err != nil {
		t.Fatal(err)
	}
	if m.config.Data["10-flannel.conflist"] != string(list) {
		t.Error("10-flannel.conflist of the manifest is not the one in the package")
	}
	for _, arg := range slices.Concat(m.daemon.Spec.Template.Spec.InitContainers[0].Args,
		m.daemon.Spec.Template.Spec.Containers[0].Args) {
		if _, file, ok := strings.Cut(arg, "/etc/flannel/"); ok && m.config.Data[filepath.Base(file)] == "" {
			t.Errorf("%s: the ConfigMap has no such file", arg)
		}
	}
}
