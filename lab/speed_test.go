package lab_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"flanneld/lab"
)

// way is one from one host to another.
type way struct {
	name, backend string
	// connect connects the hosts without the daemon, and returns the address of the second; nil: by the link
	connect func(*testing.B, *cluster, []*lab.Host) netip.Addr
}

// ways are compared; the first one is the bare link.
var ways = []way{
	{name: "bare link"},
	{name: "host-gw", backend: `{"Type":"host-gw"}`},
	{name: "vxlan", backend: `{"Type":"vxlan"}`},
	{name: "udp", backend: `{"Type":"udp"}`},
	{name: "udp in user space", backend: `{"Type":"udp","Kernel":false}`},
	{name: "udp without offloads", backend: `{"Type":"udp","Offload":false}`},
	{name: "wireguard", backend: `{"Type":"wireguard"}`},
	{name: "wireguard-go", connect: wireguardGo},
}

// ipipWay is one more, where the kernel has it.
var ipipWay = way{name: "ipip", backend: `{"Type":"ipip"}`}

// waysOf returns the ways of this kernel.
func waysOf(b *testing.B, families lab.Families) []way {
	c := newClusterWith(b, lab.Options{Families: families})
	if families == lab.IPv4 && c.Underlay().Run("ip link add probe0 type ipip local 198.18.0.1") == nil {
		return append(slices.Clone(ways), ipipWay)
	}
	return ways
}

// measures are what is measured, and how.
var measures = []struct {
	name, unit string
	run        func(p *pair) float64
}{
	{"TCP, 1 stream", "Gbit/s", func(p *pair) float64 { return p.iperf("-t", "1").End.Received.Bits / 1e9 }},
	{"TCP, 4 streams", "Gbit/s", func(p *pair) float64 { return p.iperf("-t", "1", "-P", "4").End.Received.Bits / 1e9 }},
	{"UDP of 64 bytes", "1000/s", func(p *pair) float64 {
		sum := p.iperf("-t", "1", "-u", "-l", "64", "-b", "0").End.Sum
		return float64(sum.Packets-sum.Lost) / sum.Seconds / 1e3
	}},
	{"processor time", "s/GB", (*pair).processorTime},
	{"round trip", "ms", func(p *pair) float64 { return p.ping("0.002", "500") }},
	{"round trip, 4 streams beside it", "ms", (*pair).pingUnderLoad},
}

// pair is two hosts, and the address by which the first reaches the second.
type pair struct {
	*cluster
	from *lab.Host
	to   netip.Addr
	both []*lab.Host
}

// report is the part of iperf3's report that is used.
type report struct {
	Error string
	End   struct {
		Received struct {
			Bits float64 `json:"bits_per_second"`
		} `json:"sum_received"`
		Sum struct {
			Packets, Seconds float64
			Lost             float64 `json:"lost_packets"`
		}
	}
}

// iperf runs iperf3, a few times if need be: on a machine that is busy it gives up easily.
func (p *pair) iperf(args ...string) report {
	p.t.Helper()
	var failed error
	for range 5 {
		out, err := p.from.Exec(p.ctx, append([]string{"iperf3", "-J", "-O", "0.3", "-c", p.to.String()}, args...)...)
		var r report
		if jsonErr := json.Unmarshal([]byte(out), &r); err == nil && jsonErr == nil && r.Error == "" {
			return r
		}
		failed = fmt.Errorf("iperf3 %v: %s %w", args, r.Error, err)
	}
	p.t.Fatal(failed)
	return report{}
}

// processorTime returns how long the processors of the machine are busy for each gigabyte of one stream.
func (p *pair) processorTime() float64 {
	const gigabytes = 0.25
	before := busy(p.t)
	p.iperf("-n", "250M", "-O", "0")
	return (busy(p.t) - before) / gigabytes
}

// busy returns for how long the processors have been busy since the machine was booted, in seconds (proc_stat(5)).
func busy(t testing.TB) float64 {
	t.Helper()
	text := must[[]byte](t)(os.ReadFile("/proc/stat"))
	line, _, _ := strings.Cut(string(text), "\n")
	sum := 0.0
	for i, field := range strings.Fields(line)[1:] {
		if n := must[float64](t)(strconv.ParseFloat(field, 64)); i < 8 && i != 3 && i != 4 { // idle, waiting for a disk
			sum += n
		}
	}
	return sum / 100
}

