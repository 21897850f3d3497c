package kube

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/util/validation"

	"flanneld/subnet"
	"flanneld/subnet/annotation"
)

func TestPrefixesOfAnnotations(t *testing.T) {
	for prefix, want := range map[string]string{
		"flannel.alpha.coreos.com":        "flannel.alpha.coreos.com/public-ip",
		"flannel.alpha.coreos.com/":       "flannel.alpha.coreos.com/public-ip",
		"flannel.alpha.coreos.com/second": "flannel.alpha.coreos.com/second-public-ip",
		"example.com/net-":                "example.com/net-public-ip",
	} {
		n, err := NewNames(prefix)
		if err != nil {
			t.Errorf("%q: %v", prefix, err)
		} else if n.PublicIP[0] != want {
			t.Errorf("%q: got %s, want %s", prefix, n.PublicIP[0], want)
		}
	}
	for _, prefix := range []string{"", "a/b/c", "exa mple.com", "/", "example.com/-"} {
		if n, err := NewNames(prefix); err == nil {
			t.Errorf("%q: got %s, want an error", prefix, n.PublicIP[0])
		}
	}
}

// The check of this project, which needs no library of Kubernetes, refuses what the API server does.
func TestPrefixesAreCheckedAsByTheAPIServer(t *testing.T) {
	pieces := []string{"", "a", "A", "-", ".", "_", "/", "9", "é", " ", "exa.mple", strings.Repeat("a", 43),
		strings.Repeat("a", 44), strings.Repeat("a.", 126)}
	for _, a := range pieces {
		for _, b := range pieces {
			for _, c := range pieces {
				prefix := a + b + c
				wrong := validation.IsQualifiedName(annotation.NewNames(prefix).Managed)
				if err := annotation.Check(prefix); (err != nil) != (len(wrong) > 0) {
					t.Errorf("%q: got %v, want %v", prefix, err, wrong)
				}
			}
		}
	}
}

// both has both families count.
func both(int) bool { return true }

func TestRecordsOfNodes(t *testing.T) {
	n, err := NewNames(annotation.DefaultPrefix)
	if err != nil {
		t.Fatal(err)
	}
	good := func(change map[string]string) *node {
		a := map[string]string{
			n.Managed: "true", n.BackendType: "VXLAN", n.BackendData[0]: `{"VNI": 1, "VtepMAC": "c6:d2:32:6f:8f:44"}`,
			n.PublicIP[0]:    "192.0.2.1",
			n.BackendData[1]: "null", n.PublicIP[1]: "2001:db8::1",
		}
		for key, text := range change {
			a[key] = text
		}
		return &node{name: "a", uid: "u", podCIDRs: []string{"fd00:5::/64", "10.5.34.0/24"}, annotations: a}
	}
	want := subnet.Record{Identity: "u", Host: "a", Leases: []subnet.Lease{
		{Subnet: netip.MustParsePrefix("10.5.34.0/24"), Attrs: subnet.Attrs{
			PublicIP: netip.MustParseAddr("192.0.2.1"), BackendType: "vxlan",
			BackendData: `{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:44"}`}},
		{Subnet: netip.MustParsePrefix("fd00:5::/64"),
			Attrs: subnet.Attrs{PublicIP: netip.MustParseAddr("2001:db8::1"), BackendType: "vxlan"}},
	}}
	got, err := n.record(good(nil), both)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
		cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Errorf("want (-) and got (+) differ:\n%s", diff)
	}
	const offers = `[{"Type":"udp"}]`
	got, err = n.record(good(map[string]string{n.Offers[0]: ` [ {"Type": "UDP"} ] `, n.Offers[1]: "rubbish"}), both)
	if err != nil || got.Leases[0].Offers != offers || !got.Leases[1].BadOffers() {
		t.Errorf("with offers: %+v, %v", got, err)
	}
	if of := n.Of(got.Leases[:1]); of[n.Offers[0]] != offers {
		t.Errorf("published as %v", of)
	}
	udp := map[string]string{n.BackendType: "udp", n.BackendData[0]: "null", n.UDPData: `{"InKernel": true}`}
	got, err = n.record(good(udp), both)
	if err != nil || got.Leases[0].BackendData != `{"InKernel":true}` || got.Leases[1].BackendData != "" {
		t.Errorf("udp: %+v, %v", got, err)
	}
	if of := n.Of(got.Leases); of[n.BackendData[0]] != "null" || of[n.UDPData] != `{"InKernel":true}` {
		t.Errorf("udp is published as %v", of)
	}
	if _, is := n.Of(want.Leases)[n.Offers[0]]; is {
		t.Error("a node without offers has the annotation")
	}
	for name, change := range map[string]map[string]string{
		"no flanneld":           {n.Managed: ""},
		"no backend":            {n.BackendType: ""},
		"no address":            {n.PublicIP[0]: ""},
		"IPv6 for IPv4":         {n.PublicIP[0]: "2001:db8::1"},
		"not a host's address":  {n.PublicIP[1]: "ff02::1"},
		"data that is not JSON": {n.BackendData[0]: "{"},
	} {
		if r, err := n.record(good(change), both); err == nil {
			t.Errorf("%s: got %v, want an error", name, r)
		}
	}
	three := good(nil)
	three.podCIDRs = append(three.podCIDRs, "10.5.35.0/24")
	if r, err := n.record(three, both); err == nil {
		t.Errorf("three pod CIDRs: got %v, want an error", r)
	}
}

