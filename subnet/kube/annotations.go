package kube

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	"flanneld/subnet"
)

// DefaultPrefix is the prefix of the annotations' names unless -kube-annotation-prefix gives another one.
const DefaultPrefix = "flannel.alpha.coreos.com"

// Names are the names of the annotations with their prefix. Those of one array are for IPv4 and IPv6, in this order.
type Names struct {
	prefix      string
	managed     string    // "true": the node takes part in the network
	backendType string    // as in records
	backendData [2]string // JSON, "null" if the backend publishes none
	publicIP    [2]string // what peers send to
	overwrite   [2]string // written by the operator: published as publicIP
	nodePublic  [2]string // written by the operator: like -public-ip at start
	underlay    [2]string // ours: the host's own address where publicIP is translated on the way; absent: the same
}

// NewNames returns the names for the value of -kube-annotation-prefix: at most one slash; without one, "/" is
// appended; a prefix that then ends in neither "/" nor "-" gets "-".
func NewNames(prefix string) (Names, error) {
	if !strings.Contains(prefix, "/") {
		prefix += "/"
	}
	if !strings.HasSuffix(prefix, "/") && !strings.HasSuffix(prefix, "-") {
		prefix += "-"
	}
	both := func(v4, v6 string) [2]string { return [2]string{prefix + v4, prefix + v6} }
	n := Names{
		prefix: prefix, managed: prefix + "kube-subnet-manager", backendType: prefix + "backend-type",
		backendData: both("backend-data", "backend-v6-data"),
		publicIP:    both("public-ip", "public-ipv6"),
		overwrite:   both("public-ip-overwrite", "public-ipv6-overwrite"),
		nodePublic:  both("node-public-ip", "node-public-ipv6"),
		underlay:    both("underlay-ip", "underlay-ipv6"),
	}
	if wrong := validation.IsQualifiedName(n.managed); len(wrong) > 0 {
		return Names{}, fmt.Errorf("annotation prefix %q: %s", prefix, strings.Join(wrong, "; "))
	}
	return n, nil
}

// familyOf returns the index of a family in the arrays of Names.
func familyOf(is4 bool) int {
	if is4 {
		return 0
	}
	return 1
}

// errNotManaged says that a node does not take part in the network.
var errNotManaged = errors.New("no flanneld runs on the node yet")

// record returns what a node publishes. It is errNotManaged for one that publishes nothing.
func (n Names) record(o node) (subnet.Record, error) {
	if o.annotations[n.managed] != "true" {
		return subnet.Record{}, errNotManaged
	}
	prefixes, err := o.prefixes()
	if err != nil {
		return subnet.Record{}, err
	}
	r := subnet.Record{Identity: o.uid, Host: o.name}
	for _, p := range prefixes {
		l, err := n.lease(o, p)
		if err != nil {
			return subnet.Record{}, err
		}
		r.Leases = append(r.Leases, l)
	}
	return r, nil
}

func (n Names) lease(o node, p netip.Prefix) (subnet.Lease, error) {
	family := familyOf(p.Addr().Is4())
	l := subnet.Lease{Subnet: p, Attrs: subnet.Attrs{BackendType: strings.ToLower(o.annotations[n.backendType])}}
	if l.BackendType == "" {
		return subnet.Lease{}, fmt.Errorf("annotation %s is missing", n.backendType)
	}
	text := o.annotations[n.publicIP[family]]
	a, err := netip.ParseAddr(text)
	if err != nil {
		return subnet.Lease{}, fmt.Errorf("annotation %s is %.80q, want an address", n.publicIP[family], text)
	}
	if err := subnet.CheckPublicIP(a, p); err != nil {
		return subnet.Lease{}, fmt.Errorf("annotation %s is %s: %w", n.publicIP[family], a, err)
	}
	l.PublicIP = a
	// The address beside it is a help, not a condition: a wrong one counts as none.
	if u, err := netip.ParseAddr(o.annotations[n.underlay[family]]); err == nil && subnet.CheckPublicIP(u, p) == nil {
		l.Underlay = u
	}
	if l.BackendData, err = compact(o.annotations[n.backendData[family]]); err != nil {
		return subnet.Lease{}, fmt.Errorf("annotation %s: %w", n.backendData[family], err)
	}
	return l, nil
}

// compact returns the JSON of a backend without blanks, empty for none.
func compact(text string) (string, error) {
	if text == "" {
		return "", nil
	}
	var b bytes.Buffer
	if err := json.Compact(&b, []byte(text)); err != nil {
		return "", fmt.Errorf("not JSON: %w", err)
	}
	if b.String() == "null" {
		return "", nil
	}
	return b.String(), nil
}

// wanted returns the annotations that a node with these leases must have; "": it must not have that one.
func (n Names) wanted(leases []subnet.Lease) map[string]string {
	want := map[string]string{n.managed: "true"}
	for family := range 2 {
		for _, name := range []string{n.backendData[family], n.publicIP[family], n.underlay[family]} {
			want[name] = ""
		}
	}
	for _, l := range leases {
		family := familyOf(l.Subnet.Addr().Is4())
		want[n.backendType] = l.BackendType
		want[n.backendData[family]] = cmp.Or(l.BackendData, "null")
		want[n.publicIP[family]] = l.PublicIP.String()
		if l.Underlay.IsValid() {
			want[n.underlay[family]] = l.Underlay.String()
		}
	}
	return want
}

// overwritten returns the leases with the public addresses that the operator has written for this node, and what is
// wrong with those that cannot be used.
func (n Names) overwritten(o node, leases []subnet.Lease) (out []subnet.Lease, wrong error) {
	for _, l := range leases {
		name := n.overwrite[familyOf(l.Subnet.Addr().Is4())]
		if text := o.annotations[name]; text != "" {
			a, err := netip.ParseAddr(text)
			if err == nil {
				err = subnet.CheckPublicIP(a, l.Subnet)
			}
			if err != nil {
				wrong = errors.Join(wrong, fmt.Errorf("annotation %s is %.80q, not used: %w", name, text, err))
			} else {
				if !l.Underlay.IsValid() && a != l.PublicIP {
					l.Underlay = l.PublicIP
				}
				l.PublicIP = a
			}
		}
		out = append(out, l)
	}
	return out, wrong
}
