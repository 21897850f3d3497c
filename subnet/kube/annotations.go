package kube

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"flanneld/subnet"
	"flanneld/subnet/annotation"
)

// Names are the names of the annotations with their prefix, known to be such that the API server accepts them.
type Names struct {
	annotation.Names
	known map[string]string // each name to itself: nodes share one copy
}

// NewNames returns the names for the value of -kube-annotation-prefix.
func NewNames(prefix string) (Names, error) {
	if err := annotation.Check(prefix); err != nil {
		return Names{}, err
	}
	n := Names{annotation.NewNames(prefix), map[string]string{}}
	for _, name := range n.All() {
		n.known[name] = name
	}
	return n, nil
}

// errNotManaged says that a node does not take part in the network.
var errNotManaged = errors.New("no flanneld runs on the node yet")

// record returns what a node publishes in the families that count: a cluster may assign subnets of both families to its
// nodes, and the network have only one. The error is errNotManaged for a node that publishes nothing.
func (n Names) record(o *node, counts func(family int) bool) (subnet.Record, error) {
	if o.annotations[n.Managed] != "true" {
		return subnet.Record{}, errNotManaged
	}
	prefixes, err := o.prefixes()
	if err != nil {
		return subnet.Record{}, err
	}
	r := subnet.Record{Identity: o.uid, Host: o.name}
	other := func(p netip.Prefix) bool { return !counts(annotation.Family(p.Addr().Is4())) }
	if used := slices.DeleteFunc(slices.Clone(prefixes), other); len(used) > 0 {
		prefixes = used // else it is a node of another network, of which others say what is wrong
	}
	for _, p := range prefixes {
		l, err := n.lease(o, p)
		if err != nil {
			return subnet.Record{}, err
		}
		r.Leases = append(r.Leases, l)
	}
	return r, nil
}

// published returns what a node publishes in the families in which it has published an address.
func (n Names) published(o *node) (subnet.Record, error) {
	return n.record(o, func(family int) bool { return o.annotations[n.PublicIP[family]] != "" })
}

func (n Names) lease(o *node, p netip.Prefix) (subnet.Lease, error) {
	family := annotation.Family(p.Addr().Is4())
	l := subnet.Lease{Subnet: p, Attrs: subnet.Attrs{BackendType: strings.ToLower(o.annotations[n.BackendType])}}
	if l.BackendType == "" {
		return subnet.Lease{}, fmt.Errorf("annotation %s is missing", n.BackendType)
	}
	text := o.annotations[n.PublicIP[family]]
	a, err := netip.ParseAddr(text)
	if err != nil {
		return subnet.Lease{}, fmt.Errorf("annotation %s is %.80q, want an address", n.PublicIP[family], text)
	}
	if err := subnet.CheckPublicIP(a, p); err != nil {
		return subnet.Lease{}, fmt.Errorf("annotation %s is %s: %w", n.PublicIP[family], a, err)
	}
	l.PublicIP = a
	// The address beside it is a help, not a condition: a wrong one counts as none.
	if u, err := netip.ParseAddr(o.annotations[n.Underlay[family]]); err == nil && subnet.CheckPublicIP(u, p) == nil {
		l.Underlay = u
	}
	l.Offers = subnet.ReadOffers([]byte(o.annotations[n.Offers[family]]))
	data := n.BackendData[family]
	if family == 0 && l.BackendType == subnet.UDP {
		data = n.UDPData
	}
	if l.BackendData, err = compact(o.annotations[data]); err != nil {
		return subnet.Lease{}, fmt.Errorf("annotation %s: %w", data, err)
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
	switch b.String() {
	case "null":
		return "", nil
	case text:
		return text, nil // which the node has, too
	}
	return b.String(), nil
}

// wanted returns the annotations that a node with these leases must have; "": it must not have that one.
func (n Names) wanted(leases []subnet.Lease) map[string]string {
	want := n.Of(leases)
	for _, name := range n.Published() {
		if _, is := want[name]; !is {
			want[name] = ""
		}
	}
	return want
}

// overwritten returns the leases with the public addresses that the operator has written for this node, and what is
// wrong with those that cannot be used.
func (n Names) overwritten(o *node, leases []subnet.Lease) (out []subnet.Lease, wrong error) {
	for _, l := range leases {
		name := n.Overwrite[annotation.Family(l.Subnet.Addr().Is4())]
		if text := o.annotations[name]; text != "" {
			var err error
			if l, err = withPublicIP(l, text); err != nil {
				wrong = errors.Join(wrong, fmt.Errorf("annotation %s is %.80q, not used: %w", name, text, err))
			}
		}
		out = append(out, l)
	}
	return out, wrong
}

// withPublicIP returns a lease with another public address; the one that it has may still be what packets come from.
func withPublicIP(l subnet.Lease, text string) (subnet.Lease, error) {
	a, err := netip.ParseAddr(text)
	if err == nil {
		err = subnet.CheckPublicIP(a, l.Subnet)
	}
	if err != nil {
		return l, err
	}
	if !l.Underlay.IsValid() && a != l.PublicIP {
		l.Underlay = l.PublicIP
	}
	l.PublicIP = a
	return l, nil
}
