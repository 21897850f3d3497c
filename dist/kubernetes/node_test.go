//go:build kubernetes

package kubernetes_test

import (
	"crypto/x509/pkix"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"flanneld/cni-plugin/plugintest"
	"flanneld/lab"
)

// node is a host with containerd and a kubelet, which see folders of their own where a host has its only ones.
type node struct {
	*lab.Host
	name    string
	runtime *lab.Containerd
	kubelet *lab.Process
	proxy   *lab.Process
}

// inside returns a command that runs args among the node's own files.
func (n *node) inside(args ...string) []string {
	return append([]string{"nsenter", "--target", fmt.Sprint(n.runtime.Pid()), "--mount"}, args...)
}

// addresses are those of the node, in the form of the kubelet's flag.
func (n *node) addresses() string {
	if n.Addr6.IsValid() {
		return n.Addr.String() + "," + n.Addr6.String()
	}
	return n.Addr.String()
}

// nodeSetup gives a node folders of its own, with what its administrator has installed: the reference plugins of CNI.
// Those of a disk are there again after a reboot. The kubelet sets some parameters of the whole machine; it finds them
// set.
const nodeSetup = `
for dir in /run /var/log; do mount -t tmpfs tmpfs "$dir"; done
for dir in /opt /var/lib; do mkdir -p "$0/disk$dir" && mount --bind "$0/disk$dir" "$dir"; done
mkdir -p "$0/etc" && mount -t tmpfs tmpfs "$0/etc" && mkdir "$0/etc/upper" "$0/etc/work"
mount -t overlay -o "lowerdir=/etc,upperdir=$0/etc/upper,workdir=$0/etc/work" overlay /etc
mkdir -p /etc/cni /opt/cni/bin "$0/disk/cni"
mount --bind "$0/disk/cni" /etc/cni
cp PLUGINS/* /opt/cni/bin/
for setting in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000; do
	file="$0/$(echo "${setting%=*}" | tr / .)"
	echo "${setting#*=}" >"$file"
	mount --bind "$file" "/proc/sys/${setting%=*}"
done`

const kubeletConfig = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
containerRuntimeEndpoint: unix://SOCKET
authentication: {anonymous: {enabled: false}, webhook: {enabled: false}, x509: {clientCAFile: CERTS/ca.crt}}
authorization: {mode: AlwaysAllow}
tlsCertFile: CERTS/NAME-server.crt
tlsPrivateKeyFile: CERTS/NAME-server.key
cgroupDriver: cgroupfs
cgroupsPerQOS: false
enforceNodeAllocatable: []
failSwapOn: false
resolvConf: ""
clusterDNS: [RESOLVER]
clusterDomain: cluster.local
evictionHard: {nodefs.available: "0%", imagefs.available: "0%", memory.available: "0%"}
nodeStatusUpdateFrequency: 1s
`

// node adds a node to the cluster.
func (s *story) node(name string) *node {
	p := s.plane
	p.t.Helper()
	h, err := s.lab.Host(name)
	p.ok(err)
	n := &node{Host: h, name: name}
	p.ok(p.authority.Issue(name+"-server", pkix.Name{CommonName: name}, h.Addr))
	s.boot(n)
	s.whole.Cleanup(func() {
		n.kubelet.Kill() // it would make its pods again
		printEnd(s.whole, name+" kubelet", n.kubelet)
		printEnd(s.whole, name+" kube-proxy", n.proxy)
		printEnd(s.whole, name+" containerd", n.runtime.Process)
	})
	return n
}

// boot starts what a node runs.
func (s *story) boot(n *node) {
	p, h, name := s.plane, n.Host, n.name
	p.t.Helper()
	s.contain(n, nodeSetup)
	var err error
	config := strings.NewReplacer("SOCKET", n.runtime.Socket(), "CERTS", p.certs, "NAME", name, "RESOLVER",
		dns).Replace(kubeletConfig)
	file := filepath.Join(h.Dir(), "kubelet.yaml")
	p.ok(os.WriteFile(file, []byte(config), 0o644))
	n.kubelet, err = h.Start("kubelet", n.inside(filepath.Join(p.bin, "kubelet"),
		"--config="+file, "--kubeconfig="+p.config(name, "system:node:"+name, "system:nodes"), "--hostname-override="+name,
		"--node-ip="+n.addresses())...)
	p.ok(err)
	s.startProxy(n)
}

// contain starts containerd on a node, which a script sets up, with the image of flanneld.
func (s *story) contain(n *node, setup string) {
	p := s.plane
	p.t.Helper()
	var err error
	n.runtime, err = n.Containerd(s.ctx, lab.ContainerdOptions{
		Plugins: "/opt/cni/bin", Networks: "/etc/cni/net.d",
		Setup: strings.ReplaceAll(setup, "PLUGINS", plugintest.Reference(p.t)),
	})
	p.ok(err)
	p.ok(n.runtime.Import(s.ctx, s.image, image, "--index-name", image))
}

// startProxy starts kube-proxy on a node: by it pods and the daemon reach the API server at the address of its Service.
// The limits of the connection tracking are the whole machine's, and left alone.
func (s *story) startProxy(n *node) {
	p := s.plane
	p.t.Helper()
	mode := "iptables"
	if s.o.nftables {
		mode = "nftables"
	}
	var err error
	n.proxy, err = n.Start("kube-proxy",
		n.inside(filepath.Join(p.bin, "kube-proxy"), "--kubeconfig="+p.config(n.name+"-proxy", "system:kube-proxy", ""),
			"--hostname-override="+n.name, "--proxy-mode="+mode, "--cluster-cidr="+s.o.cidr, "--conntrack-max-per-core=0",
			"--conntrack-tcp-timeout-established=0",
			"--conntrack-tcp-timeout-close-wait=0", "--healthz-bind-address=", "--metrics-bind-address=127.0.0.1:10249")...)
	p.ok(err)
}

// reboot switches a node off and on: what it runs ends at once, what is in its kernel and in /run is gone, and its disk
// is left.
func (s *story) reboot(n *node) {
	p := s.plane
	p.t.Helper()
	n.kubelet.Kill()
	n.proxy.Kill()
	p.ok(n.runtime.Crash())
	links, err := n.Output("ip -o link")
	p.ok(err)
	for line := range strings.Lines(links) {
		if name, _, _ := strings.Cut(strings.Trim(strings.Fields(line)[1], ":"), "@"); name != "lo" && name != "eth0" {
			_, _ = n.Output("ip link del " + name) // gone with another one, or the kernel's own
		}
	}
	p.ok(n.Run("nft flush ruleset", "ip route flush proto 70", "ip -6 route flush proto 70"))
	s.boot(n)
}
