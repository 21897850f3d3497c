package lab_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"flanneld/backend"
	"flanneld/backend/vxlan"
	"flanneld/ip"
	"flanneld/subnet"
	"flanneld/subnet/etcdv3"
)

// crowd is a cluster of many simulated hosts in this process: managers, loops and backends are the real ones, over one real
// etcd; their kernels only count.
type crowd struct {
	b     *testing.B
	ctx   context.Context
	url   string // of the store, or of a proxy before it
	etcd  string // of the store, for its metrics
	hosts []*member

	joined   sync.Map // netip.Prefix → time.Time: when the record of a subnet was written
	requests atomic.Int64
	events   atomic.Int64

	mu  sync.Mutex // guards all below
	lag []time.Duration
}

// member is one simulated host.
type member struct {
	kernel *counter
	stop   context.CancelFunc
	ended  sync.WaitGroup
}

// counter is an ip.Kernel that notes when it is given the route to a peer.
type counter struct {
	ip.Kernel
	crowd  *crowd
	routes atomic.Int64
	ops    atomic.Int64
	since  time.Time // of the first Apply: what was there before says nothing about how fast news travel
}

func (k *counter) Dump(ip.Scope) (ip.State, error) { return ip.State{}, nil }

func (k *counter) Apply(ops []ip.Op) error {
	now := time.Now()
	k.ops.Add(int64(len(ops)))
	if k.since.IsZero() {
		k.since = now
	}
	var lag []time.Duration
	for _, op := range ops {
		r, ok := op.Object.(ip.Route)
		switch {
		case !ok:
		case op.Delete:
			k.routes.Add(-1)
		default:
			k.routes.Add(1)
			if at, ok := k.crowd.joined.Load(r.Dst); ok && k.since.Before(at.(time.Time)) {
				lag = append(lag, now.Sub(at.(time.Time)))
			}
		}
	}
	k.crowd.mu.Lock()
	k.crowd.lag = append(k.crowd.lag, lag...)
	k.crowd.mu.Unlock()
	return nil
}

// countingStore counts what a host asks and hears.
type countingStore struct {
	*etcdv3.Store
	crowd *crowd
}

func (s countingStore) List(ctx context.Context) (subnet.Snapshot, error) {
	s.crowd.requests.Add(1)
	return s.Store.List(ctx)
}

func (s countingStore) Watch(ctx context.Context, after subnet.Position, f func([]subnet.Event)) error {
	s.crowd.requests.Add(1)
	return s.Store.Watch(ctx, after, func(events []subnet.Event) {
		s.crowd.events.Add(int64(len(events)))
		f(events)
	})
}

func (s countingStore) Grant(ctx context.Context, ttl time.Duration) (subnet.LeaseID, error) {
	s.crowd.requests.Add(1)
	return s.Store.Grant(ctx, ttl)
}

func (s countingStore) Create(ctx context.Context, r subnet.Record, id subnet.LeaseID) (subnet.Entry, error) {
	s.crowd.requests.Add(1)
	at := time.Now()
	e, err := s.Store.Create(ctx, r, id)
	if err == nil {
		s.crowd.joined.Store(r.Leases[0].Subnet, at)
	}
	return e, err
}

func (s countingStore) Update(ctx context.Context, old subnet.Entry, r subnet.Record, id subnet.LeaseID, claims ...subnet.Entry) (subnet.Entry, error) {
	s.crowd.requests.Add(1)
	return s.Store.Update(ctx, old, r, id, claims...)
}

func (s countingStore) KeepAlive(ctx context.Context, id subnet.LeaseID) (time.Duration, error) {
	s.crowd.requests.Add(1)
	return s.Store.KeepAlive(ctx, id)
}

