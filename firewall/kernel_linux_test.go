package firewall_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"flanneld/firewall"
	"flanneld/ip/iptest"
	"flanneld/need"
)

// running starts the firewall's goroutines in the namespace of the test, on threads of their own, and ends them with
// it.
func running(t testing.TB, f *firewall.Firewall, resync time.Duration) {
	t.Helper()
	ns, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	for _, run := range []func() error{
		func() error { return f.Run(ctx, resync) },
		func() error { return f.Watch(ctx) },
	} {
		go func() {
			runtime.LockOSThread()
			err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
			if err == nil {
				err = run()
			}
			ended <- err
		}()
	}
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-ended, <-ended); err != nil {
			t.Error(err)
		}
		_ = ns.Close()
	})
}

// patience is how long a condition is waited for that is usually true within a second: other programs may keep the
// machine busy.
const patience = 10 * time.Second

// shell runs a command line in the namespace of the test.
func shell(t testing.TB, line string) string {
	t.Helper()
	out, err := exec.Command("sh", "-c", line).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", line, err, out)
	}
	return string(out)
}

// listing returns our table as nft prints it, with counters at their start.
func listing(t testing.TB) string {
	t.Helper()
	return shell(t, "nft list table inet flannel | sed 's/ packets [0-9]* bytes [0-9]*//'")
}

func quiet(testing.TB) *slog.Logger { return slog.New(slog.DiscardHandler) }

func TestNFTPrintsWhatWeRender(t *testing.T) {
	iptest.Namespace(t)
	need.Program(t, "nft")
	for name, r := range cases {
		want := r.String()
		f := firewall.New("", quiet(t))
		if err := f.Set(r); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if want == "" {
			if got := shell(t, "nft list tables"); got != "" {
				t.Errorf("%s: a table is left: %s", name, got)
			}
			continue
		}
		if diff := cmp.Diff(want, listing(t)); diff != "" {
			t.Errorf("%s (-rendered +kernel):\n%s", name, diff)
		}
	}
}

func TestAnUnchangedTableIsReadBackAsEqual(t *testing.T) {
	iptest.Namespace(t)
	for name, r := range cases {
		if err := firewall.New("", quiet(t)).Set(r); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		before := shell(t, "nft -a list ruleset")
		next := firewall.New("", quiet(t)) // as after a restart
		if err := next.Set(r); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if diff := cmp.Diff(before, shell(t, "nft -a list ruleset")); diff != "" {
			t.Errorf("%s: a restart writes the table anew (handles differ):\n%s", name, diff)
		}
	}
}

func TestOurTableIsRepairedWithinASecond(t *testing.T) {
	iptest.Namespace(t)
	need.Program(t, "nft")
	shell(t, "nft 'add table inet other; add chain inet other c; add rule inet other c counter'")
	f := firewall.New("", quiet(t))
	if err := f.Set(cases["everything"]); err != nil {
		t.Fatal(err)
	}
	running(t, f, time.Hour)
	whole := listing(t)
	other := shell(t, "nft list table inet other")
	var took []time.Duration
	for _, damage := range []string{
		"delete table inet flannel",
		"flush ruleset",
		"delete element inet flannel peers4 { 192.0.2.2 }",
		"add element inet flannel peers4 { 198.51.100.66 }",
		"flush chain inet flannel postrouting",
		"insert rule inet flannel input accept",
		"add chain inet flannel input { policy drop; }",
		"delete element inet flannel networks4 { 10.5.0.0/16 }; add element inet flannel networks4 { 10.0.0.0/8 }",
		"add table inet flannel { flags dormant; }",
		"add set inet flannel extra { type inet_service; }",
	} {
		before := f.Status().Drift
		shell(t, "nft '"+damage+"'")
		// The list of other tables is touched by "flush ruleset" alone.
		took = append(took, need.Until(t, damage, patience, func() bool {
			out, _ := exec.Command("sh", "-c", "nft list table inet flannel | sed 's/ packets [0-9]* bytes [0-9]*//'").Output()
			return string(out) == whole
		}))
		need.Until(t, damage+": counted", patience, func() bool { return f.Status().Drift > before })
		if damage == "flush ruleset" {
			shell(t, "nft 'add table inet other; add chain inet other c; add rule inet other c counter'")
		}
		if diff := cmp.Diff(other, shell(t, "nft list table inet other")); diff != "" {
			t.Errorf("%s: the table of others has changed:\n%s", damage, diff)
		}
	}
	slices.Sort(took)
	if middle := took[len(took)/2]; middle > time.Second {
		t.Errorf("half of the repairs took more than %s, want less than a second", middle)
	}
}

