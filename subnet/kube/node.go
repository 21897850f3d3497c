package kube

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"unique"

	corev1 "k8s.io/api/core/v1"

	"flanneld/subnet"
)

// node is what matters of a Node object: some hundred bytes of ten thousand, and nothing that a heartbeat changes.
type node struct {
	name, uid   string
	created     int64    // Unix time in seconds
	version     int64    // resourceVersion; 0 if it is not a number
	podCIDRs    []string // as written
	annotations map[string]string
	available   bool // its condition says that its network is up
}

// maxText bounds an annotation that is taken in, in bytes: a real one has a hundred. A longer one counts as empty.
const maxText = 4 << 10

// nodeOf reads an object. Strings are copied, so that the object and all that it was decoded from can go; those that
// all nodes have are shared.
func (n Names) nodeOf(o *corev1.Node) *node {
	out := &node{
		name: strings.Clone(o.Name), uid: strings.Clone(string(o.UID)), created: o.CreationTimestamp.Unix(),
		annotations: map[string]string{}, available: available(o),
	}
	out.version, _ = strconv.ParseInt(o.ResourceVersion, 10, 64)
	cidrs := o.Spec.PodCIDRs
	if len(cidrs) == 0 && o.Spec.PodCIDR != "" {
		cidrs = []string{o.Spec.PodCIDR}
	}
	for _, c := range cidrs {
		out.podCIDRs = append(out.podCIDRs, strings.Clone(c))
	}
	for key, text := range o.Annotations {
		name, ok := n.known[key]
		switch {
		case !ok || len(text) > maxText:
		case name == n.Managed || name == n.BackendType:
			out.annotations[name] = unique.Make(text).Value()
		default:
			out.annotations[name] = strings.Clone(text)
		}
	}
	return out
}

// reasonUp is the reason of the condition that the network is there.
const reasonUp = "FlannelIsUp"

// available reports whether the condition of a node says that its network is up.
func available(o *corev1.Node) bool {
	return slices.ContainsFunc(o.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeNetworkUnavailable && c.Status == corev1.ConditionFalse && c.Reason == reasonUp
	})
}

// same reports whether nothing that matters differs.
func (o *node) same(p *node) bool {
	return o.uid == p.uid && o.available == p.available && slices.Equal(o.podCIDRs, p.podCIDRs) &&
		maps.Equal(o.annotations, p.annotations)
}

// prefixes returns the pod CIDRs in the order of a record: one, or an IPv4 and an IPv6 one.
func (o *node) prefixes() ([]netip.Prefix, error) {
	if len(o.podCIDRs) == 0 {
		return nil, fmt.Errorf("node %s has no spec.podCIDR", o.name)
	}
	var out []netip.Prefix
	for _, text := range o.podCIDRs {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, fmt.Errorf("node %s: podCIDR %.80q: %w", o.name, text, err)
		}
		out = append(out, p.Masked())
	}
	slices.SortFunc(out, func(a, b netip.Prefix) int { return a.Addr().BitLen() - b.Addr().BitLen() })
	if len(out) > 2 || len(out) == 2 && out[0].Addr().BitLen() == out[1].Addr().BitLen() {
		return nil, fmt.Errorf("node %s: podCIDRs %v, want one for each family", o.name, out)
	}
	return out, nil
}

// subnets returns those of the pod CIDRs that this network uses, one for each of its families. The error says what is
// wrong and what to do.
func (o *node) subnets(c subnet.Config) ([]netip.Prefix, error) {
	if len(o.podCIDRs) == 0 {
		return nil, fmt.Errorf("node %s has no spec.podCIDR: does kube-controller-manager run with "+
			"--allocate-node-cidrs=true and --cluster-cidr=%s?", o.name, joined(c.Networks()))
	}
	all, err := o.prefixes()
	if err != nil {
		return nil, err
	}
	var out []netip.Prefix
	for _, pool := range c.Pools {
		i := slices.IndexFunc(all, func(p netip.Prefix) bool { return p.Addr().Is4() == pool.Network.Addr().Is4() })
		switch {
		case i < 0:
			return nil, fmt.Errorf("node %s has the podCIDRs %v, and none for the network %s: give "+
				"kube-controller-manager a --cluster-cidr of that family", o.name, o.podCIDRs, pool.Network)
		case !pool.Network.Contains(all[i].Addr()) || all[i].Bits() <= pool.Network.Bits():
			return nil, fmt.Errorf("node %s: podCIDR %s does not lie inside the network %s: make Network in net-conf.json "+
				"equal to --cluster-cidr of kube-controller-manager", o.name, all[i], pool.Network)
		}
		out = append(out, all[i])
	}
	return out, nil
}

func joined(networks []netip.Prefix) string {
	texts := make([]string, len(networks))
	for i, n := range networks {
		texts[i] = n.String()
	}
	return strings.Join(texts, ",")
}
