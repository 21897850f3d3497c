//go:build kubernetes

package kubernetes_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"flanneld/hack/blocks"
	"flanneld/lab"
)

// TestTheKubeFlannelManifestOnACluster follows docs/kubernetes.md with the Kubernetes API as the store, and swaps
// flanneld with the released flannel node by node, there and back.
func TestTheKubeFlannelManifestOnACluster(t *testing.T) {
	s := newStory(t, clusterOptions{cidr: "10.244.0.0/16"})
	s.run(t, []step{
		{"nodes join, and are not ready without a network", s.join},
		{"the manifest of kube-flannel's repository is removed", s.replaceRepository},
		{"the manifest of kube-flannel's release is applied", s.replaceRelease},
		{"kube-flannel.yml is applied over it, and all nodes are ready", s.applyKubeFlannel},
		{"each node has its podCIDR, and tells it to the others", s.published},
		{"pods on all nodes reach one another", s.connect},
		{"flannelctl works in the pods", s.flannelctl},
		{"doctor finds what is wrong with the cluster, and what it advises mends it", s.diagnose},
		{"Services, ports of nodes and names work", func(t *testing.T) { s.serve(t); s.served(t) }},
		{"an update under traffic loses nothing", s.updateKubeFlannel},
		{"a node that reboots comes back, and the others lose nothing", s.restart},
		{"nodes go to the released flannel and back, and nothing is lost", s.swap},
		{"a node that is removed is no peer any more", s.leave},
	})
}

func (s *story) applyKubeFlannel(t *testing.T) {
	p := s.plane
	manifest, err := filepath.Abs("kube-flannel.yml")
	p.ok(err)
	p.must("apply", "--validate=strict", "--filename="+manifest)
	s.rolledOut("kube-flannel", "kube-flannel-ds")
	s.nodesReady()
	t.Log(p.must("get", "nodes,pods", "--all-namespaces", "--output=wide"))
}

// nodeObject is what the test looks at in a Node object.
type nodeObject struct {
	Metadata struct {
		Annotations map[string]string `json:"annotations"`
	} `json:"metadata"`
	Spec struct {
		PodCIDR  string   `json:"podCIDR"`
		PodCIDRs []string `json:"podCIDRs"` // of IPv4 first
	} `json:"spec"`
	Status struct {
		Conditions []struct{ Type, Status, Reason, Message string } `json:"conditions"`
	} `json:"status"`
}

func (s *story) object(n *node) nodeObject {
	s.plane.t.Helper()
	var o nodeObject
	s.plane.ok(json.Unmarshal([]byte(s.plane.must("get", "node", n.name, "--output=json")), &o))
	return o
}

func (s *story) published(t *testing.T) {
	for _, n := range s.nodes {
		o := s.object(n)
		annotation := func(name string) string { return o.Metadata.Annotations["flannel.alpha.coreos.com/"+name] }
		if annotation("kube-subnet-manager") != "true" || annotation("backend-type") != "vxlan" ||
			annotation("public-ip") != n.Addr.String() ||
			!strings.Contains(annotation("backend-data"), `"VtepMAC"`) {
			t.Errorf("%s has the annotations %v", n.name, o.Metadata.Annotations)
		}
		available := false
		for _, c := range o.Status.Conditions {
			available = available || c.Type == "NetworkUnavailable" && c.Status == "False" && c.Reason == "FlannelIsUp"
		}
		if !available {
			t.Errorf("%s has the conditions %v, want NetworkUnavailable=False of flannel", n.name, o.Status.Conditions)
		}
		env := s.on(n, "cat", "/run/flannel/subnet.env")
		gateway := strings.TrimSuffix(o.Spec.PodCIDR, "0/24") + "1/24"
		if !strings.Contains(env, "FLANNEL_SUBNET="+gateway+"\n") ||
			!strings.Contains(env, "FLANNEL_NETWORK=10.244.0.0/16\n") {
			t.Errorf("%s with podCIDR %s has in subnet.env:\n%s", n.name, o.Spec.PodCIDR, env)
		}
	}
}

