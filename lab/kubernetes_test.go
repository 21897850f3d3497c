package lab_test

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"flanneld/api"
	"flanneld/lab"
	"flanneld/subnet/annotation"
)

// kubeConfig is a network whose subnets Kubernetes assigns.
func kubeConfig(backend string) string {
	return `{"Network":"10.244.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:10:244::/48","Backend":{"Type":"` + backend + `"}}`
}

// The requests that one daemon makes: what is promised of a start, of a restart, and of one where the API server has no
// streaming list.
const (
	firstRequests = 5
	laterRequests = 2
	oldRequests   = 4
)

// apiServerProgram is built once. Its packages were compiled by the tests of its module, which "make test" runs before.
var apiServerProgram = sync.OnceValues(func() (string, error) {
	out := filepath.Join(filepath.Dir(binaries.Etcd), "apiserver")
	if _, err := os.Stat(out); err == nil {
		return out, nil
	}
	return out, lab.BuildAPIServer(context.Background(), out, "apiserver")
})

// kubeCluster is a cluster whose store is an API server of Kubernetes' own library.
type kubeCluster struct {
	*cluster
	server *lab.APIServer
	rights string // the manifest that grants them
	config string // file with the network configuration
	prefix string // of the annotations
}

func newKubeCluster(t *testing.T) *kubeCluster {
	t.Helper()
	c := newCluster(t)
	k := &kubeCluster{cluster: c, config: filepath.Join(t.TempDir(), "net-conf.json"), prefix: annotation.DefaultPrefix}
	manifest := must[[]byte](t)(os.ReadFile("../dist/kubernetes/kube-flannel.yml"))
	k.rights = string(manifest)
	program := must[string](t)(apiServerProgram())
	k.server = must[*lab.APIServer](t)(c.APIServer(c.ctx, program, c.etcd(""), manifest))
	k.ok(os.WriteFile(k.config, []byte(kubeConfig("vxlan")), 0o644))
	return k
}

// network returns another network at the same API server, which differs by the prefix of its annotations.
func (k *kubeCluster) network(prefix, config string) *kubeCluster {
	k.t.Helper()
	other := *k
	other.prefix, other.config = prefix, filepath.Join(k.t.TempDir(), "net-conf.json")
	k.ok(os.WriteFile(other.config, []byte(config), 0o644))
	return &other
}

// node makes the object of a node whose subnets have a number.
func (k *kubeCluster) node(name string, number int, notes map[string]string) {
	k.t.Helper()
	k.nodeOf(name, notes, podCIDRs(number)...)
}

// podCIDRs returns those of both families that have a number, as a controller writes them.
func podCIDRs(number int) []string {
	v6 := netip.MustParsePrefix(fmt.Sprintf("fd00:10:244:%x::/64", number))
	return []string{fmt.Sprintf("10.244.%d.0/24", number), v6.String()}
}

// nodeOf makes the object of a node.
func (k *kubeCluster) nodeOf(name string, notes map[string]string, cidrs ...string) {
	k.t.Helper()
	n := &corev1.Node{Spec: corev1.NodeSpec{PodCIDR: cidrs[0], PodCIDRs: cidrs}}
	n.APIVersion, n.Kind, n.Name, n.Annotations = "v1", "Node", name, notes
	k.ok(k.server.Send(k.ctx, http.MethodPost, "/api/v1/nodes", "application/json", n, nil))
}

// others makes nodes that have published, and whose hosts do not exist.
func (k *kubeCluster) others(n int) {
	prefix := annotation.DefaultPrefix + "/"
	for i := range n {
		data := fmt.Sprintf(`{"VNI":1,"VtepMAC":"02:00:00:00:00:%02x"}`, i)
		k.node(fmt.Sprintf("other%d", i), 50+i, map[string]string{
			prefix + "kube-subnet-manager": "true", prefix + "backend-type": "vxlan",
			prefix + "public-ip": fmt.Sprintf("198.51.100.%d", 1+i), prefix + "public-ipv6": fmt.Sprintf("2001:db8::%x", 1+i),
			prefix + "backend-data": data, prefix + "backend-v6-data": data,
		})
	}
}

// object reads a node.
func (k *kubeCluster) object(name string) (n corev1.Node) {
	k.t.Helper()
	k.ok(k.server.Send(k.ctx, http.MethodGet, "/api/v1/nodes/"+name, "", nil, &n))
	return n
}

// annotate changes an annotation as an operator does.
func (k *kubeCluster) annotate(name, key, text string) {
	k.t.Helper()
	k.ok(k.server.Send(k.ctx, http.MethodPatch, "/api/v1/nodes/"+name, "application/merge-patch+json",
		map[string]any{"metadata": map[string]any{"annotations": map[string]string{k.prefix + "/" + key: text}}},
		nil))
}

// annotated waits for an annotation.
func (k *kubeCluster) annotated(name, key, want string) {
	k.t.Helper()
	k.await(func() error {
		if got := k.object(name).Annotations[k.prefix+"/"+key]; got != want {
			return fmt.Errorf("annotation %s of %s is %q, want %q", key, name, got, want)
		}
		return nil
	})
}

