//go:build kubernetes

package kubernetes_test

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestTheChartOnACluster makes a cluster of both families ready by the Helm chart, with kube-proxy in the mode
// nftables, and goes through the backends.
func TestTheChartOnACluster(t *testing.T) {
	s := newStory(t, clusterOptions{cidr: "10.244.0.0/16,fd00:10:244::/56", dual: true, nftables: true, nodes: 2})
	s.run(t, []step{
		{"nodes join, and are not ready without a network", s.join},
		{"kube-flannel's chart is applied", func(t *testing.T) {
			s.plane.must("create", "namespace", "kube-flannel")
			s.replaceChart(t)
		}},
		{"the chart is applied over it, and all nodes are ready", func(t *testing.T) {
			s.chart(t, "backend: vxlan")
			s.nodesReady()
		}},
		{"pods reach one another with vxlan", s.connect},
		{"Services, ports of nodes and names work with vxlan", func(t *testing.T) { s.serve(t); s.served(t) }},
		{"with host-gw", func(t *testing.T) { s.backend(t, "host-gw", "backend: host-gw") }},
		{"with wireguard in the daemon or the kernel",
			func(t *testing.T) { s.backend(t, "wireguard", "backend: wireguard, privileged: true") }},
		{"udp says what a pod without the rights lacks", s.refused},
		{"with udp", func(t *testing.T) { s.backend(t, "udp", "backend: udp, privileged: true") }},
		{"with vxlan and direct routing",
			func(t *testing.T) { s.backend(t, "vxlan", "backend: vxlan, directRouting: true") }},
		{"with alloc and routes of the operator", s.routed},
	})
}

// chart applies the chart, and waits until its pods are ready.
func (s *story) chart(t *testing.T, values string) {
	t.Helper()
	s.render(t, values)
	s.rolledOut("kube-flannel", "kube-flannel-ds")
}

// render applies the chart with values of its part "flannel".
func (s *story) render(t *testing.T, values string) {
	t.Helper()
	v4, v6, _ := strings.Cut(s.o.cidr, ",")
	s.apply(s.rendered(t, "chart", fmt.Sprintf(`{podCidr: %q, podCidrv6: %q, flannel: {%s}}`, v4, v6, values)))
}

// rendered returns the objects of a chart.
func (s *story) rendered(t *testing.T, chart, values string) string {
	t.Helper()
	program := filepath.Join(filepath.Dir(s.plane.bin), "render")
	must(t, "../cloud", "go", "build", "-o", program, "./render")
	text, err := exec.CommandContext(s.ctx, program, chart, "kube-flannel", values).Output()
	s.plane.ok(err)
	return string(text)
}

// backend changes the backend of the cluster by the chart, and checks all that pods are promised. The pods are made
// again, for the MTU is another one.
func (s *story) backend(t *testing.T, name, values string) {
	p := s.plane
	s.chart(t, values)
	for _, n := range s.nodes {
		p.await(func() error { return s.runs(n, name) })
	}
	p.must("delete", "pod", "--selector=app=box", "--grace-period=1")
	s.boxes()
	s.reach(t)
	s.served(t)
}

// refused checks that the daemon of a pod that lacks a right says so.
func (s *story) refused(t *testing.T) {
	s.render(t, "backend: udp")
	s.plane.await(func() error {
		said := ""
		for _, n := range s.nodes { // the DaemonSet waits for the first node that it has changed
			out, _ := s.inPod(n, "flannelctl", "status") // fails, as it is not ready
			said += out
		}
		if !strings.Contains(said, "/dev/net/tun") {
			return fmt.Errorf("no pod names /dev/net/tun:\n%s", said)
		}
		return nil
	})
}

// routed takes the backend that leaves packets to others, and is those others: it routes the pods of each node to that
// node.
func (s *story) routed(t *testing.T) {
	p := s.plane
	const values = "backend: alloc"
	s.chart(t, values)
	for _, n := range s.nodes {
		p.await(func() error { return s.runs(n, "alloc") })
		for _, to := range s.nodes {
			if to == n {
				continue
			}
			cidrs := s.object(to).Spec.PodCIDRs
			p.ok(n.Run("ip route add "+cidrs[0]+" via "+to.Addr.String(), "ip route add "+cidrs[1]+" via "+to.Addr6.String()))
		}
	}
	s.backend(t, "alloc", values)
}

// runs reports whether the daemon of a node is ready with a backend.
func (s *story) runs(n *node, backend string) error {
	out, err := s.inPod(n, "flannelctl", "status", "--json")
	var status struct {
		Backend, State string
		Reasons        []string
	}
	if wrong := json.Unmarshal([]byte(out), &status); wrong != nil {
		return fmt.Errorf("%w: %s, %w", wrong, out, err)
	}
	if status.Backend != backend || status.State != "ready" {
		return fmt.Errorf("%s is %+v, want it to be ready with %s", n.name, status, backend)
	}
	return nil
}

// inPod runs a command in the pod of flanneld on a node.
func (s *story) inPod(n *node, args ...string) (string, error) {
	p := s.plane
	pod, err := p.kubectl("--namespace=kube-flannel", "get", "pods", "--selector=app=flannel",
		"--field-selector=spec.nodeName="+n.name, "--output=name")
	if err != nil {
		return "", err
	}
	return p.kubectl(append([]string{"--namespace=kube-flannel", "exec", strings.TrimSpace(pod),
		"--container=kube-flannel", "--"}, args...)...)
}
