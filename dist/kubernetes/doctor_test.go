//go:build kubernetes

package kubernetes_test

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// finding is what doctor says of one check.
type finding struct{ Check, Result, Evidence, Fix string }

// doctor runs the doctor in the pod of a node.
func (s *story) doctor(n *node) (map[string]finding, error) {
	out, failed := s.inPod(n, "flannelctl", "doctor", "--json")
	var all []finding
	if err := json.Unmarshal([]byte(out), &all); err != nil {
		return nil, fmt.Errorf("doctor prints no JSON (%w, %w):\n%s", err, failed, out)
	}
	by := map[string]finding{}
	for _, f := range all {
		by[f.Check] = f
	}
	return by, nil
}

// clusterFault is one thing that goes wrong on a cluster. What doctor advises mends it, as far as it is a command of
// kubectl.
type clusterFault struct {
	name, check, says, fix string
	inject                 func()
	mend                   func(fix string)
}

// diagnose checks that the doctor finds what goes wrong with Kubernetes around the daemon.
func (s *story) diagnose(t *testing.T) {
	n := s.nodes[0]
	for _, f := range s.clusterFaults(n) {
		t.Run(f.name, func(t *testing.T) {
			s.plane.t = t
			s.found(n, f.check, func(got finding) bool { return got.Result == "ok" })
			f.inject()
			got := s.found(n, f.check, func(got finding) bool { return strings.Contains(got.Evidence, f.says) })
			if !strings.Contains(got.Fix, f.fix) {
				t.Errorf("got %+v, want the fix %q", got, f.fix)
			}
			f.mend(got.Fix)
			s.found(n, f.check, func(got finding) bool { return got.Result == "ok" })
		})
	}
}

// found waits until the finding of a check is as wanted.
func (s *story) found(n *node, check string, ok func(finding) bool) (got finding) {
	s.plane.t.Helper()
	s.plane.await(func() error {
		all, err := s.doctor(n)
		if err != nil {
			return err
		}
		if got = all[check]; !ok(got) {
			return fmt.Errorf("doctor says %+v", got)
		}
		return nil
	})
	return got
}

// quoted is the command that doctor advises, without the alternative.
var quoted = regexp.MustCompile(`^kubectl (patch .*\]') `)

func (s *story) clusterFaults(n *node) []clusterFault {
	p := s.plane
	role := func(patch string) func() {
		return func() { p.must("patch", "clusterrole", "flannel", "--type=json", "--patch="+patch) }
	}
	sh := func(command string) func() { return func() { s.on(n, "sh", "-c", command) } }
	again := func(string) { s.remake(n) }
	return []clusterFault{
		{
			name: "a rule is missing", check: "store-rights", says: "patch nodes/status",
			fix:    "kubectl patch clusterrole flannel",
			inject: role(`[{"op": "remove", "path": "/rules/2"}]`),
			mend: func(fix string) {
				command := quoted.FindStringSubmatch(fix)
				if command == nil {
					p.t.Fatalf("the fix %q is no command", fix)
				}
				_, err := p.Exec(p.ctx, "sh", "-c", filepath.Join(p.bin, "kubectl")+" --kubeconfig="+
					filepath.Join(p.certs, "admin.yaml")+" "+command[1])
				p.ok(err)
			},
		},
		{
			name: "the configuration of CNI is gone", check: "cni", says: "no pod can be started", fix: "delete pod",
			inject: sh("rm /etc/cni/net.d/10-flannel.conflist"), mend: again,
		},
		{
			name: "another network comes first", check: "cni", says: "uses 05-other.conf",
			fix:    "remove /etc/cni/net.d/05-other.conf",
			inject: sh(`echo '{"cniVersion": "0.3.1", "name": "other", "type": "ptp"}' >/etc/cni/net.d/05-other.conf`),
			mend:   func(string) { sh("rm /etc/cni/net.d/05-other.conf")() },
		},
		{
			name: "a plugin is missing", check: "cni", says: "portmap", fix: "reference plugins",
			inject: sh("mv /opt/cni/bin/portmap /opt/portmap"),
			mend:   func(string) { sh("mv /opt/portmap /opt/cni/bin/portmap")() },
		},
		{
			name: "cni0 has an address of an earlier network", check: "bridge", says: "10.42.0.1/24", fix: "ip link delete cni0",
			inject: sh("ip address add 10.42.0.1/24 dev cni0"),
			mend:   func(string) { sh("ip address del 10.42.0.1/24 dev cni0")() },
		},
	}
}

// remake deletes the pod of flanneld on a node, as the doctor advises, and waits for the next one.
func (s *story) remake(n *node) {
	p := s.plane
	p.must("--namespace=kube-flannel", "delete", "pod", "--selector=app=flannel", "--field-selector=spec.nodeName="+n.name)
	s.rolledOut("kube-flannel", "kube-flannel-ds")
}
