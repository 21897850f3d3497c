// Package annotation has the names of the annotations by which nodes of a Kubernetes cluster publish their leases, and
// what stands in them. The names and values are flannel's: both kinds of daemons read them.
package annotation

import (
	"cmp"
	"fmt"
	"regexp"
	"strings"

	"flanneld/subnet"
)

// DefaultPrefix is the prefix of the names unless -kube-annotation-prefix gives another one.
const DefaultPrefix = "flannel.alpha.coreos.com"

// nameForm is that of a name that the API server accepts: a DNS subdomain, a slash, and a word.
var nameForm = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*` +
	`/[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$`)

// How many characters stand before and after the slash at most.
const (
	maxDomain = 253
	maxName   = 63
)

// Check says why the API server would refuse names with a prefix.
func Check(prefix string) error {
	name := NewNames(prefix).Managed
	domain, rest, _ := strings.Cut(name, "/")
	switch {
	case !nameForm.MatchString(name):
		return fmt.Errorf("annotation prefix %q: %q is not a valid annotation name, an example of a prefix is %s/", prefix,
			name, DefaultPrefix)
	case len(domain) > maxDomain:
		return fmt.Errorf("annotation prefix %q: %d characters before the slash, at most %d", prefix, len(domain), maxDomain)
	case len(rest) > maxName:
		return fmt.Errorf("annotation prefix %q: %q has %d characters after the slash, at most %d", prefix, name, len(rest),
			maxName)
	}
	return nil
}

// Names are the names of the annotations with their prefix. Those of one array are for IPv4 and IPv6, in this order.
type Names struct {
	Managed     string    // "true": the node takes part in the network
	BackendType string    // as in records
	BackendData [2]string // JSON, "null" if the backend publishes none
	PublicIP    [2]string // what peers send to
	Overwrite   [2]string // written by the operator: published as PublicIP
	NodePublic  [2]string // written by the operator: like -public-ip at start
	Underlay    [2]string // ours: the host's own address where PublicIP is translated on the way; absent: the same
	Offers      [2]string // ours: a JSON list of further backends by which the node can be reached; absent: none
	UDPData     string    // ours: JSON of udp for IPv4, whose BackendData is "null"; absent: none
}

// NewNames returns the names for the value of -kube-annotation-prefix: at most one slash; without one, "/" is
// appended; a prefix that then ends in neither "/" nor "-" gets "-". It does not check that the API server would accept
// them.
func NewNames(prefix string) Names {
	if !strings.Contains(prefix, "/") {
		prefix += "/"
	}
	if !strings.HasSuffix(prefix, "/") && !strings.HasSuffix(prefix, "-") {
		prefix += "-"
	}
	both := func(v4, v6 string) [2]string { return [2]string{prefix + v4, prefix + v6} }
	return Names{
		Managed: prefix + "kube-subnet-manager", BackendType: prefix + "backend-type",
		BackendData: both("backend-data", "backend-v6-data"),
		PublicIP:    both("public-ip", "public-ipv6"),
		Overwrite:   both("public-ip-overwrite", "public-ipv6-overwrite"),
		NodePublic:  both("node-public-ip", "node-public-ipv6"),
		Underlay:    both("underlay-ip", "underlay-ipv6"),
		Offers:      both("offers", "offers-v6"),
		UDPData:     prefix + "udp-data",
	}
}

// All returns every name.
func (n Names) All() []string {
	out := []string{n.Managed, n.BackendType, n.UDPData}
	for _, pair := range [][2]string{n.BackendData, n.PublicIP, n.Overwrite, n.NodePublic, n.Underlay, n.Offers} {
		out = append(out, pair[:]...)
	}
	return out
}

// Family returns the index of a family in the arrays of Names.
func Family(is4 bool) int {
	if is4 {
		return 0
	}
	return 1
}

// Of returns the annotations that a node with these leases has.
func (n Names) Of(leases []subnet.Lease) map[string]string {
	out := map[string]string{n.Managed: "true"}
	for _, l := range leases {
		family := Family(l.Subnet.Addr().Is4())
		out[n.BackendType] = l.BackendType
		out[n.BackendData[family]] = cmp.Or(l.BackendData, "null")
		if l.BackendType == subnet.UDP && family == 0 && l.BackendData != "" {
			out[n.BackendData[0]], out[n.UDPData] = "null", l.BackendData
		}
		out[n.PublicIP[family]] = l.PublicIP.String()
		if l.Underlay.IsValid() {
			out[n.Underlay[family]] = l.Underlay.String()
		}
		if l.Offers != "" {
			out[n.Offers[family]] = l.Offers
		}
	}
	return out
}

// Published returns the names of what a daemon writes beside Managed and BackendType. Those that Of does not return
// must not stand at a node.
func (n Names) Published() []string {
	out := []string{n.UDPData}
	for family := range 2 {
		out = append(out, n.BackendData[family], n.PublicIP[family], n.Underlay[family], n.Offers[family])
	}
	return out
}