// pingUnderLoad measures the round trip while four streams run.
func (p *pair) pingUnderLoad() float64 {
	p.t.Helper()
	load := must[*lab.Process](p.t)(p.from.Start("load", "iperf3", "-c", p.to.String(), "-t", "30", "-P", "4"))
	defer load.Kill()
	return p.ping("0.01", "100")
}

// ping returns the round trip. At longer intervals than a few milliseconds the processor sleeps in between, and its
// waking hides all else.
func (p *pair) ping(interval, count string) float64 {
	p.t.Helper()
	out := must[string](p.t)(p.from.Exec(p.ctx, "ping", "-q", "-i", interval, "-c", count, p.to.String()))
	_, rest, _ := strings.Cut(out, "min/avg/max/mdev = ")
	fields := strings.Split(rest, "/")
	if len(fields) < 2 {
		p.t.Fatalf("ping: %s", out)
	}
	return must[float64](p.t)(strconv.ParseFloat(fields[1], 64))
}

// newPair starts two hosts with a network of a backend; without one they reach each other by the link, or as the way
// says.
func newPair(b *testing.B, families lab.Families, w way) *pair {
	c := newClusterWith(b, lab.Options{Families: families})
	c.ctx = b.Context() // the rounds take longer than any wait
	hosts := c.hosts(2)
	p := &pair{c, hosts[0], hosts[1].Addr, hosts}
	if families == lab.IPv6 {
		p.to = hosts[1].Addr6
	}
	switch {
	case w.connect != nil:
		p.to = w.connect(b, c, hosts)
	case w.backend != "":
		config := network{"", families}.config()
		c.startAll(hosts, c.etcd(strings.Replace(config, `{"Type":""}`, w.backend, 1)))
		c.pods(hosts...)
		p.to = c.subnets(hosts[1])[0].Addr().Next()
	}
	// Bound, it answers from the address that it is asked at.
	must[*lab.Process](b)(hosts[1].Start("iperf3", "iperf3", "-s", "-B", p.to.String()))
	_, err := p.from.Ping(p.ctx, p.to, lab.PingOptions{})
	c.ok(err)
	c.await(func() error {
		_, err := p.from.Exec(p.ctx, "iperf3", "-J", "-n", "1K", "-c", p.to.String())
		return err
	})
	return p
}

// rounds is how often all is measured; the medians count.
const rounds = 3

// BenchmarkSpeed compares the backends with the bare link between two hosts of the lab, and prints a table. All that is
// compared is measured in turn, so that what else the machine does concerns all of it.
func BenchmarkSpeed(b *testing.B) { speed(b, lab.IPv4, false) }

// BenchmarkSpeedIPv6 is the same over IPv6, the bare link included.
func BenchmarkSpeedIPv6(b *testing.B) { speed(b, lab.IPv6, false) }

// BenchmarkSpeedOfCutPackets has packets of the MTU's size cross the link, as between network cards: the kernel of the
// sender cuts larger ones.
func BenchmarkSpeedOfCutPackets(b *testing.B) { speed(b, lab.IPv4, true) }

func speed(b *testing.B, families lab.Families, cut bool) {
	ways := waysOf(b, families)
	pairs := make([]*pair, len(ways))
	for i, w := range ways {
		pairs[i] = newPair(b, families, w)
		for _, h := range pairs[i].both {
			if cut {
				pairs[i].ok(h.Run("ethtool -K eth0 tso off gso off tx-udp-segmentation off"))
			}
		}
	}
	values := map[[2]int][]float64{}
	for range rounds {
		for m, measure := range measures {
			for w, p := range pairs {
				values[[2]int{w, m}] = append(values[[2]int{w, m}], measure.run(p))
			}
		}
	}
	head, line := "| |", "|---|"
	for _, w := range ways {
		head, line = head+" "+w.name+" |", line+"---|"
	}
	table := head + "\n" + line + "\n"
	for m, measure := range measures {
		table += "| " + measure.name + " |"
		bare := median(values[[2]int{0, m}])
		for w := range ways {
			v := median(values[[2]int{w, m}])
			table += fmt.Sprintf(" %.3g %s (%.2f) |", v, measure.unit, v/bare)
			name := strings.ReplaceAll(ways[w].name+": "+measure.name, " ", "_")
			b.Run(name, func(b *testing.B) {
				b.ReportMetric(v, measure.unit)
				b.ReportMetric(v/bare, "ratio")
				b.ReportMetric(0, "ns/op")
			})
		}
		table += "\n"
	}
	fmt.Print("\n" + table + "\n")
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}
