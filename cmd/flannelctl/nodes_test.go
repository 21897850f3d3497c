package main_test

import (
	"errors"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	main "flanneld/cmd/flannelctl"
	"flanneld/subnet"
)

func TestRecordsBecomeCommandsForNodes(t *testing.T) {
	lease := func(p, public, data string) subnet.Lease {
		return subnet.Lease{Subnet: netip.MustParsePrefix(p),
			Attrs: subnet.Attrs{PublicIP: netip.MustParseAddr(public), BackendType: "vxlan", BackendData: data}}
	}
	dual := subnet.Record{Host: "a'; reboot; '",
		Leases: []subnet.Lease{lease("10.5.1.0/24", "192.0.2.1", `{"VNI":1}`),
			lease("fd00:5::/64", "2001:db8::1", `{"VNI":2}`)}}
	dual.Leases[0].Underlay = netip.MustParseAddr("10.0.0.1")
	nameless := subnet.Record{Leases: []subnet.Lease{{Subnet: netip.MustParsePrefix("10.5.2.0/24"), Attrs: subnet.Attrs{
		PublicIP: netip.MustParseAddr("192.0.2.2"), BackendType: "host-gw"}}}}
	reserved := subnet.Record{Leases: []subnet.Lease{lease("10.5.3.0/24", "192.0.2.3", "")}}
	text := main.NodeCommands(subnet.Snapshot{
		Entries: []*subnet.Entry{{Record: dual, LeaseID: 1}, {Record: nameless, LeaseID: 1}, {Record: reserved}},
		Bad:     []subnet.BadRecord{{Key: "x\nreboot", Err: errors.New("no\nJSON")}},
	}, "example.com/net")
	// What a shell makes of it.
	out, err := exec.Command("sh", "-euc", "kubectl() { printf '<%s>' \"$@\"; echo; }\nreboot() { exit 9; }\n"+
		text).Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	want := []string{
		`<patch><node><a'; reboot; '><--patch={"metadata":{"annotations":{"example.com/net-backend-data":"{\"VNI\":1}",` +
			`"example.com/net-backend-type":"vxlan","example.com/net-backend-v6-data":"{\"VNI\":2}","example.com/net-kube-subnet-manager":"true",` +
			`"example.com/net-public-ip":"192.0.2.1","example.com/net-public-ipv6":"2001:db8::1","example.com/net-underlay-ip":"10.0.0.1"}},` +
			`"spec":{"podCIDR":"10.5.1.0/24","podCIDRs":["10.5.1.0/24","fd00:5::/64"]}}>`,
		`<patch><node><NAME><--patch={"metadata":{"annotations":{"example.com/net-backend-data":"null","example.com/net-backend-type":"host-gw",` +
			`"example.com/net-kube-subnet-manager":"true","example.com/net-public-ip":"192.0.2.2"}},"spec":{"podCIDR":"10.5.2.0/24","podCIDRs":["10.5.2.0/24"]}}>`,
	}
	if got := strings.TrimSpace(string(out)); got != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", got, strings.Join(want, "\n"))
	}
	for _, note := range []string{"10.5.3.0/24 is a reservation", "192.0.2.2 publishes no name",
		`"x\nreboot" is not valid`} {
		if !strings.Contains(text, "# ") || !strings.Contains(text, note) {
			t.Errorf("no comment says %q:\n%s", note, text)
		}
	}
}
