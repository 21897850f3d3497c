package lab_test

import (
	"fmt"
	"testing"
	"time"
)

// BenchmarkStartToReady measures from the start of the process to READY=1 on a store with that many hosts.
func BenchmarkStartToReady(b *testing.B) {
	for _, peers := range []int{2, 100} {
		b.Run(fmt.Sprint(peers, " peers"), func(b *testing.B) {
			c := newCluster(b)
			e := c.etcd(vxlanConfig)
			for i := range peers {
				c.ok(e.Put(c.ctx, fmt.Sprintf("subnets/10.5.%d.0-24", i+1), fmt.Sprintf(
					`{"PublicIP":"198.18.200.%d","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:00:%02x"}}`, i+1, i+1)))
			}
			h := c.host("host1")
			var total time.Duration
			for b.Loop() {
				d := c.flanneld(h, e)
				total += d.ReadyAt().Sub(d.Started)
				c.ok(d.Stop(c.ctx))
			}
			b.ReportMetric(float64(total.Microseconds())/1000/float64(b.N), "ms/ready")
		})
	}
}
