package ip_test

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"flanneld/ip"
	"flanneld/ip/iptest"
)

var sizes = []int{100, 1_000, 10_000}

func BenchmarkDiff(b *testing.B) {
	for _, n := range sizes {
		growing := desired(cluster(n - 1))
		fewer := growing.Snapshot()
		for _, o := range lastOf(cluster(n)) {
			growing.Put(o)
		}
		full := growing.Snapshot()
		for _, bb := range []struct {
			name       string
			have, want ip.Snapshot
		}{
			{"everything to do", ip.Snapshot{}, full},
			{"one new peer", fewer, full},
			{"nothing to do", full, full},
			{"two lists of the same", full, desired(cluster(n)).Snapshot()},
		} {
			b.Run(fmt.Sprintf("%s/%d", bb.name, n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					ip.Diff(bb.have, bb.want)
				}
			})
		}
	}
}

// lastOf returns what a state has of its last peer.
func lastOf(s ip.State) []ip.Object {
	i := len(s.Routes) - 1
	return []ip.Object{s.FDB[i], s.Neighs[i], s.Routes[i]}
}

// BenchmarkProgram is the first pass of a host: device, address, and all that belongs to its peers.
func BenchmarkProgram(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			iptest.Namespace(b)
			iptest.Underlay(b, "eth0", "192.0.2.1/24")
			k := kernel(b)
			b.ReportAllocs()
			objects := 0
			for b.Loop() {
				b.StopTimer()
				want := cluster(n)
				r := ip.NewReconciler(k, slog.New(slog.DiscardHandler))
				b.StartTimer()
				res, err := r.Reconcile(scope, desired(want).Snapshot())
				if err != nil {
					b.Fatal(err)
				}
				objects = res.Put
				b.StopTimer()
				if err := k.Apply([]ip.Op{{Delete: true, Object: want.Links[0]}}); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*objects), "ns/object")
		})
	}
}

func BenchmarkDump(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			iptest.Namespace(b)
			iptest.Underlay(b, "eth0", "192.0.2.1/24")
			k := kernel(b)
			apply(b, k, cluster(n))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := k.Dump(scope); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkCodec reads the neighbours and routes of ten thousand peers by our own decoders, and by the library's: why
// there are our own.
func BenchmarkCodec(b *testing.B) {
	iptest.Namespace(b)
	iptest.Underlay(b, "eth0", "192.0.2.1/24")
	k := kernel(b)
	apply(b, k, cluster(10_000))
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		b.Fatal(err)
	}
	defer h.Close()
	link, err := h.LinkByName("flannel.1")
	if err != nil {
		b.Fatal(err)
	}
	b.Run("ours", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := k.Dump(scope); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("library", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, fdb := h.NeighList(link.Attrs().Index, unix.AF_BRIDGE)
			_, neighbours := h.NeighList(link.Attrs().Index, unix.AF_INET)
			_, routes := h.RouteListFiltered(unix.AF_INET, &netlink.Route{Protocol: ip.Protocol}, netlink.RT_FILTER_PROTOCOL)
			if err := errors.Join(fdb, neighbours, routes); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkReconcile is one pass: from memory, and with everything read anew.
func BenchmarkReconcile(b *testing.B) {
	for _, n := range sizes {
		for _, dump := range []bool{false, true} {
			b.Run(fmt.Sprintf("dump=%t/%d", dump, n), func(b *testing.B) {
				iptest.Namespace(b)
				iptest.Underlay(b, "eth0", "192.0.2.1/24")
				r := ip.NewReconciler(kernel(b), slog.New(slog.DiscardHandler))
				want := desired(cluster(n)).Snapshot()
				for b.Loop() {
					if dump {
						r.Observe(ip.Event{})
					}
					if _, err := r.Reconcile(scope, want); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// TestTenThousandPeersAreProgrammedFast guards the promise with a wide margin: it is a tenth of a second, and would be
// one and a half without the scopes that are spread. Only the time of this thread counts, for the machine may be
// loaded.
func TestTenThousandPeersAreProgrammedFast(t *testing.T) {
	iptest.Namespace(t)
	iptest.Underlay(t, "eth0", "192.0.2.1/24")
	r := ip.NewReconciler(kernel(t), slog.New(slog.DiscardHandler))
	want := desired(cluster(10_000)).Snapshot()
	start := threadTime(t)
	res, err := r.Reconcile(scope, want)
	if err != nil {
		t.Fatal(err)
	}
	took := threadTime(t) - start
	t.Logf("%d objects in %s", res.Put, took.Round(time.Millisecond))
	if took > iptest.Time(time.Second) {
		t.Errorf("%d objects took %s", res.Put, took)
	}
	// What the scopes do not change: the way of a packet, and its source.
	if got := iptest.Run(t, "ip route get 10.39.16.7"); !strings.Contains(got,
		"via 10.39.16.0 dev flannel.1 src 10.0.0.0") {
		t.Errorf("the way to a peer: %s", got)
	}
	r.Observe(ip.Event{})
	if res, err := r.Reconcile(scope, desired(cluster(10_000)).Snapshot()); err != nil ||
		res != (ip.Result{Dumped: true}) {
		t.Errorf("the same again: %+v %v", res, err)
	}
	// And back below the number from which on they are spread.
	if res, err := r.Reconcile(scope, desired(cluster(10)).Snapshot()); err != nil ||
		res != (ip.Result{Put: 10, Deleted: 3 * 9_990}) {
		t.Errorf("ten peers: %+v %v", res, err)
	}
	wantState(t, kernel(t), cluster(10))
}

// threadTime returns the time that this thread has had of a processor, in the kernel too.
func threadTime(t *testing.T) time.Duration {
	t.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