func TestTheResyncRepairsWhatNoNotificationTold(t *testing.T) {
	iptest.Namespace(t)
	need.Program(t, "nft")
	f := firewall.New("", quiet(t))
	if err := f.Set(cases["everything"]); err != nil {
		t.Fatal(err)
	}
	whole := listing(t)
	firewall.RunWithoutWatch(t, f, 50*time.Millisecond, running)
	shell(t, "nft flush ruleset")
	need.Until(t, "the table is back", 5*time.Second, func() bool {
		out, _ := exec.Command("sh", "-c", "nft list table inet flannel").Output()
		return strings.HasPrefix(string(out), whole[:40])
	})
}

func TestPeersComeAndGoAsElements(t *testing.T) {
	iptest.Namespace(t)
	need.Program(t, "nft")
	f := firewall.New("", quiet(t))
	r := cases["everything"]
	if err := f.Set(r); err != nil {
		t.Fatal(err)
	}
	before := shell(t, "nft -a list chain inet flannel tunnel")
	r.Ingress.Peers = firewall.AddrsOf(netip.MustParseAddr("192.0.2.3"), netip.MustParseAddr("192.0.2.9"))
	if err := f.Set(r); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(r.String(), listing(t)); diff != "" {
		t.Errorf("(-want +kernel):\n%s", diff)
	}
	if diff := cmp.Diff(before, shell(t, "nft -a list chain inet flannel tunnel")); diff != "" {
		t.Errorf("the chain was written anew:\n%s", diff)
	}
}

// peersUpTo returns n addresses.
func peersUpTo(n int) *firewall.AddrSet {
	s := firewall.NewAddrSet()
	for i := range n {
		s.Add(manyPeer(i))
	}
	return s
}

func manyPeer(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{172, 16 + byte(i>>16), byte(i >> 8), byte(i)})
}

// manyPeers returns rules with n peers.
func manyPeers(n int) firewall.Rules {
	r := cases["everything"]
	r.Ingress.Peers = peersUpTo(n).Snapshot()
	return r
}

func BenchmarkPeers(b *testing.B) {
	for _, n := range []int{100, 1000, 10000} {
		b.Run(fmt.Sprintf("first/%d", n), func(b *testing.B) {
			iptest.Namespace(b)
			r := manyPeers(n)
			for b.Loop() {
				shell(b, "nft flush ruleset")
				if err := firewall.New("", quiet(b)).Set(r); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("change/%d", n), func(b *testing.B) {
			iptest.Namespace(b)
			r, f := manyPeers(n), firewall.New("", quiet(b))
			if err := f.Set(r); err != nil {
				b.Fatal(err)
			}
			peers := peersUpTo(n)
			for i := 0; b.Loop(); i++ {
				if i%2 == 0 {
					peers.Remove(manyPeer(0))
				} else {
					peers.Add(manyPeer(0))
				}
				r.Ingress.Peers = peers.Snapshot()
				if err := f.Set(r); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("restart/%d", n), func(b *testing.B) {
			iptest.Namespace(b)
			r := manyPeers(n)
			if err := firewall.New("", quiet(b)).Set(r); err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				if err := firewall.New("", quiet(b)).Set(r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
