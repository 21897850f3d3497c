//go:build kubernetes

package kubernetes_test

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"flanneld/lab"
)

// The addresses and ports of the Services below.
const (
	webService  = "10.96.0.50"
	webService6 = "fd00:10:96::50"
	webName     = "web.default.svc.cluster.local"
	portCluster = 30080
	portLocal   = 30081
	hostPort    = 8081
)

// web is a pod on each node that tells its clients the address that it sees them at, its Services, and a DNS.
const web = `
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: web, namespace: default}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      automountServiceAccountToken: false
      terminationGracePeriodSeconds: 0
      volumes: [{name: program, hostPath: {path: PROGRAM, type: File}}]
      containers:
        - name: web
          image: IMAGE
          imagePullPolicy: Never
          command: [/answer, -tcp=:8080, -dns=:53, "-names=NAME.=ADDRESS"]
          ports: [{containerPort: 8080, hostPort: HOSTPORT}]
          volumeMounts: [{name: program, mountPath: /answer}]
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec: {selector: {app: web}, ipFamilyPolicy: POLICY, clusterIP: ADDRESS, clusterIPs: [CLUSTERIPS], type: NodePort, ports: [{port: 8080, nodePort: PORTCLUSTER}]}
---
apiVersion: v1
kind: Service
metadata: {name: web-local, namespace: default}
spec: {selector: {app: web}, type: NodePort, externalTrafficPolicy: Local, ports: [{port: 8080, nodePort: PORTLOCAL}]}
---
apiVersion: v1
kind: Service
metadata: {name: kube-dns, namespace: kube-system}
spec: {clusterIP: DNS, ports: [{port: 53, protocol: UDP}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: kube-dns, namespace: kube-system, labels: {kubernetes.io/service-name: kube-dns}}
addressType: IPv4
ports: [{port: 53, protocol: UDP, name: ""}]
endpoints: [{addresses: [DNSPOD]}]
`

// serve starts the pods and their Services, and a client that is no node.
func (s *story) serve(t *testing.T) {
	p := s.plane
	program := filepath.Join(filepath.Dir(p.bin), "answer")
	c := exec.CommandContext(s.ctx, "go", "build", "-o", program, "./answer")
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	policy, addresses := "SingleStack", webService
	if s.o.dual {
		policy, addresses = "RequireDualStack", webService+`, "`+webService6+`"`
	}
	text := strings.NewReplacer("PROGRAM", program, "IMAGE", lab.PodImage, "POLICY", policy, "CLUSTERIPS", addresses,
		"NAME", webName, "ADDRESS", webService,
		"HOSTPORT", fmt.Sprint(hostPort), "PORTCLUSTER", fmt.Sprint(portCluster), "PORTLOCAL", fmt.Sprint(portLocal),
		"DNSPOD", "DNSPOD", "DNS", dns).Replace(web)
	pods, slice, _ := strings.Cut(text, "---\napiVersion: discovery")
	s.apply(pods)
	s.rolledOut("default", "web")
	last := s.nodes[len(s.nodes)-1]
	pod := p.must("get", "pods", "--selector=app=web", "--field-selector=spec.nodeName="+last.name, "--output",
		"jsonpath={.items[*].status.podIP}")
	s.apply("apiVersion: discovery" + strings.ReplaceAll(slice, "DNSPOD", strings.TrimSpace(pod)))
	var err error
	if s.client == nil {
		s.client, err = s.lab.Host("client")
		p.ok(err)
	}
}

// apply gives objects to the API server.
func (s *story) apply(text string) {
	s.plane.t.Helper()
	s.plane.must("apply", "--validate=strict", "--filename="+s.written(text))
}

// written returns a file with a text.
func (s *story) written(text string) string {
	file := filepath.Join(s.plane.Dir(), "objects.yaml")
	s.plane.ok(os.WriteFile(file, []byte(text), 0o644))
	return file
}

// served checks what Services promise: the address of the Service and its name from each pod, and the ports of nodes
// from outside the cluster.
func (s *story) served(t *testing.T) {
	p := s.plane
	addresses := []string{webService}
	if s.o.dual {
		addresses = append(addresses, webService6)
	}
	for box, node := range s.at {
		for _, a := range addresses {
			p.await(func() error {
				out, err := p.kubectl("exec", box, "--", "/bin/busybox", "nc", "-w", "10", a, "8080")
				if err != nil || !strings.Contains(out, " asked web-") {
					return fmt.Errorf("%s on %s asks the Service at %s: %q, %w", box, node, a, out, err)
				}
				return nil
			})
		}
		p.await(func() error {
			out, err := p.kubectl("exec", box, "--", "/bin/busybox", "nslookup", webName)
			if err != nil || !strings.Contains(out, webService) {
				return fmt.Errorf("%s on %s asks the DNS: %q, %w", box, node, out, err)
			}
			return nil
		})
	}
	for _, n := range s.nodes {
		pod := strings.TrimSpace(p.must("get", "pods", "--selector=app=web", "--field-selector=spec.nodeName="+n.name,
			"--output", "jsonpath={.items[*].metadata.name}"))
		kept := s.client.Addr.String() + " asked " + pod + "\n" // by the pod of that node, which sees the client
		s.hears(n, hostPort, kept)
		s.hears(n, portLocal, kept)
		s.hears(n, portCluster, " asked web-")
	}
}

// hears waits until the client outside the cluster hears the answer at a port of a node.
func (s *story) hears(n *node, port uint16, want string) {
	s.plane.t.Helper()
	s.plane.await(func() error {
		ctx, cancel := context.WithTimeout(s.ctx, 5*time.Second)
		defer cancel()
		address := netip.AddrPortFrom(n.Addr, port).String()
		c, err := s.client.Dial(ctx, "tcp", address)
		if err != nil {
			return err
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(5 * time.Second))
		out, err := io.ReadAll(c)
		if err != nil || !strings.Contains(string(out), want) {
			return fmt.Errorf("port %d of %s says %q, %w, want %q", port, n.name, out, err, want)
		}
		return nil
	})
}