// join starts host number i.
func (c *crowd) join(i int) *member {
	ctx, cancel := context.WithCancel(c.ctx)
	h := &member{kernel: &counter{crowd: c}, stop: cancel}
	quiet := slog.New(slog.DiscardHandler)
	store, err := etcdv3.New(etcdv3.Options{Endpoints: []string{c.url}, Prefix: "/crowd", Log: quiet})
	if err != nil {
		c.b.Fatal(err)
	}
	addrs := []netip.Addr{netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)})}
	var b *vxlan.Backend
	m := subnet.NewManager(countingStore{store, c}, subnet.Options{
		Identity: fmt.Sprint("host", i), Prefix: "/crowd", TTL: time.Hour, RenewMargin: time.Minute, PeerGrace: 10 * time.Minute, OnLost: subnet.LostMove,
		Check: func(subnet.Config) error { return nil },
		Attrs: func(p netip.Prefix) subnet.Attrs { return b.Attrs(p) },
		Valid: func(l subnet.Lease) error { return b.Valid(l) },
		Log:   quiet,
	})
	h.ended.Go(func() {
		defer store.Close()
		config, err := m.WaitConfig(ctx)
		if err != nil {
			return
		}
		b, err = vxlan.New(config, ip.Host{
			Kernel: h.kernel, Log: quiet, Identity: fmt.Sprint("host", i),
			Underlay: func() ip.Underlay { return ip.Underlay{Link: "eth0", MTU: 1500, Addrs: addrs, PublicAddrs: addrs} },
		})
		if err != nil {
			c.b.Error(err)
			return
		}
		loop := backend.NewLoop(m, b, quiet)
		var both sync.WaitGroup
		both.Go(func() { _ = m.Run(ctx) })
		both.Go(func() { _ = loop.Run(ctx) })
		both.Wait()
	})
	return h
}

