package lab_test

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"flanneld/lab"
)

// BenchmarkConnections compares how many TCP connections a second a pod opens to the outside through our table and
// through a plain rule of iptables, in turns, so that both see the same machine.
func BenchmarkConnections(b *testing.B) {
	c := newCluster(b)
	e := c.etcd(vxlanConfig)
	h, outsider := c.host("host1"), c.host("outsider")
	d := c.flanneld(h, e, "-ip-masq")
	pod := must[*lab.Pod](b)(h.Pod())
	ours := must[string](b)(h.Output("nft list table inet flannel"))
	c.ok(d.Stop(c.ctx)) // the rules stay
	l := must[net.Listener](b)(outsider.Listen("tcp", at(outsider.Addr, 9000).String()))
	defer l.Close()
	go serve(l)

	rules := filepath.Join(h.Dir(), "rules.nft")
	c.ok(os.WriteFile(rules, []byte(ours), 0o600))
	ways := []struct{ name, up, down string }{
		{"flanneld", "nft -f " + rules, "nft delete table inet flannel"},
		{"iptables", "iptables-nft -t nat -A POSTROUTING -s 10.5.0.0/16 ! -d 10.5.0.0/16 -j MASQUERADE --random-fully",
			"iptables-nft -t nat -F POSTROUTING"},
	}
	c.ok(h.Run(ways[0].down))
	const rounds, round = 40, 100 * time.Millisecond
	rates := map[string][]float64{}
	for b.Loop() {
		for range rounds {
			slices.Reverse(ways) // who comes second finds more connections remembered
			for _, w := range ways {
				c.ok(h.Run(w.up))
				rates[w.name] = append(rates[w.name], connections(b, pod.Namespace, at(outsider.Addr, 9000), round))
				c.ok(h.Run(w.down))
			}
		}
	}
	for _, w := range ways {
		b.ReportMetric(best(rates[w.name]), w.name+"-conn/s")
	}
	b.ReportMetric(best(rates["flanneld"])/best(rates["iptables"]), "ratio")
	b.ReportMetric(0, "ns/op") // means nothing here
}

// best returns the ninth decile: what the machine does while nothing else runs on it.
func best(v []float64) float64 {
	slices.Sort(v)
	return v[len(v)*9/10]
}

func serve(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		_ = conn.Close()
	}
}

// connections opens and resets connections for a time, and returns how many there were in a second.
func connections(b *testing.B, from *lab.Namespace, to netip.AddrPort, d time.Duration) float64 {
	var n atomic.Int64
	var wg sync.WaitGroup
	start := time.Now()
	for range 2 {
		wg.Go(func() {
			err := from.Do(func() error {
				for time.Since(start) < d {
					if err := connect(to); err != nil {
						return err
					}
					n.Add(1)
				}
				return nil
			})
			if err != nil {
				b.Error(err)
			}
		})
	}
	wg.Wait()
	return float64(n.Load()) / time.Since(start).Seconds()
}

// connect opens a connection and resets it, so that its port is free at once.
func connect(to netip.AddrPort) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	return errors.Join(
		unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}),
		unix.Connect(fd, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}),
		unix.Close(fd))
}
