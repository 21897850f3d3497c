package firewall_test

import (
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"flanneld/firewall"
	"flanneld/ip/iptest"
	"flanneld/need"
)

// kinds are both implementations of iptables.
var kinds = []string{"nft", "legacy"}

// forwarding lets the namespace forward packets.
func forwarding(t testing.TB) {
	t.Helper()
	shell(t, "echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding")
}

func TestAKernelThatForwardsNothingIsAProblem(t *testing.T) {
	iptest.Namespace(t)
	shell(t, "echo 0 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding")
	f := firewall.New("", quiet(t))
	if err := f.Set(cases["everything"]); err != nil {
		t.Fatal(err)
	}
	firewall.Heal(f)
	want := []string{"net.ipv4.ip_forward is 0, so this host does not forward packets between pods and the network: " +
		"sysctl " +
		"-w net.ipv4.ip_forward=1, or start with -ip-forward"}
	if diff := cmp.Diff(want, f.Status().Problems); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	running(t, f, 20*time.Millisecond)
	forwarding(t)
	need.Until(t, "the problem is gone", 5*time.Second, func() bool { return len(f.Status().Problems) == 0 })
}

// listed returns a table of one kind of iptables as the program prints it.
func listed(t testing.TB, kind, family, table string) string {
	t.Helper()
	return shell(t, fmt.Sprintf("%s-%s -w -t %s -S", family, kind, table))
}

func TestForwardingIsAcceptedAndHealedInTheHostsOwnTables(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			iptest.Namespace(t)
			need.Program(t, "iptables-"+kind, "ip6tables-"+kind)
			forwarding(t)
			f := firewall.New("", quiet(t))
			if err := f.Set(firewall.Rules{Networks: []netip.Prefix{net4, net6}, Forward: true}); err != nil {
				t.Fatal(err)
			}
			resync, within := time.Hour, patience
			if kind == "legacy" {
				resync = 100 * time.Millisecond // nobody tells
			}
			running(t, f, resync)
			for _, family := range []string{"iptables", "ip6tables"} {
				program := family + "-" + kind
				home := func(chain string) func() bool {
					return func() bool {
						out, _ := exec.Command(program, "-w", "-S").Output()
						return strings.Count(string(out), "-A "+chain+" -j FLANNELD-FORWARD\n") == 1 &&
							strings.Count(string(out), "-j FLANNELD-FORWARD\n") == 1 &&
							strings.Count(string(out), "-A FLANNELD-FORWARD ") == 2
					}
				}
				shell(t, program+" -w -P FORWARD DROP")
				need.Until(t, family+": accepted in FORWARD", within, home("FORWARD"))
				shell(t, program+" -w -F")
				need.Until(t, family+": back after a flush", within, home("FORWARD"))
				shell(t, fmt.Sprintf("%[1]s -w -N DOCKER-USER && %[1]s -w -A DOCKER-USER -j RETURN && %[1]s -w -I FORWARD -j "+
					"DOCKER-USER", program))
				need.Until(t, family+": moved to docker's chain", within, home("DOCKER-USER"))
				shell(t, program+" -w -F DOCKER-USER")
				need.Until(t, family+": back in docker's chain", within, home("DOCKER-USER"))
				shell(t, fmt.Sprintf("printf '*filter\\n:INPUT ACCEPT\\n:FORWARD DROP\\n:OUTPUT ACCEPT\\nCOMMIT\\n' | "+
					"%s-restore -w", program))
				need.Until(t, family+": back after "+program+"-restore", within, home("FORWARD"))
			}
			if f.Status().Drift == 0 {
				t.Error("the repairs were not counted")
			}
			if p := f.Status().Problems; len(p) > 0 {
				t.Errorf("problems: %q", p)
			}
		})
	}
}

