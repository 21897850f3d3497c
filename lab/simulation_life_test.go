//go:build simulated

package lab_test

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"runtime/pprof"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"flanneld/lab"
)

// simulationSize is the largest simulated cluster.
var simulationSize = flag.Int("simulated", 1_000, "simulate clusters of up to so many hosts, with -scale")

// simulationBackend is the backend of its hosts.
var simulationBackend = flag.String("simulated-backend",
	"vxlan", "the backend of simulated clusters: vxlan or host-gw, which needs less memory")

// simulationPatience is how patient its hosts are.
var simulationPatience = flag.Int("simulated-patience", slowdown,
	"how many times longer than a real host a simulated one waits for an answer of the store")

// simulationAlone is how many hosts of a simulated cluster wait for nothing longer than a real one.
var simulationAlone = flag.Int("simulated-alone", 0,
	"how many hosts of a cluster that starts at once run in a process of their own, with all timeouts of real hosts")

const (
	churnRate      = 10 // hosts a second that leave, and as many that come
	churnTime      = 10 * time.Second
	restarts       = 50
	waves          = 5
	listsAtOnce    = 100           // by all hosts together
	realLists      = 1_000         // the same for hosts with the timeouts of real ones
	simulationTime = 2 * time.Hour // of one cluster at most
	slowdown       = 100           // of the hosts that share this process: see simulation
)

// BenchmarkScaleCluster takes a simulated cluster through its life. The table that it prints is that of docs/scale.md.
func BenchmarkScaleCluster(b *testing.B) {
	// What is measured is the hosts, and not how often this process has to look through the memory of all.
	defer debug.SetGCPercent(debug.SetGCPercent(400))
	fmt.Println("| hosts | phase | changes | took | requests | events heard | MiB from store | p50 | p99 | µs of a " +
		"host an event | µs of store and proxy an event | bytes a pair |")
	for _, n := range []int{100, 300, 1_000, 1_500, 2_000, 3_000, 5_000, 10_000} {
		if n > min(*scale, *simulationSize) {
			continue
		}
		for _, proxied := range []bool{false, true} {
			b.Run(fmt.Sprintf("%d hosts at once, proxy=%t", n, proxied), func(b *testing.B) { live(b, proxied, n, atOnce) })
			b.Run(fmt.Sprintf("%d hosts in waves, proxy=%t", n, proxied), func(b *testing.B) { live(b, proxied, n, inWaves) })
			b.Run(fmt.Sprintf("%d hosts again, proxy=%t", n, proxied), func(b *testing.B) { live(b, proxied, n, again) })
		}
	}
}

// shareMemory has this process use what memory the machine has, but for a reserve. The store needs some, too, as it
// keeps what slow watches have not heard yet, and how much is not known before.
func shareMemory(ctx context.Context, b *testing.B) {
	const reserve = 2 << 30
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(-1))
	used := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	for ctx.Err() == nil {
		metrics.Read(used)
		debug.SetMemoryLimit(int64(used[0].Value.Uint64()-used[1].Value.Uint64()) + available(b) - reserve)
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

// available returns how many bytes of memory nobody uses.
func available(b *testing.B) int64 {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		b.Error(err)
	}
	for line := range strings.Lines(string(text)) {
		var kib int64
		if n, _ := fmt.Sscanf(line, "MemAvailable: %d kB", &kib); n == 1 {
			return kib << 10
		}
	}
	b.Error("no MemAvailable in /proc/meminfo")
	return 0
}

// live has n hosts go through a life.
func live(b *testing.B, proxied bool, n int, life func(c *simulation, n int)) {
	ctx, cancel := context.WithTimeout(b.Context(), simulationTime)
	defer cancel()
	c := newSimulation(ctx, b)
	c.slowdown, c.patience = slowdown, time.Duration(*simulationPatience)
	c.lists = make(chan struct{}, listsAtOnce)
	if *simulationPatience < slowdown {
		c.lists = make(chan struct{}, realLists)
	}
	var sharing sync.WaitGroup
	sharing.Go(func() { shareMemory(ctx, b) })
	defer func() {
		cancel()
		c.leave()
		sharing.Wait()
	}()
	simulationEtcd(b, c, proxied)
	b.ReportMetric(0, "ns/op")
	life(c, n)
}

