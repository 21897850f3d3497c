package status

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"flanneld/api"
	"flanneld/firewall"
	"flanneld/ip"
	"flanneld/probe"
	"flanneld/subnet"
	"flanneld/systemd"
)

func TestTheThreeStatesAreToldApart(t *testing.T) {
	since := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, tt := range []struct {
		name    string
		c       condition
		state   string
		reasons []string
	}{
		{"before the first pass it says what it waits for", condition{waiting: "waiting for a subnet"}, api.StateNotReady,
			[]string{"waiting for a subnet"}},
		{"a better reason is preferred", condition{waiting: "waiting", pass: "no device"}, api.StateNotReady,
			[]string{"no device"}},
		{"all is well", condition{ready: true}, api.StateReady, []string{}},
		{"the store is away", condition{ready: true, lease: subnet.Status{StoreSince: since, StoreError: "refused"}},
			api.StateDegraded,
			[]string{"store unreachable since 2026-01-02T03:04:05Z: refused"}},
		{"the error of the store is said once", condition{ready: true, lease: subnet.Status{
			Waiting: "lease not confirmed in the store: refused", StoreSince: since, StoreError: "refused"}},
			api.StateDegraded,
			[]string{"lease not confirmed in the store", "store unreachable since 2026-01-02T03:04:05Z: refused"}},
		{"the embedded etcd does not run", condition{ready: true, embedded: "move its data away"}, api.StateDegraded,
			[]string{"move its data away"}},
		{"the lease is not in the store", condition{ready: true, lease: subnet.Status{Waiting: "another host has it"}},
			api.StateDegraded, []string{"another host has it"}},
		{"the store was wiped", condition{ready: true, kept: 3}, api.StateDegraded,
			[]string{"the store has lost the records of 3 peers: packets are still sent to them for -peer-grace"}},
		{"a file cannot be written", condition{ready: true, files: map[string]string{"the subnet file": "no space"}},
			api.StateDegraded,
			[]string{"the subnet file not written: no space"}},
		{"the firewall stands in the way", condition{ready: true, firewall: []string{"ip_forward is 0"}}, api.StateDegraded,
			[]string{"ip_forward is 0"}},
		{"somebody keeps changing routes", condition{ready: true, changed: map[string]time.Time{"route": since}},
			api.StateDegraded,
			[]string{"another program on this host keeps changing routes of the network, last at 2026-01-02T03:04:05Z"}},
		{"another flannel has the same device", condition{ready: true, rival: "flanneld (pid 7)"}, api.StateDegraded,
			[]string{"another flannel on this host, flanneld (pid 7), uses the devices and routes of this network: stop it, " +
				"or give one of the two networks another device (vxlan: another VNI)"}},
		{"a peer does not answer", condition{ready: true, peers: []string{"peer a does not answer"}}, api.StateDegraded,
			[]string{"peer a does not answer"}},
		{"not ready although only a peer is to blame", condition{peers: []string{"peer a"}}, api.StateNotReady,
			[]string{"peer a"}},
	} {
		state, reasons := tt.c.judge()
		if diff := cmp.Diff([]any{tt.state, tt.reasons}, []any{state, reasons}); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

func TestOnlySomePeersWithAProblemAreNamed(t *testing.T) {
	c := condition{ready: true}
	for i := range 25 {
		c.peers = append(c.peers, fmt.Sprintf("peer %d", i))
	}
	if _, reasons := c.judge(); len(reasons) != mostNamed+1 || reasons[mostNamed] != "15 more peers with a problem" {
		t.Errorf("got %q", reasons)
	}
}

func TestProblemsOfPeersAreNamed(t *testing.T) {
	prefix := func(i int) netip.Prefix { return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 5, byte(i), 0}), 24) }
	var leases []subnet.Lease
	for i := range 8 {
		leases = append(leases, subnet.Lease{Subnet: prefix(i),
			Attrs: subnet.Attrs{PublicIP: netip.AddrFrom4([4]byte{192, 0, 2, byte(i)})}})
	}
	skipped := map[netip.Prefix]string{prefix(1): "its route is another's"}
	failing := failing{single: map[netip.Prefix]string{prefix(2): "route 10.5.2.0/24: file exists"}}
	findings := map[netip.Prefix]probe.Finding{
		prefix(0): {Result: probe.Result{Sent: 3, PathMTU: 1450}},
		prefix(3): {Result: probe.Result{Sent: 3, Lost: 3}, Bad: 2},
		prefix(4): {Result: probe.Result{Sent: 3, Lost: 3}, OneWay: true, Bad: 2},
		prefix(5): {Result: probe.Result{Sent: 3, PathMTU: 1400}, Bad: 2},
		prefix(6): {Result: probe.Result{Sent: 3, Refused: 3}},
		prefix(7): {Result: probe.Result{Sent: 3, Lost: 3}, Bad: 1}, // a peer that is starting
	}
	got := peerProblems(subnet.PeersOf(leases...), skipped, failing, findings, 1450)
	want := []string{
		"peer 10.5.1.0/24 (192.0.2.1) skipped: its route is another's",
		"peer 10.5.2.0/24 (192.0.2.2) not installed in the kernel: route 10.5.2.0/24: file exists",
		"peer 10.5.3.0/24 (192.0.2.3) does not answer: 3 of 3 probes lost",
		"peer 10.5.4.0/24 (192.0.2.4) is reached in one direction only: its packets arrive here, ours do not arrive there",
		"peer 10.5.5.0/24 (192.0.2.5) loses packets of more than 1400 bytes",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("problems (-want +got):\n%s", diff)
	}
}