// TestNodesOfAClusterWithMoreFamiliesThanTheNetworkAreRead: the controller assigns a subnet of each family of the
// cluster.
func TestNodesOfAClusterWithMoreFamiliesThanTheNetworkAreRead(t *testing.T) {
	n, err := NewNames(annotation.DefaultPrefix)
	if err != nil {
		t.Fatal(err)
	}
	cidrs := []string{"10.5.34.0/24", "fd00:5::/64"}
	for family, address := range []string{"192.0.2.1", "2001:db8::1"} {
		o := &node{name: "a", uid: "u", podCIDRs: cidrs, annotations: map[string]string{
			n.Managed: "true", n.BackendType: "host-gw", n.PublicIP[family]: address,
		}}
		only := func(f int) bool { return f == family }
		for what, read := range map[string]func() (subnet.Record, error){
			"as a peer":       func() (subnet.Record, error) { return n.record(o, only) },
			"as the own node": func() (subnet.Record, error) { return n.published(o) },
		} {
			r, err := read()
			if err != nil || len(r.Leases) != 1 || r.Leases[0].Subnet.String() != cidrs[family] ||
				r.Leases[0].PublicIP.String() != address {
				t.Errorf("%s, with %s only: got %+v, %v", what, address, r, err)
			}
		}
		if r, err := n.record(o, both); err == nil {
			t.Errorf("in a network of both families, with %s only: got %+v, want an error", address, r)
		}
		o.podCIDRs = cidrs[1-family : 2-family]
		if r, err := n.record(o, only); err == nil {
			t.Errorf("without a subnet of the family of %s: got %+v, want an error", address, r)
		}
	}
}

// What a node publishes is read back as it was meant.
func TestPublishedLeasesAreReadBack(t *testing.T) {
	n, err := NewNames(annotation.DefaultPrefix)
	if err != nil {
		t.Fatal(err)
	}
	leases := []subnet.Lease{
		{Subnet: netip.MustParsePrefix("10.5.34.0/24"), Attrs: subnet.Attrs{
			PublicIP: netip.MustParseAddr("192.0.2.1"), Underlay: netip.MustParseAddr("10.0.0.7"), BackendType: "udp"}},
		{Subnet: netip.MustParsePrefix("fd00:5::/64"), Attrs: subnet.Attrs{
			PublicIP: netip.MustParseAddr("2001:db8::1"), BackendType: "udp", BackendData: `{"a":1}`}},
	}
	own := &node{name: "a", uid: "u", podCIDRs: []string{"10.5.34.0/24", "fd00:5::/64"}, annotations: map[string]string{}}
	for name, text := range n.wanted(leases) {
		if text != "" {
			own.annotations[name] = text
		}
	}
	r, err := n.record(own, both)
	if err != nil {
		t.Fatal(err)
	}
	for i, l := range leases {
		if r.Leases[i] != l {
			t.Errorf("got %+v, want %+v", r.Leases[i], l)
		}
	}
	if d := differing(own.annotations, n.wanted(leases)); len(d) > 0 {
		t.Errorf("%v differ from what was written", d)
	}
}

func FuzzRecord(f *testing.F) {
	f.Add("10.5.34.0/24", "fd00:5::/64", "vxlan", `{"VNI":1}`, "192.0.2.1", "2001:db8::1")
	f.Add("10.5.34.0/24", "", "", "null", "::ffff:1.2.3.4", "fe80::1%eth0")
	n, err := NewNames(annotation.DefaultPrefix)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, cidr4, cidr6, kind, data, ip4, ip6 string) {
		r, err := n.record(&node{name: "a", podCIDRs: []string{cidr4, cidr6}, annotations: map[string]string{
			n.Managed: "true", n.BackendType: kind, n.BackendData[0]: data, n.PublicIP[0]: ip4, n.PublicIP[1]: ip6,
		}}, both)
		if err != nil {
			return
		}
		for _, l := range r.Leases {
			if l.Subnet != l.Subnet.Masked() || subnet.CheckPublicIP(l.PublicIP, l.Subnet) != nil || l.BackendType == "" {
				t.Errorf("a record that makes no sense is taken for good: %v", l)
			}
		}
	})
}
