//go:build kubernetes

package kubernetes_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"flanneld/lab"
)

// TestKubeadmMakesTheClusterOfTheExample runs kubeadm with dist/examples/kubeadm/cluster.yaml: the control plane is
// made of static pods, and kube-proxy is a pod. Their images are made of the programs that the other tests run. What
// stands in for CoreDNS ends at once.
func TestKubeadmMakesTheClusterOfTheExample(t *testing.T) {
	s := newStory(t, clusterOptions{cidr: "10.244.0.0/16", kubeadm: true})
	k := &kubeadm{story: s}
	s.run(t, []step{
		{"kubeadm finds no fault in the example", k.validate},
		{"hosts have containerd, the images, and a kubelet that waits", k.prepare},
		{"kubeadm init makes the control plane", k.init},
		{"another host joins", k.join},
		{"kube-flannel.yml is applied, and all nodes are ready", s.applyKubeFlannel},
		{"each node has its podCIDR, and tells it to the others", s.published},
		{"pods on all nodes reach one another", k.connect},
	})
}

// kubeadm is a cluster that is made by it.
type kubeadm struct {
	*story
	config string // the file of the control plane
}

// surroundings stands behind the example: what differs on hosts that are namespaces of one machine.
const surroundings = `---
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
cgroupDriver: cgroupfs
cgroupsPerQOS: false
enforceNodeAllocatable: [none]
failSwapOn: false
resolvConf: ""
evictionHard: {nodefs.available: "0%", imagefs.available: "0%", memory.available: "0%"}
nodeStatusUpdateFrequency: 1s
---
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
conntrack: {maxPerCore: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
`

// kubeadmSetup is what a host of kubeadm has in addition: the socket of containerd in its usual place.
const kubeadmSetup = `
mkdir /run/containerd
ln -s "$0/sock" /run/containerd/containerd.sock`

// waitingKubelet is what the unit of systemd does that packages of kubeadm bring along.
const waitingKubelet = `cd /var/lib && until [ -e kubelet/config.yaml ] && [ -e kubelet/kubeadm-flags.env ]; do
	sleep 0.2
done
. /var/lib/kubelet/kubeadm-flags.env
exec "$0" --bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf --kubeconfig=/etc/kubernetes/kubelet.conf \
	--config=/var/lib/kubelet/config.yaml $KUBELET_KUBEADM_ARGS`

// run runs kubeadm on a node.
func (k *kubeadm) run(n *node, args ...string) string {
	p := k.plane
	p.t.Helper()
	out, err := n.Exec(k.ctx, n.inside(append([]string{"env", "PATH=" + p.bin + ":" + os.Getenv("PATH"),
		filepath.Join(p.bin, "kubeadm")}, args...)...)...)
	if err != nil {
		p.t.Fatalf("%v\n%s", err, out)
	}
	return out
}

func (k *kubeadm) validate(t *testing.T) {
	p := k.plane
	file := "../examples/kubeadm/cluster.yaml"
	example, err := os.ReadFile(file)
	p.ok(err)
	validate := func(file string) (string, error) {
		out, err := exec.CommandContext(k.ctx, filepath.Join(p.bin, "kubeadm"), "config", "validate", "--config="+file).
			CombinedOutput()
		return string(out), err
	}
	if out, err := validate(file); err != nil || strings.Contains(out, "deprecated") {
		t.Fatalf("%v\n%s", err, out)
	}
	changed := filepath.Join(p.Dir(), "changed.yaml")
	for to, valid := range map[string]bool{
		"podSubnet: 10.244.0.0/16,fd00:244::/48\n": true, // as docs/examples.md says of both families
		"podSubnets: 10.244.0.0/16\n":              false,
	} {
		p.ok(os.WriteFile(changed, []byte(strings.Replace(string(example), "podSubnet: 10.244.0.0/16\n", to, 1)), 0o644))
		if out, err := validate(changed); (err == nil) != valid {
			t.Errorf("with %s valid is %t, want %t:\n%s", to, err == nil, valid, out)
		}
	}
	k.config = filepath.Join(p.Dir(), "cluster.yaml")
	p.ok(os.WriteFile(k.config, append(example, surroundings...), 0o644))
}

