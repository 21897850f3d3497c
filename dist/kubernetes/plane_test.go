//go:build kubernetes

package kubernetes_test

import (
	"context"
	"crypto/x509/pkix"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"flanneld/lab"
)

// version is what dist/kubernetes/components asks the module proxy for, and what the components say they are.
const version = "v1.34.4"

// components are the programs of Kubernetes.
var components = []string{"kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy",
	"kubelet", "kubectl"}

// buildComponents returns the folder with programs of Kubernetes. The first build takes minutes; later ones find the
// programs up to date.
func buildComponents(ctx context.Context, dir string, names ...string) (string, error) {
	out := filepath.Join(dir, version)
	if err := os.MkdirAll(out, 0o755); err != nil {
		return "", err
	}
	const stamp = "k8s.io/component-base/version."
	args := []string{"build", "-trimpath", "-ldflags",
		fmt.Sprintf("-s -w -X %[1]sgitVersion=%[2]s -X %[1]sgitMajor=1 -X %[1]sgitMinor=34", stamp, version), "-o", out + "/"}
	for _, name := range names {
		args = append(args, "k8s.io/kubernetes/cmd/"+name)
	}
	c := exec.CommandContext(ctx, "go", args...)
	c.Dir, c.Env = "components", append(os.Environ(), "CGO_ENABLED=0")
	if text, err := c.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build Kubernetes: %w\n%s", err, text)
	}
	return out, nil
}

// plane is a control plane: one host with the API server, the controllers and the scheduler.
type plane struct {
	*lab.Host
	whole     *testing.T
	t         *testing.T // the step
	ctx       context.Context
	bin       string // programs
	certs     string // certificates, and the files that name them
	authority *lab.Authority
	cidr      string // what the controllers give the nodes' podCIDRs from; empty: nodes get none
	dual      bool
	server    *lab.Process
}

// services returns the addresses of Services.
func (p *plane) services() string {
	if p.dual {
		return "10.96.0.0/16,fd00:10:96::/112"
	}
	return "10.96.0.0/16"
}

// dns is the Service that pods ask for names.
const dns = "10.96.0.10"

// serve runs the API server. It keeps its objects in the store that flanneld uses, too.
func (p *plane) serve(store *lab.Etcd, more ...string) {
	p.t.Helper()
	p.ok(p.authority.Issue("apiserver", pkix.Name{CommonName: "kube-apiserver", Organization: []string{"system:masters"}},
		p.Addr, netip.MustParseAddr("10.96.0.1"), netip.MustParseAddr("127.0.0.1")))
	p.ok(p.authority.Issue("accounts", pkix.Name{CommonName: "service-accounts"}))
	file := func(name string) string { return filepath.Join(p.certs, name) }
	p.server = p.run("kube-apiserver", append(slices.Clone(more),
		"--etcd-servers="+store.TLSURL(), "--etcd-cafile="+file("ca.crt"), "--etcd-certfile="+file("etcd-client.crt"),
		"--etcd-keyfile="+file("etcd-client.key"),
		"--bind-address="+p.Addr.String(), "--advertise-address="+p.Addr.String(), "--secure-port=6443",
		"--service-cluster-ip-range="+p.services(),
		"--tls-cert-file="+file("apiserver.crt"), "--tls-private-key-file="+file("apiserver.key"), "--client-ca-file="+
			file("ca.crt"),
		"--kubelet-certificate-authority="+file("ca.crt"), "--kubelet-client-certificate="+file("apiserver.crt"),
		"--kubelet-client-key="+file("apiserver.key"),
		"--kubelet-preferred-address-types=InternalIP", "--authorization-mode=Node,RBAC", "--allow-privileged=true",
		"--service-account-issuer=https://kubernetes.default.svc", "--service-account-key-file="+file("accounts.key"),
		"--service-account-signing-key-file="+file("accounts.key"))...)
	p.config("admin", "admin", "system:masters")
	p.await(func() error {
		_, err := p.kubectl("get", "--raw=/readyz")
		return err
	})
}

// control runs the controllers and the scheduler.
func (p *plane) control() {
	p.t.Helper()
	file := func(name string) string { return filepath.Join(p.certs, name) }
	for _, name := range []string{"kube-controller-manager", "kube-scheduler"} {
		args := []string{"--kubeconfig=" + p.config(name, "system:"+name, ""), "--leader-elect=false", "--secure-port=0"}
		if name == "kube-controller-manager" {
			args = append(args, "--service-account-private-key-file="+file("accounts.key"), "--root-ca-file="+file("ca.crt"),
				"--use-service-account-credentials")
			if p.cidr != "" {
				args = append(args, "--allocate-node-cidrs=true", "--cluster-cidr="+p.cidr)
				if p.dual {
					args = append(args, "--node-cidr-mask-size-ipv4=24", "--node-cidr-mask-size-ipv6=64")
				} else {
					args = append(args, "--node-cidr-mask-size=24")
				}
			}
		}
		p.run(name, args...)
	}
}

// run starts a component, and shows what it says last if the test fails.
func (p *plane) run(name string, args ...string) *lab.Process {
	p.t.Helper()
	process, err := p.Start(name, append([]string{filepath.Join(p.bin, name)}, args...)...)
	p.ok(err)
	p.whole.Cleanup(func() { printEnd(p.whole, name, process) })
	return process
}

// config writes how a user reaches the API server, and returns the file.
func (p *plane) config(name, user, group string) string {
	p.t.Helper()
	subject := pkix.Name{CommonName: user}
	if group != "" {
		subject.Organization = []string{group}
	}
	p.ok(p.authority.Issue(name, subject))
	text := fmt.Sprintf(`apiVersion: v1
kind: Config
clusters: [{name: lab, cluster: {server: "https://%s:6443", certificate-authority: ca.crt}}]
users: [{name: user, user: {client-certificate: %[2]s.crt, client-key: %[2]s.key}}]
contexts: [{name: lab, context: {cluster: lab, user: user}}]
current-context: lab
`, p.Addr, name)
	path := filepath.Join(p.certs, name+".yaml")
	p.ok(os.WriteFile(path, []byte(text), 0o600))
	return path
}

// kubectl runs a command of the administrator.
func (p *plane) kubectl(args ...string) (string, error) {
	return p.Exec(p.ctx, append([]string{filepath.Join(p.bin, "kubectl"), "--kubeconfig=" +
		filepath.Join(p.certs, "admin.yaml"), "--cache-dir=" + filepath.Join(p.certs, "cache")}, args...)...)
}

// must runs a command of the administrator that has to succeed.
func (p *plane) must(args ...string) string {
	p.t.Helper()
	out, err := p.kubectl(args...)
	p.ok(err)
	return out
}

func (p *plane) ok(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

// await waits until a condition holds.
func (p *plane) await(condition func() error) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	p.ok(lab.Await(ctx, condition))
}
