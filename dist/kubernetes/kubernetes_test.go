//go:build kubernetes

// Package kubernetes_test applies the manifest of this folder to a cluster of Kubernetes: its own components, with
// containerd, on hosts of the lab. It needs root, and minutes to build Kubernetes the first time.
package kubernetes_test

import (
	"cmp"
	"context"
	"crypto/x509/pkix"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"flanneld/hack/blocks"
	"flanneld/lab"
)

var work = flag.String("work", "../../.cache/kubernetes", "`folder` for programs, kept for the next run")

const (
	patience = 2 * time.Minute
	image    = "registry.example.com/flanneld:latest" // as the manifest names it
)

// story is one cluster. Its steps build on one another.
type story struct {
	whole *testing.T // what has to be undone is undone at its end
	ctx   context.Context
	lab   *lab.Lab
	store *lab.Etcd
	plane *plane
	nodes []*node
	image string                  // archive
	pods  map[string][]netip.Addr // of the boxes
	at    map[string]string       // names of their nodes

	o      clusterOptions
	client *lab.Host // outside the cluster; nil: none yet
}

// clusterOptions say what cluster it is.
type clusterOptions struct {
	cidr     string // what the controllers give the nodes' podCIDRs from; empty: nodes get none
	nftables bool   // the mode of kube-proxy; else iptables
	dual     bool   // both families
	nodes    int    // 0: three
	bare     bool   // the API server alone, without an image for nodes
	kubeadm  bool   // made by it
}

// step is a part of a story.
type step struct {
	name string
	do   func(*testing.T)
}

func TestTheManifestOnACluster(t *testing.T) {
	s := newStory(t, clusterOptions{})
	s.run(t, []step{
		{"nodes join, and are not ready without a network", s.join},
		{"the manifest is applied as the documentation says, and all nodes are ready", s.applyEtcd},
		{"pods on all nodes reach one another", s.connect},
		{"an update under traffic loses nothing", s.update},
	})
}

// newStory makes the programs, and a cluster without hosts.
func newStory(t *testing.T, o clusterOptions) *story {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Minute)
	t.Cleanup(cancel)
	s := &story{whole: t, ctx: ctx, o: o}
	s.build(t)
	return s
}

// run does the steps of the story, up to the first that fails.
func (s *story) run(t *testing.T, steps []step) {
	t.Helper()
	for _, step := range steps {
		start := time.Now()
		ok := t.Run(step.name, func(t *testing.T) {
			s.plane.t = t
			step.do(t)
		})
		if !ok {
			t.FailNow()
		}
		t.Logf("%5.1f s  %s", time.Since(start).Seconds(), step.name)
	}
}

// build makes the programs, the image and an empty lab.
func (s *story) build(t *testing.T) {
	t.Helper()
	dir, err := filepath.Abs(*work)
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	wanted := components
	if s.o.bare {
		wanted = []string{"kube-apiserver", "kubectl"}
	}
	if s.o.kubeadm {
		wanted = append(slices.Clone(components), "kubeadm")
	}
	bin, err := buildComponents(s.ctx, dir, wanted...)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%5.1f s  Kubernetes %s", time.Since(start).Seconds(), version)
	start = time.Now()
	etcd, program := filepath.Join(dir, "etcd"), filepath.Join(dir, "release")
	if err := lab.GoBuild(s.ctx, etcd, "flanneld/lab/etcd"); err != nil {
		t.Fatal(err)
	}
	if !s.o.bare {
		s.buildImage(t, program)
	}
	t.Logf("%5.1f s  image and store", time.Since(start).Seconds())
	if s.lab, err = lab.New(lab.Options{Binaries: lab.Binaries{Etcd: etcd}, Families: s.families()}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.lab.Close)
	host, err := s.lab.Host("plane")
	if err != nil {
		t.Fatal(err)
	}
	s.plane = &plane{Host: host, whole: t, ctx: s.ctx, bin: bin, certs: filepath.Join(host.Dir(), "certs"), cidr: s.o.cidr,
		dual: s.o.dual}
}

// buildImage makes the image as a release does.
func (s *story) buildImage(t *testing.T, program string) {
	t.Helper()
	must(t, "../release", "go", "build", "-o", program, ".")
	out := t.TempDir()
	must(t, ".", program, "-root", "../..", "-o", out, "-arch", runtime.GOARCH, "-version", "v0.1.0", "-kinds", "image")
	s.image = filepath.Join(out, "flanneld-0.1.0-image.tar")
}