// atOnce is a new cluster whose hosts all start at the same moment.
func atOnce(c *simulation, n int) {
	c.alone = min(*simulationAlone, n-1)
	var alone []*exec.Cmd
	c.phase("cold start at once", n, func() {
		for i := range c.alone {
			alone = append(alone, c.startAlone(n-1-i, n))
		}
		c.grow(n - c.alone)
	})
	for _, cmd := range alone {
		if err := cmd.Wait(); err != nil {
			c.b.Errorf("a host in a process of its own: %v", err)
		}
	}
}

// inWaves is one whose hosts start in waves, and what comes then.
func inWaves(c *simulation, n int) {
	for range waves {
		c.phase(fmt.Sprintf("cold start in waves of %d", n/waves), n/waves, func() { c.grow(n / waves) })
	}
	c.phase("idle, 10 s", 0, func() { time.Sleep(10 * time.Second) })
	changes := churnRate * int(churnTime/time.Second)
	c.phase(fmt.Sprintf("churn: %d/s leave, %[1]d/s join", churnRate), 2*changes, func() { c.churn(changes) })
	c.phase("rolling restart", restarts, c.restart)
	c.loseStore()
}

// again is a cluster of which all hosts start anew at the same moment, as after a loss of power, and that loses its
// store then.
func again(c *simulation, n int) {
	c.enter(n)
	c.phase("all start again at once", 0, func() { c.grow(n) })
	c.loseStore()
}

// loseStore has the simulated hosts live through a store that crashes, where the record of one more shows that all
// follow it again, and through one that is wiped, but not behind a proxy.
func (c *simulation) loseStore() {
	if c.wipe == nil {
		return
	}
	c.phase("store crashes, a host joins", 1, func() {
		c.crash()
		c.grow(1)
	})
	c.phase("wiped store", len(c.hosts), c.relist)
}

// grow adds hosts, and waits until all route to all.
func (c *simulation) grow(n int) {
	for range n {
		c.hosts = append(c.hosts, c.join(c.next))
		c.next++
	}
	c.complete()
}

// churn has the oldest hosts leave, as if they were drained, and new ones come.
func (c *simulation) churn(changes int) {
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{c.etcd}, DialTimeout: 5 * time.Second})
	if err != nil {
		c.b.Fatal(err)
	}
	defer client.Close()
	tick := time.NewTicker(time.Second / churnRate)
	defer tick.Stop()
	for range changes {
		<-tick.C
		old := c.hosts[0]
		c.end(old)
		if _, err := client.Delete(c.ctx, "/simulated/"+old.view().Own.Key()); err != nil {
			c.b.Fatal(err)
		}
		c.hosts = append(c.hosts[1:], c.join(c.next))
		c.next++
	}
	c.complete()
}

// restart restarts hosts one after the other, and notes how long each takes until it routes to all others.
func (c *simulation) restart() {
	for i := range min(restarts, len(c.hosts)) {
		start := time.Now()
		c.end(c.hosts[i])
		c.hosts[i] = c.join(c.hosts[i].number)
		for c.hosts[i].kernel.routes.Load() != int64(len(c.hosts)-1) && c.ctx.Err() == nil {
			time.Sleep(time.Millisecond)
		}
		c.took(time.Since(start))
	}
	c.complete()
}