// daemon starts a daemon on a host whose node has its name, and waits until it is ready.
func (k *kubeCluster) daemon(h *lab.Host) *lab.Daemon {
	k.t.Helper()
	d := k.starts(h, filepath.Base(h.Dir()))
	k.ok(d.Ready(k.ctx))
	return d
}

// starts starts a daemon on a host.
func (k *kubeCluster) starts(h *lab.Host, node string) *lab.Daemon {
	k.t.Helper()
	file := must[string](k.t)(k.server.Kubeconfig(filepath.Base(h.Dir())))
	h.Environ = []string{"NODE_NAME=" + node}
	return must[*lab.Daemon](k.t)(h.Flanneld("-kube-subnet-mgr", "-net-config-path", k.config, "-kubeconfig-file", file,
		"-kube-annotation-prefix", k.prefix, "-probe-interval", "1h")) // many nodes have no host that would answer
}

// requests starts a daemon and checks how many requests that takes until the node says that its network is up, and the
// daemon knows so many peers.
func (k *kubeCluster) requests(what string, h *lab.Host, peers, most int, start func() *lab.Daemon) *lab.Daemon {
	k.t.Helper()
	name := filepath.Base(h.Dir())
	before, _ := k.server.Requests(name) // none yet: no file
	d := start()
	k.await(func() error {
		for _, c := range k.object(name).Status.Conditions {
			if c.Type == corev1.NodeNetworkUnavailable && c.Status == corev1.ConditionFalse && c.Reason == "FlannelIsUp" {
				return nil
			}
		}
		return fmt.Errorf("%s does not say that its network is up", name)
	})
	k.await(func() error {
		// Each peer has a subnet in each family.
		if s := ctlJSON[api.Status](k.cluster, h, "status"); s.Peers != 2*peers || !s.Lease.Held {
			return fmt.Errorf("%s has %d subnets of peers, held %t, want %d", name, s.Peers, s.Lease.Held, 2*peers)
		}
		return nil
	})
	after := must[[]string](k.t)(k.server.Requests(name))
	if asked := after[len(before):]; len(asked) > most {
		k.t.Errorf("%s asks %d requests, want %d at most: %s", what, len(asked), most, strings.Join(asked, "; "))
	}
	return d
}

// TestHostsAtAnAPIServerOfKubernetes is the part of "make test-kubernetes" that runs with each change: daemons with the
// rights of the manifest, at the library that kube-apiserver is made of.
func TestHostsAtAnAPIServerOfKubernetes(t *testing.T) {
	t.Parallel()
	const others = 200
	k := newKubeCluster(t)
	k.others(others)
	hosts := k.hosts(3)
	var daemons []*lab.Daemon
	for i, h := range hosts[:2] {
		name := filepath.Base(h.Dir())
		k.node(name, i, nil)
		daemons = append(daemons, k.requests("a first start", h, others+i, firstRequests,
			func() *lab.Daemon { return k.daemon(h) }))
		want := k.object(name).Spec.PodCIDRs
		if got := fmt.Sprint(k.subnets(h)); got != fmt.Sprint(want) {
			t.Errorf("%s has %s, want the podCIDRs %s", name, got, want)
		}
		k.annotated(name, "public-ip", h.Addr.String())
		k.annotated(name, "public-ipv6", h.Addr6.String())
	}
	for _, text := range []string{"the Kubernetes API, reachable", "from podCIDRs"} {
		if out := k.ctlOK(hosts[0], "status"); !strings.Contains(out, text) {
			t.Errorf("status lacks %q:\n%s", text, out)
		}
	}
	pods := k.pods(hosts[:2]...)
	pings := k.meshed(pods)

	// The API server is away, and comes back with a cache that starts later than what the daemons have seen.
	k.server.Kill()
	for _, d := range daemons {
		k.wantState(d, api.StateDegraded, "store unreachable")
	}
	k.ok(daemons[1].Stop(k.ctx))
	daemons[1] = k.daemon(hosts[1]) // from what it remembers
	k.ok(k.server.Start(k.ctx))
	for _, d := range daemons {
		k.wantState(d, api.StateReady, "")
	}
	k.node("host3", 2, nil)
	third := k.daemon(hosts[2])
	late := k.pods(hosts[2])[0]
	k.reaches(pods[0].Namespace, late, lab.PingOptions{})
	k.reaches(pods[1].Namespace, late, lab.PingOptions{})

	daemons[0] = k.requests("a restart", hosts[0], others+2, laterRequests, func() *lab.Daemon {
		k.ok(daemons[0].Stop(k.ctx))
		return k.daemon(hosts[0])
	})

	// A rule is missing when it is needed.
	k.ok(k.server.Grant([]byte(strings.Replace(k.rights, "      - patch\n", "      - get\n", 1))))
	k.annotate("host1", "underlay-ip", "192.0.2.99")
	k.wantState(daemons[0], api.StateDegraded, "may not patch nodes/status")
	k.ok(k.server.Grant([]byte(k.rights)))
	k.annotated("host1", "underlay-ip", "")
	k.wantState(daemons[0], api.StateReady, "")
	k.reaches(pods[1].Namespace, pods[0], lab.PingOptions{})

	// A node is removed.
	k.ok(third.Stop(k.ctx))
	k.ok(k.server.Send(k.ctx, http.MethodDelete, "/api/v1/nodes/host3", "", nil, nil))
	k.await(func() error {
		if out, err := hosts[1].Output("ip route show 10.244.2.0/24"); out != "" || err != nil {
			return fmt.Errorf("a route to the node that was removed: %s, %w", out, err)
		}
		return nil
	})

	// Kubernetes 1.31 and earlier, and 1.33.
	k.server.Kill()
	k.ok(k.server.Start(k.ctx, "-streaming-lists=false"))
	daemons[1] = k.requests("a restart without the streaming list", hosts[1], others+1, oldRequests, func() *lab.Daemon {
		k.ok(daemons[1].Stop(k.ctx))
		return k.daemon(hosts[1])
	})
	k.wantState(daemons[1], api.StateReady, "")
	k.nothingLost("all this", pings)
}

