package firewall_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"flanneld/firewall"
	"flanneld/ip/iptest"
	"flanneld/need"
)

// likeFirewalld is what counts of firewalld's table.
const likeFirewalld = `nft 'add table inet firewalld; flush table inet firewalld
add chain inet firewalld filter_FORWARD { type filter hook forward priority filter + 10; policy accept; }
add rule inet firewalld filter_FORWARD ct state established accept
add rule inet firewalld filter_FORWARD reject with icmpx admin-prohibited'`

func TestForwardingIsAcceptedInFirewalldsTable(t *testing.T) {
	iptest.Namespace(t)
	need.Program(t, "nft")
	forwarding(t)
	f := firewall.New("", quiet(t))
	r := firewall.Rules{Networks: []netip.Prefix{net4, net6}, Forward: true}
	if err := f.Set(r); err != nil {
		t.Fatal(err)
	}
	running(t, f, time.Hour)
	want := `ip6 saddr fd00:5::/48 accept comment "flannel"
ip6 daddr fd00:5::/48 accept comment "flannel"
`
	stands := func() bool {
		got := strings.ReplaceAll(shell(t, "nft list chain inet firewalld filter_FORWARD"), "\t", "")
		return strings.Contains(got, "ip saddr 10.5.0.0/16 accept comment \"flannel\"\n"+
			"ip daddr 10.5.0.0/16 accept comment \"flannel\"\n"+want+"ct state established accept\n") &&
			strings.Count(got, "flannel") == 4
	}
	shell(t, likeFirewalld)
	need.Until(t, "firewalld has come", patience, stands)
	shell(t, likeFirewalld)
	need.Until(t, "firewalld has written its table anew", patience, stands)
	shell(t, "nft insert rule inet firewalld filter_FORWARD counter")
	need.Until(t, "somebody has come before us", patience, func() bool {
		return strings.Contains(shell(t, "nft list chain inet firewalld filter_FORWARD"),
			"policy accept;\n\t\tip saddr 10.5.0.0/16 accept")
	})
	if f.Status().Drift == 0 {
		t.Error("the repairs were not counted")
	}
	r.Forward = false
	if err := f.Set(r); err != nil {
		t.Fatal(err)
	}
	need.Until(t, "the rules are gone", patience, func() bool {
		return !strings.Contains(shell(t, "nft list chain inet firewalld filter_FORWARD"), "flannel")
	})
}
