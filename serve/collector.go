package serve

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/procfs"

	"flanneld/api"
)

// StatusCollector shows the status as metrics.
type StatusCollector struct {
	status func() api.Status
	proc   string // where the kernel's procfs is mounted
	gauges []gauge
}

type gauge struct {
	desc  *prometheus.Desc
	value func(api.Status) float64
}

// NewStatusCollector returns a collector that asks for the status at each scrape, and reads the counters of the
// backend's devices below proc, which is /proc but for tests.
func NewStatusCollector(status func() api.Status, proc string) *StatusCollector {
	c := &StatusCollector{status: status, proc: proc}
	for _, g := range []struct {
		name, help string
		value      func(api.Status) float64
	}{
		{"ready", "1 if packets are forwarded, else 0.", func(s api.Status) float64 { return number(s.Ready) }},
		{"degraded", "1 if packets are forwarded and a fault exists, else 0.",
			func(s api.Status) float64 { return number(s.State == api.StateDegraded) }},
		{"drained", "1 after the operator has drained the host.", func(s api.Status) float64 { return number(s.Drained) }},
		{"peers", "Subnets of other hosts.", func(s api.Status) float64 { return float64(s.Peers) }},
		{"peers_failing", "Peers whose routes or forwarding entries are not installed in the kernel.",
			func(s api.Status) float64 { return float64(s.Failing) }},
		{"peers_kept", "Stale peers: the store has lost their records, packets are still forwarded to them.",
			func(s api.Status) float64 { return float64(s.Kept) }},
		{"records_skipped", "Invalid records in the store.", func(s api.Status) float64 { return float64(s.Skipped) }},
		{"store_reachable", "1 while the store answers, else 0.",
			func(s api.Status) float64 { return number(s.StoreSince == nil) }},
		{"lease_held", "1 while the store has this host's lease.",
			func(s api.Status) float64 { return number(s.Lease.Held) }},
		{"restart_pending", "1 while a change of the network configuration waits for a restart.",
			func(s api.Status) float64 { return number(s.Pending != "") }},
		{"mtu_bytes", "Largest packet that pods may send.", func(s api.Status) float64 { return float64(s.MTU) }},
	} {
		c.gauges = append(c.gauges, gauge{prometheus.NewDesc(namespace+"_"+g.name, g.help, nil, nil), g.value})
	}
	return c
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

var (
	leaseLeft = prometheus.NewDesc(namespace+"_lease_remaining_seconds",
		"Time until the lease ends unless it is renewed; absent for a reservation.", nil, nil)
	driftTotal = prometheus.NewDesc(namespace+"_drift_objects_total",
		"Kernel objects repaired after another program had changed or deleted them.", []string{"kind"}, nil)
	probePeers = prometheus.NewDesc(namespace+"_probe_peers",
		"Probed peers by finding; one peer may have several findings.", []string{"finding"}, nil)
	datapath = prometheus.NewDesc(namespace+"_datapath_events_total", "Packets and bytes of the udp backend, by result.",
		[]string{"event"}, nil)
	nonPeers = prometheus.NewDesc(namespace+"_nonpeer_dropped_packets_total",
		"Tunnel packets dropped because they did not come from a peer.", nil, nil)
	packets = prometheus.NewDesc(namespace+"_tunnel_packets_total", "Packets through the tunnel device.",
		[]string{"device", "direction"}, nil)
	octets = prometheus.NewDesc(namespace+"_tunnel_bytes_total", "Bytes through the tunnel device.",
		[]string{"device", "direction"}, nil)
	drops = prometheus.NewDesc(namespace+"_tunnel_dropped_packets_total", "Packets that the tunnel device dropped.",
		[]string{"device", "direction", "reason"}, nil)
)

// Describe implements prometheus.Collector.
func (c *StatusCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, g := range c.gauges {
		ch <- g.desc
	}
	for _, d := range []*prometheus.Desc{leaseLeft, driftTotal, probePeers, datapath, nonPeers, packets, octets, drops} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *StatusCollector) Collect(ch chan<- prometheus.Metric) {
	s := c.status()
	for _, g := range c.gauges {
		ch <- prometheus.MustNewConstMetric(g.desc, prometheus.GaugeValue, g.value(s))
	}
	if s.Lease.Until != nil {
		ch <- prometheus.MustNewConstMetric(leaseLeft, prometheus.GaugeValue, time.Until(*s.Lease.Until).Seconds())
	}
	for kind, n := range s.Drift {
		ch <- prometheus.MustNewConstMetric(driftTotal, prometheus.CounterValue, float64(n), kind)
	}
	if p := s.Probes; p != nil {
		for finding, n := range map[string]int{"all": p.Peers, "failing": p.Failing, "one_way": p.OneWay, "silent": p.Silent,
			"small_mtu": p.SmallMTU} {
			ch <- prometheus.MustNewConstMetric(probePeers, prometheus.GaugeValue, float64(n), finding)
		}
	}
	for event, n := range s.Datapath {
		ch <- prometheus.MustNewConstMetric(datapath, prometheus.CounterValue, float64(n), event)
	}
	if s.Firewall != nil {
		ch <- prometheus.MustNewConstMetric(nonPeers, prometheus.CounterValue, float64(s.Firewall.Dropped))
	}
	for _, d := range deviceLines(c.proc, s.Devices) {
		collectDevice(ch, d)
	}
}

func collectDevice(ch chan<- prometheus.Metric, d procfs.NetDevLine) {
	send := func(desc *prometheus.Desc, value uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, float64(value),
			append([]string{d.Name}, labels...)...)
	}
	send(octets, d.RxBytes, "receive")
	send(packets, d.RxPackets, "receive")
	send(drops, d.RxErrors, "receive", "error")
	send(drops, d.RxDropped, "receive", "drop")
	send(drops, d.RxFIFO, "receive", "fifo")
	send(drops, d.RxFrame, "receive", "frame")
	send(octets, d.TxBytes, "transmit")
	send(packets, d.TxPackets, "transmit")
	send(drops, d.TxErrors, "transmit", "error")
	send(drops, d.TxDropped, "transmit", "drop")
	send(drops, d.TxFIFO, "transmit", "fifo")
	send(drops, d.TxCarrier, "transmit", "carrier")
}
