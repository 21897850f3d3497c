package doctor_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"flanneld/api"
	"flanneld/doctor"
	"flanneld/subnet"
)

// cni is the file of the manifest, with all programs it names.
func cni() doctor.CNI {
	return doctor.CNI{
		Dir: "/etc/cni/net.d", Bin: []string{"/opt/cni/bin"},
		Files: []doctor.CNIFile{{Name: "10-flannel.conflist", Plugins: []doctor.CNIPlugin{
			{Type: "flannel", Delegate: "bridge", IPAM: "host-local", Bridge: "cni0", SubnetFile: "/run/flannel/subnet.env"},
			{Type: "portmap"},
		}}},
		Programs: map[string]bool{"flannel": true, "bridge": true, "host-local": true, "portmap": true},
	}
}

// healthyNode are the facts in a pod of the DaemonSet with one peer and nothing wrong. The peer is what the daemon
// remembers, whatever the length of its podCIDR.
func healthyNode() *doctor.Facts {
	f := healthy()
	f.StoreErr = doctor.ErrKubernetes
	f.State.Config, f.Store, f.Snapshot.Entries = config, doctor.Store{}, nil
	f.State.Memory.Records = append(f.State.Memory.Records, subnet.Stale(record("you", "node2", peer, "192.0.2.2"))...)
	f.Status.Daemon.ConfigFile = "/etc/kube-flannel/net-conf.json"
	f.Pod = &doctor.Pod{Namespace: "net", Node: "node1"}
	f.Kubernetes = api.Kubernetes{Node: "node1", PodCIDRs: []string{own.String()}, Rights: []api.Right{
		{Verb: "get", Resource: "nodes", Allowed: true}, {Verb: "list", Resource: "nodes", Allowed: true},
		{Verb: "watch", Resource: "nodes", Allowed: true}, {Verb: "patch", Resource: "nodes/status", Allowed: true},
	}}
	f.Leases = api.Leases{Records: []api.Record{
		{Key: "nodes/node1", PublicIPs: []netip.Addr{netip.MustParseAddr("192.0.2.1")}},
		{Key: "nodes/node2", PublicIPs: []netip.Addr{netip.MustParseAddr("192.0.2.2")}},
	}}
	return f
}

func TestAHealthyNodeRaisesNothing(t *testing.T) {
	f := healthyNode()
	f.Derive()
	if len(f.Peers) != 1 {
		t.Errorf("peers %v, want the one that the daemon remembers", f.Peers)
	}
	for _, d := range doctor.Diagnose(f) {
		if d.Result != doctor.Good && d.Check != "clock" {
			t.Errorf("%+v", d)
		}
	}
}