func (s *story) families() lab.Families {
	if s.o.dual {
		return lab.Dual
	}
	return lab.IPv4
}

func must(t *testing.T, dir, name string, args ...string) {
	t.Helper()
	c := exec.CommandContext(t.Context(), name, args...)
	c.Dir = dir
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}

// printEnd prints the end of a log if the test has failed.
func printEnd(t testing.TB, name string, p *lab.Process) {
	if !t.Failed() {
		return
	}
	lines := strings.Split(strings.TrimSpace(p.Log()), "\n")
	t.Logf("%s:\n%s", name, strings.Join(lines[max(0, len(lines)-30):], "\n"))
}

func (s *story) join(t *testing.T) {
	p := s.plane
	s.startStore()
	p.serve(s.store)
	p.control()
	for i := range cmp.Or(s.o.nodes, 3) {
		s.nodes = append(s.nodes, s.node(fmt.Sprintf("node%d", i+1)))
	}
	for _, n := range s.nodes {
		p.await(func() error { return s.withoutNetwork(n) })
	}
}

// withoutNetwork reports whether a node says that it has no network.
func (s *story) withoutNetwork(n *node) error {
	out, err := s.plane.kubectl("get", "node", n.name, "--output",
		`jsonpath={.status.conditions[?(@.type=="Ready")].message}`)
	if err == nil && !strings.Contains(out, "cni plugin not initialized") {
		err = fmt.Errorf("%s: %q, want that it has no network", n.name, out)
	}
	return err
}

// startStore starts etcd with TLS.
func (s *story) startStore() {
	p := s.plane
	p.t.Helper()
	p.ok(os.MkdirAll(p.certs, 0o700))
	var err error
	p.authority, err = lab.NewAuthority(p.certs)
	p.ok(err)
	s.store, err = s.lab.IdleEtcd("etcd")
	p.ok(err)
	p.ok(p.authority.Issue("server", pkix.Name{CommonName: "etcd"}, s.store.Addr))
	p.ok(p.authority.Issue("etcd-client", pkix.Name{CommonName: "flannel"}))
	p.ok(s.store.StartTLS(s.ctx, p.certs))
}

// applyEtcd does what docs/kubernetes.md says.
func (s *story) applyEtcd(t *testing.T) {
	p := s.plane
	text, err := os.ReadFile("etcd/flannel.yaml")
	p.ok(err)
	endpoints := regexp.MustCompile(`https://192\.0\.2\.11:2379,\S+`)
	if len(endpoints.FindAll(text, -1)) != 1 {
		t.Fatal("the manifest does not name the endpoints once")
	}
	file := filepath.Join(p.Dir(), "dist/kubernetes/etcd/flannel.yaml")
	p.ok(os.MkdirAll(filepath.Dir(file), 0o755))
	p.ok(os.WriteFile(file, endpoints.ReplaceAll(text, []byte(s.store.TLSURL())), 0o644))
	for from, to := range map[string]string{"ca.crt": "ca.crt", "etcd-client.crt": "tls.crt",
		"etcd-client.key": "tls.key"} {
		content, err := os.ReadFile(filepath.Join(p.certs, from))
		p.ok(err)
		p.ok(os.WriteFile(filepath.Join(p.Dir(), to), content, 0o600))
	}
	s.documented(t, blocks.Kubernetes, false)
	p.must("apply", "--validate=strict", "--filename="+file)
	s.rolledOut("kube-flannel", "flannel")
	s.nodesReady()
	t.Log(p.must("get", "nodes,pods", "--all-namespaces", "--output=wide"))
}

// documented runs what docs/kubernetes.md says as it stands: its blocks, or the commands in its sentences.
func (s *story) documented(t *testing.T, place blocks.Place, inline bool) {
	t.Helper()
	p := s.plane
	commands, err := blocks.At("../..", place)
	p.ok(err)
	ran := 0
	for _, c := range commands {
		if c.Inline != inline {
			continue
		}
		ran++
		out, err := p.Exec(p.ctx, "env", "PATH="+p.bin+":"+os.Getenv("PATH"), "KUBECONFIG="+
			filepath.Join(p.certs, "admin.yaml"), "HOME="+p.certs,
			"sh", "-euc", "cd "+p.Dir()+"\n"+c.Run)
		if err != nil {
			if place == blocks.Kubernetes {
				s.rolledOut("kube-flannel", "flannel") // says more
			}
			t.Fatalf("%s:\n%s%v", c.File, c.Text, err)
		}
		t.Log(out)
	}
	if ran == 0 {
		t.Error("docs/kubernetes.md has no commands")
	}
}