// on runs a command on a node, among its own files.
func (s *story) on(n *node, args ...string) string {
	s.plane.t.Helper()
	out, err := n.Exec(s.ctx, n.inside(args...)...)
	s.plane.ok(err)
	return out
}

// flannelctl is run as docs/kubernetes.md says. The kernel's settings belong to the machine that the test runs on, so
// that the doctor may find fault with some; it must not look for etcd.
func (s *story) flannelctl(t *testing.T) {
	p := s.plane
	in := func(args ...string) (string, error) {
		return p.kubectl(append([]string{"--namespace=kube-flannel", "exec", "daemonset/kube-flannel-ds",
			"--container=kube-flannel", "--", "flannelctl"}, args...)...)
	}
	p.await(func() error { // probes of peers need a round
		out, err := in("status")
		if err != nil {
			return fmt.Errorf("flannelctl status: %w\n%s", err, out)
		}
		return nil
	})
	s.documented(t, blocks.Cluster, false)
	out, err := in("status")
	p.ok(err)
	if !strings.Contains(out, "the Kubernetes API, reachable") || !strings.Contains(out, "/24, from podCIDRs") {
		t.Errorf("status does not name the store, or where the subnet is from:\n%s", out)
	}
	out, err = in("peers", "--json")
	var peers []struct{ Programmed bool }
	if err == nil {
		err = json.Unmarshal([]byte(out), &peers)
	}
	if err != nil || len(peers) != len(s.nodes)-1 {
		t.Errorf("peers: %v\n%s", err, out)
	}
	out, _ = in("doctor", "-v")
	if !strings.Contains(out, "the Kubernetes API") || strings.Contains(out, "etcdctl") {
		t.Errorf("doctor:\n%s", out)
	}
	t.Log(out)
	if out, err = in("leases"); err != nil || strings.Count(out, "\n") <= len(s.nodes) ||
		strings.Contains(out, "REVISION") {
		t.Errorf("leases: %v, want a line for each of %d nodes, and no revisions\n%s", err, len(s.nodes), out)
	}
	if out, err = in("network", "get"); err == nil || !strings.Contains(err.Error()+out, "kubectl") {
		t.Errorf("network get: %v, want an error that names kubectl\n%s", err, out)
	}
}

func (s *story) updateKubeFlannel(t *testing.T) {
	p := s.plane
	before := p.must("--namespace=kube-flannel", "get", "pods", "--output=name")
	s.loseNothing(t, func() {
		p.must("--namespace=kube-flannel", "rollout", "restart", "daemonset", "kube-flannel-ds")
		s.rolledOut("kube-flannel", "kube-flannel-ds")
	})
	s.replaced(t, before)
}

// restart reboots a node.
func (s *story) restart(t *testing.T) {
	p := s.plane
	n := s.nodes[0]
	before, containers := s.object(n).Metadata.Annotations["flannel.alpha.coreos.com/backend-data"], s.containers(n)
	s.loseNothing(t, func() {
		s.reboot(n)
		p.await(func() error { return s.runs(n, "vxlan") })
	}, n)
	p.must("wait", "--for=condition=Ready", "node/"+n.name, "--timeout=60s")
	p.await(func() error {
		for _, c := range s.containers(n) {
			if slices.Contains(containers, c) {
				return fmt.Errorf("the API server does not know yet that container %s of %s is gone", c, n.name)
			}
		}
		return nil
	})
	p.must("wait", "--for=condition=Ready", "pod", "--selector=app in (box, web)", "--timeout=60s")
	s.boxes()
	s.reach(t)
	s.served(t)
	if after := s.object(n).Metadata.Annotations["flannel.alpha.coreos.com/backend-data"]; after != before {
		t.Errorf("the reboot has changed what %s publishes from %s to %s: the hardware address is kept on the disk", n.name,
			before, after)
	}
}