// TestANodeOfKubernetesIsRenamed has a host register under another name. Kubernetes keeps the former Node object, with
// the address of the host, until the operator deletes it.
func TestANodeOfKubernetesIsRenamed(t *testing.T) {
	t.Parallel()
	k := newKubeCluster(t)
	hosts := k.hosts(2)
	var daemons []*lab.Daemon
	for i, h := range hosts {
		k.node(filepath.Base(h.Dir()), i, nil)
		daemons = append(daemons, k.daemon(h))
	}
	k.ok(daemons[0].Stop(k.ctx))
	k.node("renamed", 7, nil)
	d := k.starts(hosts[0], "renamed")
	k.wantState(d, api.StateDegraded, "node host1 publishes the address "+hosts[0].Addr.String()+" of this node, renamed")
	k.annotated("renamed", "public-ip", hosts[0].Addr.String())
	k.ok(k.server.Send(k.ctx, http.MethodDelete, "/api/v1/nodes/host1", "", nil, nil))
	k.wantState(d, api.StateReady, "")
	if got, want := fmt.Sprint(k.subnets(hosts[0])), fmt.Sprint(k.object("renamed").Spec.PodCIDRs); got != want {
		t.Errorf("the renamed node has %s, want its podCIDRs %s", got, want)
	}
	pods := k.pods(hosts...)
	k.reaches(pods[1].Namespace, pods[0], lab.PingOptions{})

	// The object is made again, with other podCIDRs.
	k.ok(k.server.Send(k.ctx, http.MethodDelete, "/api/v1/nodes/renamed", "", nil, nil))
	k.wantState(d, api.StateDegraded, "node renamed does not exist in the API")
	k.node("renamed", 8, nil)
	k.wantState(d, api.StateReady, "")
	k.await(func() error {
		if got, want := fmt.Sprint(k.subnets(hosts[0])), fmt.Sprint(k.object("renamed").Spec.PodCIDRs); got != want {
			return fmt.Errorf("the node that was made again has %s, want its podCIDRs %s", got, want)
		}
		return nil
	})
}

// TestNetworksAtAnAPIServerOfKubernetes has several networks at one API server.
func TestNetworksAtAnAPIServerOfKubernetes(t *testing.T) {
	t.Parallel()
	k := newKubeCluster(t)
	// Fewer families than the cluster has.
	k.meets(k.network("one.example.com", `{"Network":"10.244.0.0/16","Backend":{"Type":"host-gw"}}`))
	k.meets(k.network("two.example.com",
		`{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00:10:244::/48","Backend":{"Type":"wireguard"}}`))
	k.meets(k.network("three.example.com", kubeConfig("udp")))
	alone := k.network("four.example.com", kubeConfig("alloc"))
	h := k.host("alone")
	k.node("alone", 200, nil)
	alone.daemon(h)
	for _, r := range must[[]string](t)(k.server.Requests("alone")) {
		if !strings.Contains(r, "/nodes/alone") && !strings.Contains(r, "fieldSelector=metadata.name%3Dalone") {
			t.Errorf("a daemon with alloc asks for other nodes: %s", r)
		}
	}
}

// meets wants two new hosts of a network to reach each other.
func (k *kubeCluster) meets(n *kubeCluster) {
	k.t.Helper()
	var hosts []*lab.Host
	for i := range 2 {
		h := k.host(fmt.Sprint(strings.SplitN(n.prefix, ".", 2)[0], i))
		cidrs := podCIDRs(100 + i)
		if n.v6only() {
			cidrs = cidrs[1:]
		}
		k.nodeOf(filepath.Base(h.Dir()), nil, cidrs...)
		n.daemon(h)
		hosts = append(hosts, h)
	}
	pods := k.pods(hosts...)
	k.reaches(pods[0].Namespace, pods[1], lab.PingOptions{})
	k.reaches(pods[1].Namespace, pods[0], lab.PingOptions{})
}

// v6only reports whether the network has no IPv4.
func (k *kubeCluster) v6only() bool {
	k.t.Helper()
	return !strings.Contains(string(must[[]byte](k.t)(os.ReadFile(k.config))), `"Network"`)
}
