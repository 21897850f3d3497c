package doctor

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"flanneld/api"
)

// Pod is where a diagnosis runs, if that is a pod of a Kubernetes cluster.
type Pod struct {
	Namespace string
	Node      string
}

// manifest is what repairs roles and service account.
const manifest = "kubectl apply --filename=kube-flannel.yml"

// noCluster is the finding if the daemon does not say what the API server has told it.
func (f *Facts) noCluster() (Finding, bool) {
	r, ok := f.noDaemon()
	if !ok && f.KubernetesErr != nil {
		return skip("the daemon does not say: %v", f.KubernetesErr), true
	}
	return r, ok
}

// checkNodeRights looks for what the service account lacks.
func checkNodeRights(f *Facts) Finding {
	if r, ok := f.noCluster(); ok {
		return r
	}
	k := f.Kubernetes
	if k.RightsError != "" {
		return skip("the rights of the service account are not known: %s", k.RightsError)
	}
	var missing []api.Right
	var names []string
	for _, r := range k.Rights {
		if !r.Allowed {
			missing = append(missing, r)
			names = append(names, r.Verb+" "+r.Resource)
		}
	}
	if len(missing) > 0 {
		return fail(roleFix(missing), "the service account may not %s: the ClusterRole lacks this rule",
			strings.Join(names, ", "))
	}
	return pass("the service account has all %d rights that the daemon uses", len(k.Rights))
}

// roleFix is the command that adds rules to the ClusterRole of the manifest.
func roleFix(missing []api.Right) string {
	verbs := map[string][]string{}
	var order []string
	for _, r := range missing {
		if verbs[r.Resource] == nil {
			order = append(order, r.Resource)
		}
		verbs[r.Resource] = append(verbs[r.Resource], r.Verb)
	}
	var changes []any
	for _, resource := range order {
		changes = append(changes, map[string]any{"op": "add", "path": "/rules/-", "value": map[string]any{
			"apiGroups": []string{""}, "resources": []string{resource}, "verbs": verbs[resource],
		}})
	}
	text, _ := json.Marshal(changes) // strings alone: it cannot fail
	return fmt.Sprintf("kubectl patch clusterrole flannel --type=json --patch='%s' (or %s)", text, manifest)
}

// checkPodCIDR compares the Node object with the network and with what this host uses.
func checkPodCIDR(f *Facts) Finding {
	if r, ok := f.noCluster(); ok {
		return r
	}
	k := f.Kubernetes
	switch {
	case k.NodeError != "":
		return fail("kubectl get node "+k.Node+"; the kubelet makes the object when it starts",
			"the Node object of this host: %s", k.NodeError)
	case len(k.PodCIDRs) == 0:
		return fail(fmt.Sprintf("start kube-controller-manager with --allocate-node-cidrs=true --cluster-cidr=%s",
			strings.ReplaceAll(list(f.Config.Networks()), " ", "")), "node %s has no podCIDR", k.Node)
	}
	cidrs, err := parsePrefixes(k.PodCIDRs)
	if err != nil {
		return fail("kubectl get node "+k.Node+" --output=yaml", "node %s: %v", k.Node, err)
	}
	for _, pool := range f.Config.Pools {
		i := slices.IndexFunc(cidrs, func(p netip.Prefix) bool { return p.Addr().Is4() == pool.Network.Addr().Is4() })
		switch {
		case i < 0:
			return fail("start kube-controller-manager with a --cluster-cidr of both families",
				"node %s has the podCIDRs %s, and none for the network %s", k.Node, list(cidrs), pool.Network)
		case !pool.Network.Contains(cidrs[i].Addr()) || cidrs[i].Bits() <= pool.Network.Bits():
			return fail(f.configFix()+": make Network equal to --cluster-cidr of kube-controller-manager",
				"podCIDR %s of node %s does not lie inside the network %s", cidrs[i], k.Node, pool.Network)
		case !slices.Contains(f.Subnets, cidrs[i]):
			return fail(restartFix, "podCIDR %s of node %s is not in use: this host has %s", cidrs[i], k.Node,
				orNone(list(f.Subnets)))
		}
	}
	return pass("%s, the podCIDR of node %s", list(f.Subnets), k.Node)
}

func parsePrefixes(texts []string) (out []netip.Prefix, err error) {
	for _, text := range texts {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, fmt.Errorf("podCIDR %.80q: %w", text, err)
		}
		out = append(out, p.Masked())
	}
	return out, nil
}

// configFix changes the network configuration.
func (f *Facts) configFix() string {
	namespace := "kube-flannel"
	if f.Pod != nil {
		namespace = f.Pod.Namespace
	}
	return fmt.Sprintf("kubectl --namespace=%s edit configmap kube-flannel-cfg, "+
		"then kubectl --namespace=%s rollout restart daemonset kube-flannel-ds", namespace, namespace)
}

// checkNodes looks for nodes that are no peers although they say that they are.
func checkNodes(f *Facts) Finding {
	if r, ok := f.noDaemon(); ok {
		return r
	}
	var bad []string
	for _, r := range f.Leases.Records {
		if r.Skipped != "" {
			bad = append(bad, fmt.Sprintf("%s: %s", r.Key, r.Skipped))
		}
	}
	if len(bad) > 0 {
		return fail("kubectl describe node NAME: compare podCIDR and annotations with the network configuration, "+
			"the same on all nodes", "%s skipped: %s", count(len(bad), "node"), some(bad))
	}
	return pass("%s, none is skipped", count(len(f.Leases.Records), "node"))
}

// checkNodeAddresses looks for nodes that publish one address.
func checkNodeAddresses(f *Facts) Finding {
	if r, ok := f.noDaemon(); ok {
		return r
	}
	var doubled []string
	seen := map[netip.Addr]string{}
	for _, r := range f.Leases.Records {
		for _, a := range slices.Compact(slices.Clone(r.PublicIPs)) {
			if first, ok := seen[a]; ok && first != r.Key {
				doubled = append(doubled, fmt.Sprintf("%s and %s publish the address %s", first, r.Key, a))
			}
			seen[a] = r.Key
		}
	}
	if len(doubled) > 0 {
		return fail("kubectl delete node NAME for a host that is gone; else compare the annotations public-ip "+
			"and public-ip-overwrite of both", "%s", some(doubled))
	}
	return pass("no two nodes publish one address")
}

// inCluster turns the repair of a daemon that systemd runs into that of one in a pod: the pod is made again. The
// kernel's settings cannot be written in a pod that is not privileged.
func (f *Facts) inCluster(r Finding) Finding {
	if f.Pod == nil || r.Fix == "" {
		return r
	}
	selector := "app.kubernetes.io/name=flannel"
	if f.inKubernetes() {
		selector = "app=flannel"
	}
	remake := fmt.Sprintf("kubectl --namespace=%s delete pod --selector=%s --field-selector=spec.nodeName=%s",
		f.Pod.Namespace, selector, f.Pod.Node)
	fix := strings.ReplaceAll(r.Fix, restartFix, remake)
	fix = strings.ReplaceAll(fix, "systemctl restart flanneld", remake)
	if fix != r.Fix {
		r.Fix, r.Repair = fix, nil
	}
	if f.inKubernetes() {
		r.Fix = strings.ReplaceAll(r.Fix, "flannelctl network edit", f.configFix())
	}
	if !strings.HasPrefix(r.Fix, "kubectl") {
		r.Fix = "on node " + f.Pod.Node + ": " + r.Fix
	}
	return r
}