var nodeFaults = []failing{
	{"the API server is away", "store", func(f *doctor.Facts) {
		since := time.Now().Add(-time.Minute)
		f.Status.StoreSince, f.Status.StoreReason = &since, "connection refused"
	}, doctor.Failure, "connection refused", "kubectl get --raw=/readyz"},
	{"rules are missing", "store-rights",
		func(f *doctor.Facts) { f.Kubernetes.Rights[2].Allowed, f.Kubernetes.Rights[3].Allowed = false, false },
		doctor.Failure, "may not watch nodes, patch nodes/status",
		`kubectl patch clusterrole flannel --type=json --patch='[{"op":"add","path":"/rules/-","value":{"apiGroups":[""],"resources":["nodes"],"verbs":["watch"]}},` +
			`{"op":"add","path":"/rules/-","value":{"apiGroups":[""],"resources":["nodes/status"],"verbs":["patch"]}}]'`},
	{"rights are not known", "store-rights", func(f *doctor.Facts) { f.Kubernetes.RightsError = "connection refused" },
		doctor.Skipped, "connection refused", ""},
	{"the Node object is gone", "lease", func(f *doctor.Facts) { f.Kubernetes.NodeError = `nodes "node1" not found` },
		doctor.Failure, "not found", "kubectl get node node1"},
	{"no podCIDR", "lease", func(f *doctor.Facts) { f.Kubernetes.PodCIDRs = nil }, doctor.Failure, "no podCIDR",
		"--cluster-cidr=10.5.0.0/16"},
	{"podCIDR outside the network", "lease", func(f *doctor.Facts) { f.Kubernetes.PodCIDRs = []string{"10.6.1.0/24"} },
		doctor.Failure,
		"does not lie inside", "kubectl --namespace=net edit configmap kube-flannel-cfg"},
	{"podCIDR of another family", "lease", func(f *doctor.Facts) { f.Kubernetes.PodCIDRs = []string{"fd00::/64"} },
		doctor.Failure,
		"none for the network 10.5.0.0/16", "--cluster-cidr"},
	{"podCIDR that makes no sense", "lease", func(f *doctor.Facts) { f.Kubernetes.PodCIDRs = []string{"ten"} },
		doctor.Failure, `"ten"`, "kubectl get node"},
	{"podCIDR is not in use", "lease", func(f *doctor.Facts) { f.Kubernetes.PodCIDRs = []string{"10.5.9.0/24"} },
		doctor.Failure,
		"not in use", "kubectl --namespace=net delete pod --selector=app=flannel --field-selector=spec.nodeName=node1"},
	{"a node is skipped", "records", func(f *doctor.Facts) { f.Leases.Records[1].Skipped = "its backend is host-gw" },
		doctor.Failure,
		"nodes/node2: its backend is host-gw", "kubectl describe node"},
	{"two nodes publish one address",
		"duplicates", func(f *doctor.Facts) { f.Leases.Records[1].PublicIPs = f.Leases.Records[0].PublicIPs },
		doctor.Failure, "nodes/node1 and nodes/node2", "kubectl delete node"},
	{"the pod is to be made again", "ready", func(f *doctor.Facts) { f.Status.Pending = "VNI 2" }, doctor.Warning,
		"waits for a restart",
		"kubectl --namespace=net delete pod"},
	{"the MTU is too large", "path-mtu", func(f *doctor.Facts) {
		r := f.Probes[peer]
		r.PathMTU = 1350
		f.Probes[peer] = r
	}, doctor.Failure, "1350", "edit configmap kube-flannel-cfg"},
	{"a setting of the node", "forwarding", func(f *doctor.Facts) { f.Sysctls["net/ipv4/ip_forward"] = 0 }, doctor.Failure,
		"ip_forward is 0",
		"on node node1: sysctl"},
	{"cni0 is of an earlier network", "bridge", func(f *doctor.Facts) { f.Links[2] = link("cni0", 1450, "10.42.3.1/24") },
		doctor.Failure,
		"cni0 has 10.42.3.1/24", "kubectl drain node1 --ignore-daemonsets, then on that node: ip link delete cni0"},
	{"cni0 is of an earlier podCIDR", "bridge", func(f *doctor.Facts) { f.Links[2] = link("cni0", 1450, "10.5.7.1/24") },
		doctor.Failure,
		"not in this node's podCIDR 10.5.1.0/24", "ip link delete cni0"},
	{"no configuration of CNI", "cni", func(f *doctor.Facts) { f.CNI.Files = nil }, doctor.Failure,
		"no pod can be started", "kubectl --namespace=net delete pod"},
	{"the folder of CNI is not mounted", "cni", func(f *doctor.Facts) { f.CNI = doctor.CNI{Err: errors.New("it is so")} },
		doctor.Skipped, "not visible", ""},
	{"a configuration of CNI is broken", "cni", func(f *doctor.Facts) {
		f.CNI.Files[0].Plugins, f.CNI.Files[0].Err = nil, errors.New("it is so")
	}, doctor.Failure, "10-flannel.conflist", "repair or remove /etc/cni/net.d/10-flannel.conflist"},
	{"only another plugin", "cni", func(f *doctor.Facts) { f.CNI.Files[0].Plugins[0].Type = "calico" }, doctor.Warning,
		"no file", ""},
	{"another plugin comes first", "cni", func(f *doctor.Facts) {
		f.CNI.Files = append([]doctor.CNIFile{{Name: "05-calico.conflist", Plugins: []doctor.CNIPlugin{{Type: "calico"}}}},
			f.CNI.Files...)
	}, doctor.Warning, "uses 05-calico.conflist", "remove /etc/cni/net.d/05-calico.conflist"},
	{"multus comes first", "cni", func(f *doctor.Facts) {
		f.CNI.Files = append([]doctor.CNIFile{{Name: "00-multus.conf", Plugins: []doctor.CNIPlugin{{Type: "multus-shim"}}}},
			f.CNI.Files...)
	}, doctor.Good, "", ""},
	{"the reference plugins are missing",
		"cni", func(f *doctor.Facts) { f.CNI.Programs = map[string]bool{"flannel": true} }, doctor.Failure,
		"bridge, host-local, portmap", "on node node1: install the reference plugins"},
	{"the plugin itself is missing", "cni", func(f *doctor.Facts) { f.CNI.Programs["flannel"] = false }, doctor.Failure,
		"not in /opt/cni/bin: flannel", "kubectl --namespace=net delete pod"},
	{"the plugin reads another file",
		"cni", func(f *doctor.Facts) { f.CNI.Files[0].Plugins[0].SubnetFile = "/run/other.env" }, doctor.Failure,
		"/run/other.env", `"subnetFile": "/run/flannel/subnet.env"`},
}

func TestFaultsOfANode(t *testing.T) {
	for _, tt := range nodeFaults {
		t.Run(tt.name, func(t *testing.T) {
			f := healthyNode()
			tt.fault(f)
			d := find(t, f, tt.check)
			if d.Result != tt.result || !strings.Contains(d.Evidence, tt.says) || !strings.Contains(d.Fix, tt.fix) {
				t.Errorf("got %+v\nwant %s, %q, fix %q", d, tt.result, tt.says, tt.fix)
			}
			for _, d := range doctor.Diagnose(f) {
				if strings.Contains(d.Fix, "etcdctl") || strings.Contains(d.Fix, "systemctl") {
					t.Errorf("%s advises what does not exist in a pod: %+v", d.Check, d)
				}
			}
		})
	}
}

func TestNoRestartByKubectlIsRunByItself(t *testing.T) {
	f := healthyNode()
	f.Links = f.Links[:1]
	f.Derive()
	for _, d := range doctor.Diagnose(f) {
		for _, command := range d.Repair {
			if command[0] == "kubectl" || command[0] == "systemctl" {
				t.Errorf("%s would run %v in the pod", d.Check, command)
			}
		}
	}
}