// relist waits until every host has its record in a store that was wiped, and has heard of those of all others. No
// route may be taken away meanwhile.
func (c *simulation) relist() {
	removed := c.removed.Load()
	defer func() {
		if n := c.removed.Load() - removed; n > 0 {
			c.b.Errorf("%d routes were taken away while the store was wiped and written anew", n)
		}
	}()
	c.wipe()
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{c.etcd}, DialTimeout: 5 * time.Second})
	if err != nil {
		c.b.Fatal(err)
	}
	defer client.Close()
	for c.ctx.Err() == nil {
		resp, err := client.Get(c.ctx, "/simulated/subnets/", clientv3.WithPrefix(), clientv3.WithCountOnly())
		if err == nil && resp.Count == int64(len(c.hosts)) {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	for _, h := range c.hosts {
		err := lab.Await(c.ctx, func() error {
			if n := h.view().Status.Stale; n > 0 {
				return fmt.Errorf("host %d has not heard of %d others", h.number, n)
			}
			return nil
		})
		if err != nil {
			c.b.Fatal(err)
		}
	}
	c.complete()
}

// complete waits until every host routes to every other.
func (c *simulation) complete() {
	want, told := int64(len(c.hosts)+c.alone-1), time.Now()
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
		if time.Since(told) > time.Minute {
			told = time.Now()
			fmt.Fprintf(os.Stderr, "%d of %d hosts do not route to all others yet; %d events\n", missing, len(c.hosts),
				c.events.Load())
		}
		select {
		case <-c.ctx.Done():
			c.b.Fatalf("%d of %d hosts do not route to all others", missing, len(c.hosts))
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// end stops a host, which must not take long.
func (c *simulation) end(h *member) {
	h.stop()
	ended := make(chan struct{})
	go func() {
		h.ended.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(time.Minute):
		_ = pprof.Lookup("goroutine").WriteTo(os.Stderr, 1)
		c.b.Fatalf("host %d does not end", h.number)
	}
}

// leave ends all hosts without a trace in the store.
func (c *simulation) leave() {
	for _, h := range c.hosts {
		h.stop()
	}
	for _, h := range c.hosts {
		h.ended.Wait()
	}
}

// phase measures one phase of a cluster's life and reports it under a name.
func (c *simulation) phase(name string, changes int, f func()) {
	c.joined.Clear()
	c.mu.Lock()
	c.lag, c.requests = map[time.Duration]int{}, map[string]int{}
	c.mu.Unlock()
	events := c.events.Load()
	c.sentBefore, c.othersBefore = c.sent(), c.othersTime()
	c.begunBefore = c.begun()
	own, start := ownTime(), time.Now()
	f()
	took, own, others := time.Since(start), ownTime()-own, c.othersTime()-c.othersBefore
	heard := c.events.Load() - events
	each := func(used time.Duration) string {
		if heard == 0 {
			return fmt.Sprintf("%s in all", used.Round(time.Millisecond))
		}
		return fmt.Sprintf("%.0f", float64(used.Microseconds())/float64(heard))
	}
	sent := c.sent() - c.sentBefore
	runtime.GC()
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	c.mu.Lock()
	requests := maps.Clone(c.requests)
	c.mu.Unlock()
	all := 0
	for _, n := range requests {
		all += n
	}
	now := c.begun()
	for method := range now {
		now[method] -= c.begunBefore[method]
	}
	fmt.Fprintf(os.Stderr, "requests of hosts: %v; begun by the store: %v\n", requests, now)
	fmt.Printf("| %d | %s%s | %d | %s | %d | %d | %.1f | %s | %s | %s | %s | %d |\n", len(c.hosts), name, c.via, changes,
		took.Round(10*time.Millisecond),
		all, heard, sent/(1<<20), c.percentile(50), c.percentile(99), each(own), each(others),
		mem.HeapAlloc/uint64(len(c.hosts)*len(c.hosts)))
}

// percentile returns how long news took at most in so many of a hundred cases.
func (c *simulation) percentile(p int) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	all, seen := 0, 0
	for _, n := range c.lag {
		all += n
	}
	for _, d := range slices.Sorted(maps.Keys(c.lag)) {
		if seen += c.lag[d]; seen*100 >= all*p {
			return d.String()
		}
	}
	return "–"
}

// sent returns how many bytes the store has sent to its clients.
func (c *simulation) sent() float64 {
	return sumOf(c.metrics(), "etcd_network_client_grpc_sent_bytes_total")
}

// metrics returns those of the store.
func (c *simulation) metrics() string {
	out, err := exec.Command("curl", "-s", c.etcd+"/metrics").Output()
	if err != nil {
		c.b.Fatal(err)
	}
	return string(out)
}

// begun returns how many requests the store has begun to answer, by their method, and how many pages of lists nobody
// waited for any more. Each page of a list is one request.
func (c *simulation) begun() map[string]float64 {
	metrics, all := c.metrics(), map[string]float64{}
	for _, code := range []string{"Canceled", "DeadlineExceeded"} {
		all["late pages"] += sumOf(metrics, `grpc_server_handled_total{grpc_code="`+code+`",grpc_method="Range"`)
	}
	for _, method := range []string{"Range", "Txn", "Put", "LeaseGrant", "LeaseKeepAlive", "Watch"} {
		all[method] = sumOf(metrics, `grpc_server_started_total{grpc_method="`+method+`"`)
	}
	return all
}

// ownTime returns the time of a processor that this process has had.
func ownTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// othersTime returns that of the store and of the proxy.
func (c *simulation) othersTime() (sum time.Duration) {
	for _, pid := range c.pids {
		sum += cpuOf(c.b, pid)
	}
	return sum
}