// complete waits until every host routes to every other.
func (c *crowd) complete() {
	want := int64(len(c.hosts) - 1)
	for {
		missing := 0
		for _, h := range c.hosts {
			if h.kernel.routes.Load() != want {
				missing++
			}
		}
		if missing == 0 {
			return
		}
		select {
		case <-c.ctx.Done():
			c.b.Fatalf("%d of %d hosts do not route to all others", missing, len(c.hosts))
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// leave ends all hosts without a trace in the store.
func (c *crowd) leave() {
	for _, h := range c.hosts {
		h.stop()
	}
	for _, h := range c.hosts {
		h.ended.Wait()
	}
}

// phase measures one phase of a cluster's life and reports it under a name.
func (c *crowd) phase(name string, changes int, f func()) {
	c.joined.Clear()
	c.mu.Lock()
	c.lag = nil
	c.mu.Unlock()
	requests, events, sent, received := c.requests.Load(), c.events.Load(), c.metric("etcd_network_client_grpc_sent_bytes_total"), c.metric("etcd_network_client_grpc_received_bytes_total")
	cpu, start := ownTime(), time.Now()
	f()
	took, used := time.Since(start), ownTime()-cpu
	heard := c.events.Load() - events
	c.mu.Lock()
	lag := slices.Sorted(slices.Values(c.lag))
	c.mu.Unlock()
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	at := func(p int) time.Duration {
		if len(lag) == 0 {
			return 0
		}
		return lag[min(len(lag)-1, len(lag)*p/100)]
	}
	fmt.Printf("| %d | %s | %d | %s | %d | %d | %.1f | %.1f | %s | %s | %.1f | %.0f |\n", len(c.hosts), name, changes, took.Round(10*time.Millisecond),
		c.requests.Load()-requests, heard, (c.metric("etcd_network_client_grpc_received_bytes_total")-received)/(1<<20),
		(c.metric("etcd_network_client_grpc_sent_bytes_total")-sent)/(1<<20), at(50).Round(time.Millisecond), at(99).Round(time.Millisecond),
		float64(used.Microseconds())/float64(max(1, heard)), float64(mem.HeapInuse)/(1<<20))
}

// ownTime returns the time of a processor that this process has had.
func ownTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func (c *crowd) metric(name string) float64 {
	out, err := exec.Command("curl", "-s", c.etcd+"/metrics").Output()
	if err != nil {
		c.b.Fatal(err)
	}
	return sumOf(string(out), name)
}

// crowdEtcd starts an etcd on the loopback, and a proxy before it if that is asked for.
func crowdEtcd(b *testing.B, c *crowd, proxied bool) (wipe func()) {
	dir := b.TempDir()
	c.etcd = "http://127.0.0.1:23790"
	c.url = c.etcd
	start := func() *exec.Cmd {
		return background(b, binaries.Etcd, "--data-dir", filepath.Join(dir, "data"), "--listen-client-urls", c.etcd, "--advertise-client-urls", c.etcd,
			"--listen-peer-urls", "http://127.0.0.1:23800", "--initial-advertise-peer-urls", "http://127.0.0.1:23800",
			"--initial-cluster", "default=http://127.0.0.1:23800", "--unsafe-no-fsync", "--log-level", "error")
	}
	etcd := start()
	if proxied {
		c.url = "http://127.0.0.1:23792"
		background(b, binaries.Etcd, "grpc-proxy", "start", "--endpoints", c.etcd, "--listen-addr", "127.0.0.1:23792")
	}
	offerConfig(b, c.etcd)
	return func() {
		_ = etcd.Process.Kill()
		_ = etcd.Wait()
		_ = os.RemoveAll(filepath.Join(dir, "data"))
		etcd = start()
		offerConfig(b, c.etcd)
	}
}

func background(b *testing.B, args ...string) *exec.Cmd {
	cmd := exec.Command(args[0], args[1:]...) // the proxy tells of every connection: nobody listens
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd
}

func offerConfig(b *testing.B, url string) {
	s, err := etcdv3.New(etcdv3.Options{Endpoints: []string{url}, Prefix: "/crowd", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	for {
		if _, err := s.PutConfigIfAbsent(b.Context(), scaleConfig); err == nil {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// BenchmarkScaleCluster takes a crowd through its life. The table that it prints is that of docs/scale.md.
func BenchmarkScaleCluster(b *testing.B) {
	fmt.Println("| hosts | phase | changes | took | requests | events heard | MiB to store | MiB from store | p50 | p99 | µs CPU/event | MiB heap |")
	for _, n := range []int{100, 300, 1_000, 2_000, 3_000} {
		for _, proxied := range []bool{false, true} {
			if n > *scale || proxied && n > 1_000 {
				continue
			}
			b.Run(fmt.Sprintf("%d hosts, proxy=%t", n, proxied), func(b *testing.B) { live(b, n, proxied) })
		}
	}
}

func live(b *testing.B, n int, proxied bool) {
	ctx, cancel := context.WithTimeout(b.Context(), 3*time.Minute)
	defer cancel()
	c := &crowd{b: b, ctx: ctx}
	wipe := crowdEtcd(b, c, proxied)
	via := ""
	if proxied {
		via = ", by grpc-proxy"
	}
	join := func(from, to int) {
		for i := from; i < to; i++ {
			c.hosts = append(c.hosts, c.join(i))
		}
		c.complete()
	}
	c.phase("cold start at once"+via, n, func() { join(0, n) })
	c.phase("idle, 5 s"+via, 0, func() { time.Sleep(5 * time.Second) })
	c.phase("30 hosts join, 10/s"+via, 30, func() {
		for i := range 30 {
			c.hosts = append(c.hosts, c.join(n+i))
			time.Sleep(100 * time.Millisecond)
		}
		c.complete()
	})
	c.phase("rolling restart of 20"+via, 20, func() {
		for i := range 20 {
			c.hosts[i].stop()
			c.hosts[i].ended.Wait()
			c.hosts[i] = c.join(i)
		}
		c.complete()
	})
	if !proxied {
		c.phase("wiped store", n+30, func() {
			requests := c.requests.Load()
			wipe()
			for c.requests.Load()-requests < int64(3*len(c.hosts)) { // list, grant, create
				time.Sleep(10 * time.Millisecond)
			}
			time.Sleep(5 * time.Second)
			c.complete()
		})
	}
	c.leave()
	b.ReportMetric(0, "ns/op")
}