func TestAHostAtRestRunsNoPrograms(t *testing.T) {
	iptest.Namespace(t)
	need.Program(t, "iptables-nft")
	shell(t, "iptables-nft -P FORWARD DROP")
	f := firewall.New("", quiet(t))
	runs := firewall.Count(f)
	if err := f.Set(cases["everything"]); err != nil {
		t.Fatal(err)
	}
	running(t, f, 20*time.Millisecond)
	need.Until(t, "the accept rules stand", patience, func() bool {
		return strings.Contains(listed(t, "nft", "iptables", "filter"), "-A FORWARD -j FLANNELD-FORWARD")
	})
	before := int64(-1)
	for n := runs.Load(); n != before; n = runs.Load() { // what was written is looked at once more
		before = n
		time.Sleep(time.Second)
	}
	if before > 10 {
		t.Errorf("%d programs were run until the host was at rest", before)
	}
}

func TestTablesThatNobodyUsesAreNotMade(t *testing.T) {
	iptest.Namespace(t)
	f := firewall.New("", quiet(t))
	if err := f.Set(cases["everything"]); err != nil {
		t.Fatal(err)
	}
	firewall.Heal(f)
	tables := "nft list tables; cd /proc/thread-self/net; cat ip_tables_names ip6_tables_names"
	if got := shell(t, tables); got != "table inet flannel\n" {
		t.Errorf("got tables %q, want ours alone", got)
	}
}

func TestWhatFlannelHasLeftIsRemoved(t *testing.T) {
	iptest.Namespace(t)
	for _, kind := range kinds {
		need.Program(t, "iptables-"+kind, "ip6tables-"+kind)
		for family, network := range map[string]string{"iptables": "10.5.0.0/16", "ip6tables": "fd00:5::/48"} {
			p := family + "-" + kind + " -w "
			shell(t, p+"-t nat -N FLANNEL-POSTRTG && "+p+
				"-t nat -A POSTROUTING -m comment --comment 'flanneld masq' -j FLANNEL-POSTRTG && "+
				p+"-t nat -A FLANNEL-POSTRTG -s "+network+" -m comment --comment 'flanneld masq' -j MASQUERADE --random-fully && "+
				p+"-t nat -A POSTROUTING -s "+network+" -m comment --comment 'flanneld masq' -j MASQUERADE && "+
				p+"-t nat -A POSTROUTING -s "+network+" -m comment --comment 'of the host' -j RETURN && "+
				p+"-N FLANNEL-FWD && "+p+"-A FORWARD -m comment --comment 'flanneld forward' -j FLANNEL-FWD && "+p+
				"-A FLANNEL-FWD -s "+network+" -j ACCEPT && "+
				p+"-A FORWARD -j REJECT")
		}
	}
	shell(t, "nft 'add table ip flannel-ipv4; add chain ip flannel-ipv4 postrtg { type nat hook postrouting priority "+
		"srcnat; }; add table ip6 flannel-ipv6; add chain ip6 flannel-ipv6 c'")
	f := firewall.New("", quiet(t))
	if err := f.Set(firewall.Rules{Networks: []netip.Prefix{net4, net6}, Masquerade: true, Forward: true}); err != nil {
		t.Fatal(err)
	}
	firewall.Heal(f)
	for _, kind := range kinds {
		for _, family := range []string{"iptables", "ip6tables"} {
			nat, filter := listed(t, kind, family, "nat"), listed(t, kind, family, "filter")
			if strings.Contains(nat+filter, "flanneld masq") || strings.Contains(nat+filter, "FLANNEL-") {
				t.Errorf("%s-%s: flannel's rules are left:\n%s%s", family, kind, nat, filter)
			}
			if !strings.Contains(nat, "of the host") ||
				!strings.Contains(filter, "-A FORWARD -j FLANNELD-FORWARD\n-A FORWARD -j REJECT") {
				t.Errorf("%s-%s: want the host's own rules left, and our jump before the reject:\n%s%s", family, kind, nat, filter)
			}
		}
	}
	if tables := shell(t, "nft list tables"); strings.Contains(tables, "flannel-ipv") {
		t.Errorf("tables of flannel are left:\n%s", tables)
	}
}

func TestWithoutForwardRulesOursGo(t *testing.T) {
	iptest.Namespace(t)
	need.Program(t, "iptables-nft")
	shell(t, "iptables-nft -P FORWARD DROP")
	r := firewall.Rules{Networks: []netip.Prefix{net4}, Forward: true}
	f := firewall.New("", quiet(t))
	for _, on := range []bool{true, false} {
		r.Forward = on
		if err := f.Set(r); err != nil {
			t.Fatal(err)
		}
		firewall.Heal(f)
		if got := strings.Contains(listed(t, "nft", "iptables", "filter"), "FLANNELD-FORWARD"); got != on {
			t.Errorf("forward rules wanted %t, there %t", on, got)
		}
	}
}

