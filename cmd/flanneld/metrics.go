package main

import (
	"context"
	"errors"
	"net/http"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"flanneld/ip"
	"flanneld/probe"
	"flanneld/subnet"
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

// NewMetrics returns a registry of its own with all metrics that are counted.
func NewMetrics() *Metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help}, labels)
	}
	m := &Metrics{
		registry:   prometheus.NewRegistry(),
		operations: counter("kernel_operations_total", "Changes made in the kernel.", "kind", "operation", "result"),
		dumps:      counter("kernel_dumps_total", "Times that the state was read from the kernel.", "result"),
		requests:   counter("store_requests_total", "Requests to the store.", "request", "result"),
		watches: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: namespace, Name: "store_watch_restarts_total", Help: "Times that the watch of the store ended and all records were listed again.",
		}),
		passes: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: namespace, Name: "pass_duration_seconds", Help: "Time of a pass over the kernel.", Buckets: prometheus.ExponentialBuckets(0.0005, 4, 8),
		}, []string{"result"}),
		probes: counter("probes_total", "Questions sent through the tunnel to peers.", "result"),
		roundTrip: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: namespace, Name: "probe_round_trip_seconds", Help: "Round trip through the tunnel to peers.", Buckets: prometheus.ExponentialBuckets(0.0001, 2.5, 10),
		}),
	}
	m.registry.MustRegister(m.operations, m.dumps, m.requests, m.watches, m.passes, m.probes, m.roundTrip,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	info := prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: namespace, Name: "build_info", Help: "Always 1; the version is in the label."}, []string{"version", "goversion"})
	info.WithLabelValues(version, runtime.Version()).Set(1)
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

// probed takes in what became of a probe.
func (m *Metrics) probed(o probe.Outcome, roundTrip time.Duration) {
	m.probes.WithLabelValues(string(o)).Inc()
	if o == probe.Answered {
		m.roundTrip.Observe(roundTrip.Seconds())
	}
}

// pass takes in a pass.
func (m *Metrics) pass(took time.Duration, err error) {
	m.passes.WithLabelValues(result(err)).Observe(took.Seconds())
}

func result(err error) string {
	if err != nil {
		return "error"
	}
	return "ok"
}

// countedKernel counts what goes through the seam to the kernel.
type countedKernel struct {
	ip.Kernel
	m *Metrics
}

func (k countedKernel) Dump(s ip.Scope) (ip.State, error) {
	st, err := k.Kernel.Dump(s)
	k.m.dumps.WithLabelValues(result(err)).Inc()
	return st, err
}

func (k countedKernel) Apply(ops []ip.Op) error {
	err := k.Kernel.Apply(ops)
	failed := map[ip.Op]bool{}
	for _, e := range operations(err) {
		failed[e.Op] = true
	}
	unknown := err != nil && len(failed) == 0
	counts := map[[3]string]float64{}
	for _, op := range ops {
		key := [3]string{op.Object.Kind().String(), "put", "ok"}
		if op.Delete {
			key[1] = "delete"
		}
		if unknown || failed[op] {
			key[2] = "error"
		}
		counts[key]++
	}
	for key, n := range counts {
		k.m.operations.WithLabelValues(key[:]...).Add(n)
	}
	return err
}

// countedStore counts the requests to the store.
type countedStore struct {
	subnet.Store
	m *Metrics
}

func (s countedStore) count(request string, err error) {
	r := result(err)
	if conflict := (*subnet.ConflictError)(nil); errors.As(err, &conflict) || errors.Is(err, subnet.ErrLeaseGone) {
		r = "conflict"
	}
	s.m.requests.WithLabelValues(request, r).Inc()
}

func (s countedStore) List(ctx context.Context) (subnet.Snapshot, error) {
	snap, err := s.Store.List(ctx)
	s.count("list", err)
	return snap, err
}

func (s countedStore) Watch(ctx context.Context, after subnet.Position, f func([]subnet.Event)) error {
	err := s.Store.Watch(ctx, after, f)
	if ctx.Err() == nil {
		s.m.watches.Inc()
		s.count("watch", err)
	}
	return err
}

func (s countedStore) Grant(ctx context.Context, ttl time.Duration) (subnet.LeaseID, error) {
	id, err := s.Store.Grant(ctx, ttl)
	s.count("grant", err)
	return id, err
}

func (s countedStore) Create(ctx context.Context, r subnet.Record, id subnet.LeaseID) (subnet.Entry, error) {
	e, err := s.Store.Create(ctx, r, id)
	s.count("create", err)
	return e, err
}

func (s countedStore) Update(ctx context.Context, old subnet.Entry, r subnet.Record, id subnet.LeaseID, spent ...subnet.Entry) (subnet.Entry, error) {
	e, err := s.Store.Update(ctx, old, r, id, spent...)
	s.count("update", err)
	return e, err
}

func (s countedStore) Delete(ctx context.Context, old subnet.Entry, spent ...subnet.Entry) error {
	err := s.Store.Delete(ctx, old, spent...)
	s.count("delete", err)
	return err
}

func (s countedStore) KeepAlive(ctx context.Context, id subnet.LeaseID) (time.Duration, error) {
	ttl, err := s.Store.KeepAlive(ctx, id)
	s.count("keep_alive", err)
	return ttl, err
}
