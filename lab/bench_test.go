package lab_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"flanneld/lab"
)

// BenchmarkStartToReady measures from the start of the process to READY=1 on a store with that many hosts.
func BenchmarkStartToReady(b *testing.B) {
	for _, families := range []lab.Families{lab.IPv4, lab.IPv6, lab.Dual} {
		for _, peers := range []int{2, 100} {
			n := network{"vxlan", families}
			b.Run(fmt.Sprintf("%s, %d peers", n, peers), func(b *testing.B) {
				c := newCluster(b)
				e := c.etcd(n.config())
				for i := range peers {
					key, value := n.peer(i + 1)
					c.ok(e.Put(c.ctx, "subnets/"+key, value))
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
}

// peer returns the record of a peer that nobody plays, by its number.
func (n network) peer(i int) (key, value string) {
	var keys []string
	public4, public6, data := "0.0.0.0", "null", ""
	if n.families.Has(lab.IPv4) {
		keys, public4 = append(keys, fmt.Sprintf("10.5.%d.0-24", i)), fmt.Sprintf("198.18.200.%d", i)
		data += fmt.Sprintf(`,"BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:00:%02x"}`, i)
	}
	if n.families.Has(lab.IPv6) {
		keys, public6 = append(keys, fmt.Sprintf("fd00:5:0:%x::-64", i)), fmt.Sprintf(`"fd00:18::c8:%x"`, i)
		data += fmt.Sprintf(`,"BackendV6Data":{"VNI":1,"VtepMAC":"02:00:00:00:00:%02x"}`, i)
	}
	return strings.Join(keys, "&"),
		fmt.Sprintf(`{"PublicIP":%q,"PublicIPv6":%s,"BackendType":%q%s}`, public4, public6, n.backend, data)
}
