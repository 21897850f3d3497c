//go:build kubernetes

package kubernetes_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"flanneld/subnet/annotation"
)

// connect makes the client by which this test is the kubelets.
func (l *large) connect(t *testing.T) {
	t.Helper()
	p := l.plane
	pair, err := tls.LoadX509KeyPair(filepath.Join(p.certs, "admin.crt"), filepath.Join(p.certs, "admin.key"))
	p.ok(err)
	authority, err := os.ReadFile(filepath.Join(p.certs, "ca.crt"))
	p.ok(err)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(authority)
	l.http = &http.Client{Transport: &http.Transport{
		DialContext: p.Dial, MaxIdleConnsPerHost: 16,
		TLSClientConfig: &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: pool},
	}}
}

// largeNode is a Node object of the size of real ones, with the annotations of a node that runs flannel. The first
// nodes are those of daemons.
func largeNode(i int) *corev1.Node {
	cidr := fmt.Sprintf("10.%d.%d.0/24", 1+i>>8, i&0xff)
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: largeName(i), Annotations: map[string]string{}}}
	n.APIVersion, n.Kind, n.Spec.PodCIDR, n.Spec.PodCIDRs = "v1", "Node", cidr, []string{cidr}
	if i >= 2 {
		prefix := annotation.DefaultPrefix + "/"
		n.Annotations = map[string]string{
			prefix + "kube-subnet-manager": "true", prefix + "backend-type": "vxlan", prefix +
				"public-ip": fmt.Sprintf("198.18.%d.%d", 100+i>>8, i&0xff),
			prefix + "backend-data": fmt.Sprintf(`{"VNI":1,"VtepMAC":"02:00:00:01:%02x:%02x"}`, i>>8, i&0xff),
		}
	}
	for j := range 25 {
		name := fmt.Sprintf("registry.example.com/team-%d/some-service-with-a-long-name-%d", j, j)
		n.Status.Images = append(n.Status.Images, corev1.ContainerImage{
			Names: []string{name + "@sha256:" + strings.Repeat("0123456789abcdef", 4), name + ":v1.2.3"}, SizeBytes: 123456789,
		})
	}
	for _, kind := range []corev1.NodeConditionType{corev1.NodeMemoryPressure, corev1.NodeDiskPressure,
		corev1.NodePIDPressure, corev1.NodeReady} {
		n.Status.Conditions = append(n.Status.Conditions,
			corev1.NodeCondition{Type: kind, Status: corev1.ConditionFalse, Reason: "KubeletHasNoPressure",
				Message: "kubelet has no pressure of this kind", LastHeartbeatTime: metav1.Now()})
	}
	return n
}

func largeName(i int) string { return fmt.Sprintf("node-%05d", i) }

func (l *large) create(n *corev1.Node) error {
	return l.send(http.MethodPost, "/api/v1/nodes", "application/json", n)
}

func (l *large) send(method, path, kind string, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(l.ctx, method, "https://"+netip.AddrPortFrom(l.plane.Addr, 6443).String()+path,
		bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", kind)
	res, err := l.http.Do(req)
	if err != nil {
		return err
	}
	text, err := io.ReadAll(res.Body)
	if res.StatusCode >= 300 {
		err = fmt.Errorf("%s %s: %s: %.300s", method, path, res.Status, text)
	}
	return errors.Join(err, res.Body.Close())
}

// forward passes connections from this process to the API server, and returns a kubeconfig that uses it.
func (l *large) forward() string {
	p := l.plane
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	p.ok(err)
	l.whole.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				to, err := p.Dial(l.ctx, "tcp", netip.AddrPortFrom(p.Addr, 6443).String())
				if err != nil {
					return
				}
				defer to.Close()
				go func() { _, _ = io.Copy(to, c); _ = to.Close() }()
				_, _ = io.Copy(c, to)
			}()
		}
	}()
	file := p.config("managers", "managers", "system:masters")
	text, err := os.ReadFile(file)
	p.ok(err)
	text = bytes.Replace(text, []byte(netip.AddrPortFrom(p.Addr, 6443).String()), []byte(listener.Addr().String()), 1)
	p.ok(os.WriteFile(file, text, 0o600))
	return file
}