// containers returns the identities of the test containers of a node.
func (s *story) containers(n *node) []string {
	s.plane.t.Helper()
	return strings.Fields(s.plane.must("get", "pods", "--selector=app in (box, web)", "--field-selector=spec.nodeName="+
		n.name,
		"--output", "jsonpath={.items[*].status.containerStatuses[*].containerID}"))
}

// mark is the label of nodes that run flanneld in the step that swaps.
const mark = "example.com/flanneld"

// swap takes flanneld from one node after the other and starts the released flannel there, and goes the way back. All
// pods reach one another at each moment in between.
func (s *story) swap(t *testing.T) {
	p := s.plane
	program := filepath.Join(filepath.Dir(s.plane.bin), "former-flannel")
	p.ok(lab.BuildFlannel(s.ctx, program, "../../lab/flannel"))
	p.must("label", "node", "--all", mark+"=yes")
	p.must("--namespace=kube-flannel", "patch", "daemonset", "kube-flannel-ds", "--patch",
		`{"spec": {"template": {"spec": {"nodeSelector": {"`+mark+`": "yes"}}}}}`)
	s.rolledOut("kube-flannel", "kube-flannel-ds")
	former := map[string]*lab.Process{}
	s.loseNothing(t, func() {
		for _, n := range s.nodes {
			p.must("label", "node", n.name, mark+"-")
			s.runsFlanneld(n, false)
			former[n.name] = s.flannel(n, program)
			s.reach(t)
		}
		for _, n := range s.nodes {
			p.ok(former[n.name].Stop(s.ctx)) // as kubelet does
			p.must("label", "node", n.name, mark+"=yes")
			s.runsFlanneld(n, true)
			s.reach(t)
		}
	})
}

// flannel starts the released flannel on a node, with the arguments of its manifest, and waits until it says that its
// backend runs.
func (s *story) flannel(n *node, program string) *lab.Process {
	p := s.plane
	p.t.Helper()
	config := filepath.Join(n.Dir(), "net-conf.json")
	p.ok(os.WriteFile(config, []byte(`{"Network": "10.244.0.0/16", "EnableNFTables": false, "Backend": {"Type": "vxlan"}}`), 0o644))
	f, err := n.Start("flannel", n.inside("env", "NODE_NAME="+n.name, program, "--ip-masq", "--kube-subnet-mgr",
		"--net-config-path="+config,
		"--kubeconfig-file="+filepath.Join(p.certs, "admin.yaml"))...)
	p.ok(err)
	s.whole.Cleanup(func() { printEnd(s.whole, n.name+" flannel", f) })
	p.await(func() error {
		if !strings.Contains(f.Log(), "Running backend") {
			return fmt.Errorf("flannel does not run:\n%s", f.Log())
		}
		return nil
	})
	return f
}

// runsFlanneld waits until a node has a ready pod of flanneld, or none.
func (s *story) runsFlanneld(n *node, want bool) {
	p := s.plane
	p.t.Helper()
	p.await(func() error {
		out, err := p.kubectl("--namespace=kube-flannel", "get", "pods", "--field-selector=spec.nodeName="+n.name,
			"--output", `jsonpath={.items[*].status.conditions[?(@.type=="Ready")].status}`)
		if want && strings.TrimSpace(out) != "True" || !want && strings.TrimSpace(out) != "" {
			return fmt.Errorf("%s: flanneld is ready: %q", n.name, out)
		}
		return err
	})
}

// leave removes a node, and waits until the others have no route to its pods.
func (s *story) leave(t *testing.T) {
	p := s.plane
	gone, cidr := s.nodes[len(s.nodes)-1], s.object(s.nodes[len(s.nodes)-1]).Spec.PodCIDR
	gone.kubelet.Kill() // it would make its Node object again
	p.must("delete", "node", gone.name)
	for _, n := range s.nodes[:len(s.nodes)-1] {
		p.await(func() error {
			if routes := s.on(n, "ip", "route", "show", cidr); routes != "" {
				return fmt.Errorf("%s has routes to the node that was removed: %s", n.name, routes)
			}
			return nil
		})
	}
	s.nodes = s.nodes[:len(s.nodes)-1]
}