func TestIPTablesMasqueradesWhereNFTablesCannot(t *testing.T) {
	iptest.Namespace(t)
	need.Program(t, "iptables-legacy", "ip6tables-legacy")
	f := firewall.NewLacking(quiet(t))
	r := cases["everything"]
	if err := f.Set(r); err == nil || !strings.Contains(err.Error(), "accepts packets from any host") {
		t.Errorf("got error %v, want one that says that the tunnel port is open", err)
	}
	firewall.Heal(f)
	firewall.Heal(f)
	want4 := `-A POSTROUTING -j FLANNELD-POSTRTG
-A FLANNELD-POSTRTG -m mark --mark 0x4000/0x4000 -j RETURN
-A FLANNELD-POSTRTG -s 10.5.0.0/16 -d 10.5.0.0/16 -j RETURN
-A FLANNELD-POSTRTG -d 10.5.34.0/24 -j RETURN
-A FLANNELD-POSTRTG -d 10.5.0.0/16 -j MASQUERADE --random-fully
-A FLANNELD-POSTRTG -d 224.0.0.0/4 -j RETURN
-A FLANNELD-POSTRTG -s 10.5.0.0/16 -j MASQUERADE --random-fully
`
	if got := listed(t, "legacy", "iptables", "nat"); !strings.HasSuffix(got, want4) {
		t.Errorf("got\n%swant at its end\n%s", got, want4)
	}
	if drift := f.Status().Drift; drift != 0 {
		t.Errorf("a second pass counted %d changes by others", drift)
	}
	firewall.Recover(f)
	if err := f.Set(r); err != nil {
		t.Fatal(err)
	}
	firewall.Heal(f)
	if got := listed(t, "legacy", "iptables", "nat"); strings.Contains(got, "FLANNELD") {
		t.Errorf("both masquerade:\n%s", got)
	}
}

func TestTwoNetworksOfAHostLeaveEachOtherAlone(t *testing.T) {
	iptest.Namespace(t)
	need.Program(t, "iptables-nft")
	shell(t, "iptables-nft -P FORWARD DROP")
	first, second := firewall.New("", quiet(t)), firewall.New("/another/network", quiet(t))
	other := netip.MustParsePrefix("10.7.0.0/16")
	if err := first.Set(firewall.Rules{Networks: []netip.Prefix{net4}, Masquerade: true, Forward: true}); err != nil {
		t.Fatal(err)
	}
	if err := second.Set(firewall.Rules{Networks: []netip.Prefix{other}, Masquerade: true, Forward: true}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		firewall.Heal(first)
		firewall.Heal(second)
	}
	tables, filter := shell(t, "nft list tables inet"), listed(t, "nft", "iptables", "filter")
	if strings.Count(tables, "table inet flannel") != 2 {
		t.Errorf("tables %q, want one for each network", tables)
	}
	if strings.Count(filter, "-A FORWARD -j FLANNELD-FORWARD") != 2 ||
		!strings.Contains(filter, "-s 10.5.0.0/16 -j ACCEPT") || !strings.Contains(filter, "-s 10.7.0.0/16 -j ACCEPT") {
		t.Errorf("got\n%swant both networks accepted", filter)
	}
	if n := first.Status().Drift + second.Status().Drift; n != 0 {
		t.Errorf("each repaired %d changes of the other", n)
	}
	removed, err := firewall.Remove(t.Context(), "/another/network", false)
	if err != nil || len(removed) == 0 {
		t.Errorf("removed %q, %v", removed, err)
	}
	if diff := cmp.Diff("table inet flannel\n", shell(t, "nft list tables inet")); diff != "" {
		t.Errorf("after the second network was removed (-want +got):\n%s", diff)
	}
	if filter := listed(t, "nft", "iptables", "filter"); strings.Contains(filter, "10.7.0.0") ||
		!strings.Contains(filter, "10.5.0.0") {
		t.Errorf("after the second network was removed:\n%s", filter)
	}
}
