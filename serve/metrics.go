package serve

import (
	"net/http"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"flanneld/probe"
	"flanneld/version"
)

const namespace = "flannel"

// Metrics are what /metrics shows. What the status knows is read from it at each scrape, the rest is counted here.
type Metrics struct {
	registry   *prometheus.Registry
	operations *prometheus.CounterVec
	dumps      *prometheus.CounterVec
	requests   *prometheus.CounterVec
	watches    prometheus.Counter
	passes     *prometheus.HistogramVec
	probes     *prometheus.CounterVec
	roundTrip  prometheus.Histogram
}

// NewMetrics returns a registry of its own with all metrics that are counted, for this build of the daemon.
func NewMetrics(b version.Build) *Metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help}, labels)
	}
	m := &Metrics{
		registry:   prometheus.NewRegistry(),
		operations: counter("kernel_operations_total", "Changes made in the kernel.", "kind", "operation", "result"),
		dumps:      counter("kernel_dumps_total", "Reads of all objects of the network from the kernel.", "result"),
		requests:   counter("store_requests_total", "Requests to the store.", "request", "result"),
		watches: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: namespace, Name: "store_watch_restarts_total",
			Help: "Times that the watch of the store ended and all records were listed again.",
		}),
		passes: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: namespace, Name: "pass_duration_seconds",
			Help:    "Duration of a reconciliation of the kernel with the leases.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 4, 8),
		}, []string{"result"}),
		probes: counter("probes_total", "Probes sent to peers through the tunnel.", "result"),
		roundTrip: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: namespace, Name: "probe_round_trip_seconds", Help: "Round trip through the tunnel to peers.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 2.5, 10),
		}),
	}
	m.registry.MustRegister(m.operations, m.dumps, m.requests, m.watches, m.passes, m.probes, m.roundTrip,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	info := prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: namespace, Name: "build_info",
		Help: "Always 1; version and commit are in the labels."}, []string{"version", "revision", "goversion"})
	info.WithLabelValues(b.Version, b.Commit, runtime.Version()).Set(1)
	m.registry.MustRegister(info)
	for _, outcome := range []probe.Outcome{probe.Answered, probe.Lost, probe.Refused} {
		m.probes.WithLabelValues(string(outcome))
	}
	return m
}

// Register adds a source of metrics.
func (m *Metrics) Register(c prometheus.Collector) { m.registry.MustRegister(c) }

// Gatherer returns all metrics, for tests.
func (m *Metrics) Gatherer() prometheus.Gatherer { return m.registry }

// Handler serves /metrics.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4, Timeout: healthTimeout})
}

// Probed takes in what became of a probe.
func (m *Metrics) Probed(o probe.Outcome, roundTrip time.Duration) {
	m.probes.WithLabelValues(string(o)).Inc()
	if o == probe.Answered {
		m.roundTrip.Observe(roundTrip.Seconds())
	}
}

// Pass takes in a pass over the kernel.
func (m *Metrics) Pass(took time.Duration, err error) {
	m.passes.WithLabelValues(result(err)).Observe(took.Seconds())
}

func result(err error) string {
	if err != nil {
		return "error"
	}
	return "ok"
}
