package main_test

import (
	"encoding/json"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"flanneld/api"
	flannelctl "flanneld/cmd/flannelctl"
	"flanneld/subnet"
)

// TestARecordOfTheDaemonSaysWhatAMoveNeeds has a dual-stack host that offers a second backend in one family.
func TestARecordOfTheDaemonSaysWhatAMoveNeeds(t *testing.T) {
	v4, v6 := netip.MustParsePrefix("10.5.1.0/24"), netip.MustParsePrefix("fd00:5:0:1::/64")
	a4, a6 := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	r := api.Record{
		Key: "k", Host: "h", Identity: "i", Subnets: []netip.Prefix{v4, v6}, PublicIPs: []netip.Addr{a4, a6},
		Ways: []api.Way{
			{Subnet: v4, Type: "vxlan", Data: json.RawMessage(`{"VNI":1}`)}, {Subnet: v4, Type: "host-gw"},
			{Subnet: v6, Type: "vxlan", Data: json.RawMessage(`{"VNI":1}`)},
		},
	}
	want := subnet.Record{Host: "h", Identity: "i", Leases: []subnet.Lease{
		{Subnet: v4, Attrs: subnet.Attrs{PublicIP: a4, BackendType: "vxlan", BackendData: `{"VNI":1}`,
			Offers: `[{"Type":"host-gw"}]`}},
		{Subnet: v6, Attrs: subnet.Attrs{PublicIP: a6, BackendType: "vxlan", BackendData: `{"VNI":1}`}},
	}}
	e := flannelctl.EntryOf(r)
	if diff := cmp.Diff(e.Record, want, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
		cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("(-got +want):\n%s", diff)
	}
	if e.LeaseID == 0 {
		t.Error("a lease counts as a reservation")
	}
	r.Reservation = true
	if flannelctl.EntryOf(r).LeaseID != 0 {
		t.Error("a reservation counts as a lease")
	}
}