// rolledOut waits until a DaemonSet runs everywhere, and shows why not.
func (s *story) rolledOut(namespace, name string) {
	s.plane.t.Helper()
	if _, err := s.plane.kubectl("--namespace="+namespace, "rollout", "status", "daemonset", name,
		"--timeout=120s"); err != nil {
		pods, _ := s.plane.kubectl("--namespace="+namespace, "describe", "pods")
		logs, _ := s.plane.kubectl("--namespace="+namespace, "logs", "daemonset/"+name, "--all-containers")
		s.plane.t.Fatalf("%v\n%s\n%s", err, pods, logs)
	}
}

// nodesReady waits until all nodes are, and shows why not. A kubelet whose node is registered late waits for up to two
// minutes before it looks again (CSINode).
func (s *story) nodesReady() {
	p := s.plane
	p.t.Helper()
	if _, err := p.kubectl("wait", "--for=condition=Ready", "node", "--all", "--timeout=180s"); err != nil {
		p.t.Fatalf("%v\n%s", err, p.must("describe", "nodes"))
	}
}

const boxes = `{"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "box", "namespace": "default"}, "spec": {
	"selector": {"matchLabels": {"app": "box"}},
	"template": {"metadata": {"labels": {"app": "box"}}, "spec": {"automountServiceAccountToken": false, "terminationGracePeriodSeconds": 0,
		"containers": [{"name": "box", "image": "` + lab.PodImage + `", "imagePullPolicy": "Never"}]}}}}`

func (s *story) connect(t *testing.T) {
	p := s.plane
	file := filepath.Join(p.Dir(), "boxes.json")
	p.ok(os.WriteFile(file, []byte(boxes), 0o644))
	p.must("apply", "--filename="+file)
	s.boxes()
	s.reach(t)
}

// boxes waits for one box on each node, and remembers their addresses.
func (s *story) boxes() {
	p := s.plane
	p.t.Helper()
	s.rolledOut("default", "box")
	out := p.must("get", "pods", "--selector=app=box", "--field-selector=status.phase=Running",
		"--output", `jsonpath={range .items[*]}{.metadata.name} {.spec.nodeName} {.status.podIPs[*].ip}{"\n"}{end}`)
	networks := []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}
	if s.o.dual {
		networks = append(networks, netip.MustParsePrefix("fd00:10:244::/56"))
	}
	s.pods, s.at = map[string][]netip.Addr{}, map[string]string{}
	for line := range strings.Lines(out) {
		f := strings.Fields(line)
		if len(f) != 2+len(networks) {
			p.t.Fatalf("%q, want an address in each of %s", line, networks)
		}
		for i, text := range f[2:] {
			addr, err := netip.ParseAddr(text)
			if err != nil || !networks[i].Contains(addr) {
				p.t.Fatalf("pod %s on %s has the addresses %q, want one in each of %s", f[0], f[1], f[2:], networks)
			}
			s.pods[f[0]] = append(s.pods[f[0]], addr)
		}
		s.at[f[0]] = f[1]
	}
	if len(s.pods) != len(s.nodes) {
		p.t.Fatalf("pods: %s, want one on each node", out)
	}
}

// reach checks that each pod reaches each.
func (s *story) reach(t *testing.T) {
	t.Helper()
	p := s.plane
	for from := range s.pods {
		script := "set -e"
		for _, addrs := range s.pods {
			for _, addr := range addrs {
				script += "; busybox ping -c 1 -w 10 " + addr.String()
			}
		}
		if out, err := p.kubectl("exec", from, "--", "/bin/busybox", "sh", "-c", script); err != nil {
			t.Errorf("%s on %s to the pods %v: %v\n%s", from, s.at[from], s.pods, err, out)
		}
	}
}

// update replaces the pods of flanneld, one after the other, while a pod pings another.
func (s *story) update(t *testing.T) {
	p := s.plane
	before := p.must("--namespace=kube-flannel", "get", "pods", "--output=name")
	s.loseNothing(t, func() {
		s.documented(t, blocks.Kubernetes, true)
		s.rolledOut("kube-flannel", "flannel")
	})
	s.replaced(t, before)
}

// replaced checks that none of the given pods of flanneld is left.
func (s *story) replaced(t *testing.T, before string) {
	t.Helper()
	after := s.plane.must("--namespace=kube-flannel", "get", "pods", "--output=name")
	for pod := range strings.Lines(before) {
		if strings.Contains(after, pod) {
			t.Errorf("%s was not replaced", pod)
		}
	}
}