func (k *kubeadm) prepare(t *testing.T) {
	p := k.plane
	archives := k.images()
	for i := range 2 {
		name := fmt.Sprintf("node%d", i+1)
		h, err := k.lab.Host(name)
		p.ok(err)
		n := &node{Host: h, name: name}
		k.contain(n, nodeSetup+kubeadmSetup)
		for image, archive := range archives {
			p.ok(n.runtime.Import(k.ctx, archive, image))
		}
		n.kubelet, err = h.Start("kubelet", n.inside("sh", "-c", waitingKubelet, filepath.Join(p.bin, "kubelet"))...)
		p.ok(err)
		k.nodes = append(k.nodes, n)
		k.whole.Cleanup(func() {
			n.kubelet.Kill() // it would make its pods again
			printEnd(k.whole, name+" kubelet", n.kubelet)
			printEnd(k.whole, name+" containerd", n.runtime.Process)
		})
	}
}

// images writes an archive of each image that kubeadm asks for and returns them by the images' names.
func (k *kubeadm) images() map[string]string {
	p := k.plane
	p.t.Helper()
	out, err := exec.CommandContext(k.ctx, filepath.Join(p.bin, "kubeadm"), "config", "images", "list",
		"--kubernetes-version="+version).Output()
	p.ok(err)
	archives := map[string]string{}
	for _, name := range strings.Fields(string(out)) {
		base, _, _ := strings.Cut(filepath.Base(name), ":")
		image := lab.Image{Name: name, Files: map[string]string{}}
		switch base {
		case "etcd":
			image.Files["usr/local/bin/etcd"] = filepath.Join(filepath.Dir(p.bin), "etcd")
		case "pause", "coredns":
			busybox, err := exec.LookPath("busybox")
			p.ok(err)
			image.Files["bin/busybox"], image.Entrypoint = busybox, []string{"/bin/busybox", "sleep", "86400"}
		default:
			image.Files["usr/local/bin/"+base] = filepath.Join(p.bin, base)
		}
		if base == "kube-proxy" {
			addIptables(p, image.Files)
		}
		text, err := image.Archive()
		p.ok(err)
		archives[name] = filepath.Join(p.Dir(), base+".tar")
		p.ok(os.WriteFile(archives[name], text, 0o644))
	}
	if len(archives) != 7 {
		p.t.Fatalf("kubeadm asks for the images\n%s", out)
	}
	return archives
}

// addIptables adds what kube-proxy calls.
func addIptables(p *plane, files map[string]string) {
	p.t.Helper()
	for _, name := range []string{"iptables", "iptables-save", "iptables-restore", "ip6tables", "ip6tables-save",
		"ip6tables-restore"} {
		path, err := exec.LookPath(name)
		p.ok(err)
		files["usr/sbin/"+name] = path
	}
	extensions, err := filepath.Glob("/usr/lib/*/xtables/*.so")
	p.ok(err)
	for _, path := range extensions {
		files[strings.TrimPrefix(path, "/")] = path
	}
}

// init does what docs/examples.md says, and takes the administrator's configuration.
func (k *kubeadm) init(t *testing.T) {
	p, first := k.plane, k.nodes[0]
	t.Log(k.run(first, "init", "--config="+k.config, "--node-name="+first.name, "--ignore-preflight-errors=all"))
	admin, err := first.Exec(k.ctx, first.inside("cat", "/etc/kubernetes/admin.conf")...)
	p.ok(err)
	p.ok(os.MkdirAll(p.certs, 0o700))
	p.ok(os.WriteFile(filepath.Join(p.certs, "admin.yaml"), []byte(admin), 0o600))
}

func (k *kubeadm) join(t *testing.T) {
	p, first, other := k.plane, k.nodes[0], k.nodes[1]
	command := strings.Fields(k.run(first, "token", "create", "--print-join-command"))
	k.run(other, append(command[1:], "--node-name="+other.name, "--ignore-preflight-errors=all")...)
	for _, n := range k.nodes {
		p.await(func() error { return k.withoutNetwork(n) })
	}
}

// connect lets pods run on the control plane, too.
func (k *kubeadm) connect(t *testing.T) {
	k.plane.must("taint", "nodes", k.nodes[0].name, "node-role.kubernetes.io/control-plane-")
	k.story.connect(t)
}
