package lab_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"flanneld/ip"
	"flanneld/lab"
)

// scale turns the benchmarks of "make bench-scale" on: the largest number of records in the store.
var scale = flag.Int("scale", 0, "run the benchmarks of large clusters, up to so many hosts")

// scaleIdle is how long an idle daemon is watched.
const scaleIdle = time.Minute

// scaleSettle is how long a daemon has work after a change at most: it writes its peers down.
const scaleSettle = 31 * time.Second

const scaleNetwork = `{"Network":"10.0.0.0/8","SubnetLen":24,"Backend":{"Type":"%s"}}`

var scaleConfig = fmt.Sprintf(scaleNetwork, "vxlan")

// BenchmarkScaleDaemon is one daemon on a real kernel, in a cluster whose other hosts are records in a real etcd.
func BenchmarkScaleDaemon(b *testing.B) {
	for _, n := range []int{1_000, 3_000, 10_000} {
		if n > *scale {
			continue
		}
		for _, strict := range []bool{true, false} {
			b.Run(fmt.Sprintf("%d records, strict-ingress=%t", n, strict), func(b *testing.B) {
				c := newCluster(b)
				ctx, cancel := context.WithTimeout(b.Context(), 20*scaleIdle) // longer than a test has patience
				defer cancel()
				c.ctx = ctx
				e := c.etcd(scaleConfig)
				putRecords(c, e, n)
				h := c.host("host1")
				for b.Loop() {
					measureDaemon(b, c, e, h, n, fmt.Sprintf("-strict-ingress=%t", strict))
				}
			})
		}
	}
}

func measureDaemon(b *testing.B, c *cluster, e *lab.Etcd, h *lab.Host, n int, args ...string) {
	before := requestsOf(c, e)
	d := c.flanneld(h, e, args...)
	b.ReportMetric(d.ReadyAt().Sub(d.Started).Seconds()*1000, "ms/start-to-all-routes")
	if routes := strings.Count(must[string](b)(h.Output("ip route show proto 70")), "\n"); routes != n {
		b.Fatalf("%d routes, want %d", routes, n)
	}
	b.ReportMetric(requestsOf(c, e)-before, "requests/start")
	time.Sleep(2 * time.Second) // the first pass was a long one, and the loop rests as long
	var took []time.Duration
	cpu := cpuOf(b, d.Pid())
	for i := range 20 {
		took = append(took, newPeer(b, c, e, h, i))
	}
	slices.Sort(took)
	b.ReportMetric(float64((cpuOf(b, d.Pid())-cpu).Milliseconds())/20, "ms-cpu/peer-and-gone")
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "ms/new-peer-p50")
	b.ReportMetric(float64(took[len(took)-1].Microseconds())/1000, "ms/new-peer-max")
	time.Sleep(scaleSettle)
	cpu = cpuOf(b, d.Pid())
	time.Sleep(scaleIdle)
	b.ReportMetric(float64((cpuOf(b, d.Pid())-cpu).Milliseconds())*60/scaleIdle.Seconds(), "ms-cpu/idle-minute")
	b.ReportMetric(float64(peakOf(b, d.Pid()))/1024, "MiB/peak")
	b.ReportMetric(0, "ns/op")
	start := time.Now()
	c.ok(d.Stop(c.ctx))
	d = c.flanneld(h, e)
	b.ReportMetric(time.Since(start).Seconds()*1000, "ms/restart")
	c.ok(d.Stop(c.ctx))
	// The next start is one on a fresh host again.
	c.ok(h.Run("ip link del flannel.1"))
	c.ok(os.RemoveAll(h.StateDir()))
	c.ok(os.Remove(h.SubnetFile()))
}

// scaleRecord is the record of host number i, as flannel writes it.
func scaleRecord(i int) (key, value string) {
	return fmt.Sprintf("subnets/10.%d.%d.0-24", 100+i>>8, i&0xff),
		fmt.Sprintf(`{"PublicIP":"198.18.%d.%d","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"02:00:00:01:%02x:%02x"}}`,
			100+i>>8, i&0xff, i>>8, i&0xff)
}

// putRecords writes the records of n hosts, a hundred with each request.
func putRecords(c *cluster, e *lab.Etcd, n int) {
	client := must[*clientv3.Client](c.t)(e.Client())
	defer client.Close()
	for i := 0; i < n; i += 100 {
		var ops []clientv3.Op
		for j := i; j < min(n, i+100); j++ {
			key, value := scaleRecord(j)
			ops = append(ops, clientv3.OpPut(lab.Prefix+"/"+key, value))
		}
		_, err := client.Txn(c.ctx).Then(ops...).Commit()
		c.ok(err)
	}
}

// newPeer writes one more record, and returns how long it takes until the kernel routes to it. Then it goes again.
func newPeer(b *testing.B, c *cluster, e *lab.Etcd, h *lab.Host, i int) time.Duration {
	client := must[*clientv3.Client](b)(e.Client())
	defer client.Close()
	key := fmt.Sprintf("%s/subnets/10.99.%d.0-24", lab.Prefix, i)
	first := netip.AddrFrom4([4]byte{10, 99, byte(i), 0})
	var took time.Duration
	c.ok(h.Do(func() error {
		k, err := ip.NewKernel(slog.New(slog.DiscardHandler))
		if err != nil {
			return err
		}
		defer k.Close()
		start := time.Now()
		if _, err := client.Put(c.ctx, key,
			fmt.Sprintf(`{"PublicIP":"198.18.99.%d","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"02:00:00:99:00:%02x"}}`, i, i)); err != nil {
			return err
		}
		for c.ctx.Err() == nil {
			if hop, err := k.RouteTo(first.Next()); err == nil && hop.Link == "flannel.1" && hop.Via == first {
				took = time.Since(start)
				return nil
			}
			time.Sleep(200 * time.Microsecond)
		}
		return errors.New("no route to the new peer")
	}))
	_, err := client.Delete(c.ctx, key)
	c.ok(err)
	time.Sleep(100 * time.Millisecond)
	return took
}

// requestsOf returns how many requests the store has begun to answer.
func requestsOf(c *cluster, e *lab.Etcd) float64 {
	out := must[string](c.t)(e.Exec(c.ctx, "curl", "-s", e.URL()+"/metrics"))
	return sumOf(out, "grpc_server_started_total")
}

// sumOf adds up a metric over its labels, without the client's own health checks.
func sumOf(metrics, name string) (sum float64) {
	for line := range strings.Lines(metrics) {
		if strings.HasPrefix(line, name) {
			fields := strings.Fields(line)
			v, _ := strconv.ParseFloat(fields[len(fields)-1], 64)
			sum += v
		}
	}
	return sum
}

// cpuOf returns how much time of a processor a process has had.
func cpuOf(t testing.TB, pid int) time.Duration {
	t.Helper()
	text := string(must[[]byte](t)(os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))))
	fields := strings.Fields(text[strings.LastIndexByte(text, ')'):])
	var ticks int
	for _, f := range fields[12:14] { // utime, stime
		ticks += must[int](t)(strconv.Atoi(f))
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// peakOf returns the largest resident size that a process had, in KiB.
func peakOf(t testing.TB, pid int) int {
	t.Helper()
	for line := range strings.Lines(string(must[[]byte](t)(os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))))) {
		if text, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			return must[int](t)(strconv.Atoi(strings.Fields(text)[0]))
		}
	}
	return 0
}
