//go:build simulated

package lab_test

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// BenchmarkScaleEvent is what one change of a record costs one host of a large cluster, from the store to the operation
// on its kernel.
func BenchmarkScaleEvent(b *testing.B) {
	for _, n := range []int{1_000, 10_000} {
		if n > *scale {
			continue
		}
		b.Run(fmt.Sprint(n, " records"), func(b *testing.B) {
			ctx, cancel := context.WithCancel(b.Context())
			defer cancel()
			c := &simulation{b: b, ctx: ctx}
			simulationEtcd(b, c, false)
			client, err := clientv3.New(clientv3.Config{Endpoints: []string{c.etcd}, DialTimeout: 5 * time.Second})
			if err != nil {
				b.Fatal(err)
			}
			defer client.Close()
			for i := 0; i < n; i += 100 {
				var ops []clientv3.Op
				for j := i; j < i+100; j++ {
					key, value := scaleRecord(j)
					ops = append(ops, clientv3.OpPut("/simulated/"+key, value))
				}
				if _, err := client.Txn(ctx).Then(ops...).Commit(); err != nil {
					b.Fatal(err)
				}
			}
			h := c.join(1)
			for h.kernel.routes.Load() != int64(n) {
				time.Sleep(time.Millisecond)
			}
			b.ReportAllocs()
			cpu, i := ownTime(), 0
			for b.Loop() {
				// A peer moves to another address: one put in the kernel.
				key, _ := scaleRecord(i % n)
				moved := netip.AddrFrom4([4]byte{198, 19, byte(i >> 8), byte(i)})
				i++
				before := h.kernel.ops.Load()
				if _, err := client.Put(ctx, "/simulated/"+key, fmt.Sprintf(
					`{"PublicIP":"%s","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"02:00:00:01:%02x:%02x"}}`, moved,
					(i-1)%n>>8, (i-1)%n&0xff)); err != nil {
					b.Fatal(err)
				}
				for h.kernel.ops.Load() == before {
					time.Sleep(100 * time.Microsecond)
				}
			}
			b.ReportMetric(float64((ownTime()-cpu).Microseconds())/1000/float64(b.N), "ms-cpu/event")
			h.stop()
			h.ended.Wait()
		})
	}
}
