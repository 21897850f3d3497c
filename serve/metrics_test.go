package serve_test

import (
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"flanneld/api"
	"flanneld/serve"
	"flanneld/version"
)

const procNetDev = `Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:     100       1    0    0    0     0          0         0      100       1    0    0    0     0       0          0
flannel.1: 2000      20    1    2    3     4          0         0     3000      30    5    6    7     0       8          0
`

func metrics(t *testing.T, s api.Status) *serve.Metrics {
	t.Helper()
	proc := t.TempDir()
	if err := os.Mkdir(filepath.Join(proc, "net"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(proc, "net/dev"), []byte(procNetDev), 0o600); err != nil {
		t.Fatal(err)
	}
	m := serve.NewMetrics(version.Build{Version: "v1.0.0", Commit: "0123abc"})
	m.Register(serve.NewStatusCollector(func() api.Status { return s }, proc))
	return m
}

func TestMetricsFollowTheConventions(t *testing.T) {
	until := time.Now().Add(time.Hour)
	m := metrics(t, api.Status{
		Devices: []string{"flannel.1"}, Drift: map[string]uint64{"route": 3}, Lease: api.Lease{Until: &until},
		Probes: &api.ProbeSummary{Peers: 2},
	})
	problems, err := testutil.GatherAndLint(m.Gatherer())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if !strings.HasPrefix(p.Metric, "go_") && !strings.HasPrefix(p.Metric, "process_") {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
}

func TestMetricsShowTheStatus(t *testing.T) {
	since := time.Now()
	m := metrics(t, api.Status{
		Ready: true, State: api.StateDegraded, Peers: 7, Failing: 2, Skipped: 1, StoreSince: &since,
		Devices: []string{"flannel.1"},
		Drift:   map[string]uint64{"route": 3}, Probes: &api.ProbeSummary{Peers: 5, Failing: 2, OneWay: 1},
	})
	want := `# HELP flannel_degraded 1 if packets are forwarded and a fault exists, else 0.
# TYPE flannel_degraded gauge
flannel_degraded 1
# HELP flannel_drift_objects_total Kernel objects repaired after another program had changed or deleted them.
# TYPE flannel_drift_objects_total counter
flannel_drift_objects_total{kind="route"} 3
# HELP flannel_peers Subnets of other hosts.
# TYPE flannel_peers gauge
flannel_peers 7
# HELP flannel_peers_failing Peers whose routes or forwarding entries are not installed in the kernel.
# TYPE flannel_peers_failing gauge
flannel_peers_failing 2
# HELP flannel_probe_peers Probed peers by finding; one peer may have several findings.
# TYPE flannel_probe_peers gauge
flannel_probe_peers{finding="all"} 5
flannel_probe_peers{finding="failing"} 2
flannel_probe_peers{finding="one_way"} 1
flannel_probe_peers{finding="silent"} 0
flannel_probe_peers{finding="small_mtu"} 0
# HELP flannel_ready 1 if packets are forwarded, else 0.
# TYPE flannel_ready gauge
flannel_ready 1
# HELP flannel_store_reachable 1 while the store answers, else 0.
# TYPE flannel_store_reachable gauge
flannel_store_reachable 0
# HELP flannel_tunnel_bytes_total Bytes through the tunnel device.
# TYPE flannel_tunnel_bytes_total counter
flannel_tunnel_bytes_total{device="flannel.1",direction="receive"} 2000
flannel_tunnel_bytes_total{device="flannel.1",direction="transmit"} 3000
# HELP flannel_tunnel_dropped_packets_total Packets that the tunnel device dropped.
# TYPE flannel_tunnel_dropped_packets_total counter
flannel_tunnel_dropped_packets_total{device="flannel.1",direction="receive",reason="drop"} 2
flannel_tunnel_dropped_packets_total{device="flannel.1",direction="receive",reason="error"} 1
flannel_tunnel_dropped_packets_total{device="flannel.1",direction="receive",reason="fifo"} 3
flannel_tunnel_dropped_packets_total{device="flannel.1",direction="receive",reason="frame"} 4
flannel_tunnel_dropped_packets_total{device="flannel.1",direction="transmit",reason="carrier"} 8
flannel_tunnel_dropped_packets_total{device="flannel.1",direction="transmit",reason="drop"} 6
flannel_tunnel_dropped_packets_total{device="flannel.1",direction="transmit",reason="error"} 5
flannel_tunnel_dropped_packets_total{device="flannel.1",direction="transmit",reason="fifo"} 7
`
	err := testutil.GatherAndCompare(m.Gatherer(), strings.NewReader(want),
		"flannel_ready", "flannel_peers", "flannel_peers_failing",
		"flannel_drift_objects_total", "flannel_probe_peers", "flannel_store_reachable", "flannel_tunnel_bytes_total",
		"flannel_tunnel_dropped_packets_total")
	if err != nil {
		t.Error(err)
	}
}

func TestMetricsWithoutALeaseSayNothingOfItsTime(t *testing.T) {
	n, err := testutil.GatherAndCount(metrics(t, api.Status{}).Gatherer(), "flannel_lease_remaining_seconds")
	if err = errors.Join(err); err != nil || n != 0 {
		t.Errorf("%d values of the lease's time, %v, want none", n, err)
	}
}

func TestMetricsAreServed(t *testing.T) {
	h := serve.Health{Alive: fine, Ready: fine, Metrics: metrics(t, api.Status{}).Handler()}
	w := httptest.NewRecorder()
	h.Handler().ServeHTTP(w, httptest.NewRequest("GET", "http://192.0.2.1/metrics", nil))
	build := fmt.Sprintf("flannel_build_info{goversion=%q,revision=\"0123abc\",version=\"v1.0.0\"} 1\n", runtime.Version())
	if w.Code != 200 || !strings.Contains(w.Body.String(), build) {
		t.Errorf("/metrics is %d:\n%s", w.Code, w.Body)
	}
}