func TestAPeerIsNamedByItsHost(t *testing.T) {
	l := subnet.Lease{Subnet: netip.MustParsePrefix("10.5.1.0/24"),
		Attrs: subnet.Attrs{PublicIP: netip.MustParseAddr("192.0.2.1")}}
	if got, want := peerName(l, subnet.Record{Host: "node-1"}), "node-1 (10.5.1.0/24, 192.0.2.1)"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestDriftThatIsRepairedAgainAndAgainIsNoticed(t *testing.T) {
	var r recurring
	now := time.Now()
	n := uint64(0)
	repair := func(after time.Duration) {
		n, now = n+1, now.Add(after)
		r.note(map[string]uint64{"route": n, "link": 1}, now)
	}
	for range 5 {
		repair(10 * time.Second)
	}
	if got := r.kinds(now); len(got) != 0 {
		t.Errorf("one burst counts: %v", got)
	}
	repair(2 * time.Minute)
	repair(2 * time.Minute)
	if got := r.kinds(now); len(got) != 1 || got["route"] != now {
		t.Errorf("got %v, want the routes", got)
	}
	if got := r.kinds(now.Add(time.Hour)); len(got) != 0 {
		t.Errorf("an hour later: %v", got)
	}
}

// quietBackend is a backend that says nothing.
type quietBackend struct{ Backend }

func (quietBackend) MTU() int                         { return 1450 }
func (quietBackend) PathMTU() int                     { return 1450 }
func (quietBackend) Scope() ip.Scope                  { return ip.Scope{} }
func (quietBackend) Drift() [ip.Kinds]int             { return [ip.Kinds]int{} }
func (quietBackend) Rival() string                    { return "" }
func (quietBackend) Skipped() map[netip.Prefix]string { return nil }
func (quietBackend) Problems() []string               { return nil }

func TestChangesOfTheStateAreLogged(t *testing.T) {
	j := NewJournal(slog.DiscardHandler)
	s := New(Options{
		Notifier: systemd.NewNotifier(slog.New(slog.DiscardHandler)), Journal: j, Log: slog.New(&captured{j}),
		Firewall: func() firewall.PolicyStatus { return firewall.PolicyStatus{} }, Passed: func(time.Duration, error) {},
	})
	s.Join(Sources{Backend: quietBackend{}})
	v := subnet.View{Self: []subnet.Lease{{Subnet: netip.MustParsePrefix("10.5.1.0/24")}},
		Own: subnet.Record{Leases: []subnet.Lease{{Subnet: netip.MustParsePrefix("10.5.1.0/24")}}}}
	s.Waiting("waiting for a subnet")
	s.Pass(v, ip.Underlay{}, nil, true)
	s.Pass(v, ip.Underlay{}, nil, true)
	s.File("the subnet file", context.DeadlineExceeded)
	s.Pass(v, ip.Underlay{}, nil, true)
	if got := s.Report(); got.State != api.StateDegraded || !got.Ready || s.Ready() != nil {
		t.Errorf("state %q, ready %v: %v", got.State, got.Ready, s.Ready())
	}
	s.File("the subnet file", nil)
	s.Pass(v, ip.Underlay{}, nil, true)
	var got []string
	for _, e := range j.Events() {
		got = append(got, e.Level+" "+e.Message)
	}
	want := []string{"INFO ready, bootstrap done", "WARN degraded: packets flow, but there is a fault",
		"INFO ready again, all faults are gone"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("log (-want +got):\n%s", diff)
	}
	if l := line(s.Report()); !strings.HasPrefix(l, "ready: 10.5.1.0/24, ") {
		t.Errorf("status line %q", l)
	}
}

// captured keeps all lines.
type captured struct{ *Journal }

func (captured) Enabled(context.Context, slog.Level) bool { return true }
