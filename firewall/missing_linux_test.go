package firewall_test

import (
	"net/netip"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"flanneld/firewall"
	"flanneld/ip/iptest"
)

func TestWhatIsMissingIsSaid(t *testing.T) {
	for _, tt := range []struct {
		name     string
		nft      string // to make tables of others
		programs firewall.Programs
		lacking  bool
		want     string // part of the only problem; empty: none
	}{
		{name: "nothing drops, and no program is needed",
			nft: "add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; policy accept; }"},
		{
			name: "the policy drops, and iptables is not there",
			nft:  "add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }",
			want: "iptables (nf_tables) table filter drops forwarded packets, and its program is not installed",
		},
		{
			name: "docker is there, and the only iptables is the other kind",
			nft: "add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; }; add chain " +
				"ip filter DOCKER-USER",
			programs: firewall.Programs{Print: map[string]string{"iptables -V": "iptables v1.8.9 (legacy)"}},
			want:     "iptables (nf_tables) table filter drops forwarded packets, and its program is not installed",
		},
		{
			name: "legacy tables in use without their program", programs: firewall.Programs{Legacy: []string{"filter"}},
			want: "iptables (legacy) table filter is in use, and its program is not installed",
		},
		{
			name: "a program that fails", programs: firewall.Programs{Legacy: []string{"filter"},
				Print: map[string]string{"iptables-legacy -V": ""}},
			want: "read iptables (legacy) table filter: exit status 1",
		},
		{
			name: "a table of somebody that drops by policy",
			nft:  "add table inet mine; add chain inet mine passing { type filter hook forward priority 5; policy drop; }",
			want: "chain passing of table inet mine drops what none of its rules accepts: packets from and to 10.5.0.0/16 " +
				"must be accepted there",
		},
		{name: "one that drops in another hook",
			nft: "add table inet mine; add chain inet mine in { type filter hook input priority 5; policy drop; }"},
		{name: "no nftables and no iptables either", lacking: true,
			want: "nothing masquerades: nftables cannot be used, and there is no program for iptables (legacy) table nat"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			iptest.Namespace(t)
			if tt.nft != "" {
				shell(t, "nft '"+tt.nft+"'")
			}
			f := firewall.NewWith(quiet(t), &tt.programs, tt.lacking)
			if err := f.Set(firewall.Rules{Networks: []netip.Prefix{net4}, Masquerade: true, Forward: true}); err != nil {
				t.Fatal(err)
			}
			firewall.Heal(f)
			got := f.Status().Problems
			if tt.want == "" && len(got) > 0 || tt.want != "" && (len(got) != 1 || !strings.Contains(got[0], tt.want)) {
				t.Errorf("problems %q, want %q", got, tt.want)
			}
		})
	}
}

func TestAKernelThatHasEverythingLacksNothing(t *testing.T) {
	iptest.Namespace(t)
	if err := firewall.Diagnose(); err != nil {
		t.Error(err)
	}
	if left := shell(t, "nft list tables"); left != "" {
		t.Errorf("the probe has left %s", left)
	}
}

func TestAProcessWithoutTheRightIsToldWhichOne(t *testing.T) {
	iptest.Namespace(t)
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData
		if err := unix.Capset(&header, &none[0]); err != nil {
			t.Error(err)
		}
		done <- firewall.Diagnose()
	}()
	if err := <-done; err == nil || !strings.Contains(err.Error(), "CAP_NET_ADMIN") {
		t.Errorf("got %v, want the name of the capability", err)
	}
}
