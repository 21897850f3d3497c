package lab_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"flanneld/ip"
	"flanneld/lab"
	"flanneld/subnet"
)

// migrates moves a network to a backend from a host.
func (c *cluster) migrates(h *lab.Host, to string) {
	c.t.Helper()
	start := time.Now()
	out := c.ctlOK(h, "network", "migrate", "--to", to, "--pause", "2s", "--timeout", moveTime().String())
	c.t.Logf("to %s in %s\n%s", to, time.Since(start).Round(time.Second), out)
}

// meshed has a pod of each host ping those of all others, with packets as large as pods may send.
func (c *cluster) meshed(pods []*lab.Pod) (all []*lab.Pings) {
	c.t.Helper()
	return c.meshedEvery(pods, 0)
}

// meshedEvery has them ping at an interval, 0: the usual one.
func (c *cluster) meshedEvery(pods []*lab.Pod, interval time.Duration) (all []*lab.Pings) {
	c.t.Helper()
	full := lab.PingOptions{Interval: interval, Size: must[subnet.Env](c.t)(pods[0].Host.Env()).MTU}
	for i, from := range pods { // a host is ready before it knows all others
		for j, to := range pods {
			if i != j {
				c.reaches(from.Namespace, to, lab.PingOptions{})
			}
		}
	}
	for i, from := range pods {
		for j, to := range pods {
			for _, a := range to.Addrs {
				if i != j {
					all = append(all, must[*lab.Pings](c.t)(from.Pings(a, full)))
				}
			}
		}
	}
	return all
}

// moveHosts is how many hosts the network has that moves from backend to backend: all pods ping all others, 100 times a
// second in each family. On two processors, 10 hosts take some minutes ("make test-moves").
var moveHosts = flag.Int("move.hosts", 3, "number of hosts that move from backend to backend")

// moveTime bounds each wait of a move, and each move.
func moveTime() time.Duration { return patience * time.Duration(1+*moveHosts/4) }

// moveInterval is that of pings during a move. Where a kernel without WireGuard has the daemons encrypt, many hosts on
// few processors cannot carry 100 packets a second from each to each: all pings together are at most 2,400 a second.
func moveInterval(from, to string) time.Duration {
	const usual, most = 10 * time.Millisecond, 2400
	has, _ := ip.HasWireGuard()
	if has || !strings.Contains(from+to, "wireguard") {
		return usual
	}
	flows := 2 * *moveHosts * (*moveHosts - 1)
	return max(usual, time.Second*time.Duration(flows)/most)
}

// TestANetworkMovesFromBackendToBackendWithoutLosingAPacket pings with full packets all the time, and keeps TCP
// connections: the MTU grows and shrinks under them.
//
// Slow: five moves, each of which waits several times until all hosts have followed.
func TestANetworkMovesFromBackendToBackendWithoutLosingAPacket(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	e := c.etcd(dualConfig)
	hosts := c.hosts(*moveHosts)
	daemons := c.startAll(hosts, e)
	defer func() {
		for i, d := range daemons {
			if t.Failed() {
				t.Logf("daemon %d:\n%s", i, d.Log())
			}
		}
	}()
	pods := must[[]*lab.Pod](t)(lab.Pods(hosts...))
	var talks []*talk
	for _, a := range pods[1].Addrs {
		talks = append(talks, c.talk(pods[0].Namespace, pods[1].Namespace, a))
	}
	from := `{"Type":"vxlan"}`
	for i, to := range []string{
		`{"Type":"host-gw"}`, `{"Type":"udp"}`, `{"Type":"wireguard"}`, `{"Type":"vxlan"}`, `{"Type":"vxlan","VNI":2}`,
		narrowVXLAN,
	} {
		ctx, cancel := context.WithTimeout(t.Context(), moveTime())
		defer cancel()
		c.ctx = ctx
		if strings.Contains(to, "wireguard") {
			c.losesHandshakes(hosts[1])
		}
		pings, tooBig := c.meshedEvery(pods, moveInterval(from, to)), c.tooBig(pods)
		c.migrates(hosts[i%len(hosts)], to)
		c.onlyTooBigLost("the move to "+to, pings, func() int { return c.tooBig(pods) - tooBig })
		for _, each := range talks {
			c.ok(each.goesOn())
		}
		for _, h := range hosts {
			c.await(func() error { return c.alone(h, to) })
		}
		from = to
	}
	for _, h := range hosts {
		c.await(func() error {
			if env, err := h.Env(); err != nil || env.MTU != 1400-70 {
				return fmt.Errorf("MTU %d in subnet.env, %v", env.MTU, err)
			}
			return nil
		})
	}
	for i, d := range daemons {
		if n := strings.Count(d.Log(), "starting flanneld"); n != 1 {
			t.Errorf("daemon %d was started %d times", i, n)
		}
		undisturbed(t, d)
	}
}

// tooBig returns how many packets of pods were answered with an MTU that fits.
func (c *cluster) tooBig(pods []*lab.Pod) (n int) {
	c.t.Helper()
	for _, p := range pods {
		for _, counter := range []string{"IcmpInDestUnreachs", "Icmp6InPktTooBigs"} {
			out := must[string](c.t)(p.Output("nstat -asz " + counter))
			n += must[int](c.t)(strconv.Atoi(strings.Fields(out[strings.Index(out, counter):])[1]))
		}
	}
	return n
}

// onlyTooBigLost wants nothing to be lost but what was answered as too large: one packet of a flow each way, or those
// that were on their way before the answer.
func (c *cluster) onlyTooBigLost(what string, pings []*lab.Pings, tooBig func() int) {
	c.t.Helper()
	for _, p := range pings {
		so := p.Stats().Received
		c.await(func() error {
			if p.Stats().Received < so+20 {
				return errors.New("waiting for answers")
			}
			return nil
		})
	}
	stats, lost := make([]lab.PingStats, len(pings)), 0
	var stops sync.WaitGroup
	end := time.Now()
	for i, p := range pings {
		stops.Go(func() { stats[i] = p.Stop() })
	}
	stops.Wait()
	for i, st := range stats {
		lost += st.Lost()
		if n := len(st.LostAt); n > 0 {
			first, last := st.LostAt[0], st.LostAt[n-1]
			c.t.Logf("%s: %s lost %d pings, the first of %s, the last of %s, %s before the end", what, pings[i], n,
				first.Format(time.StampMilli), last.Format(time.StampMilli), end.Sub(last))
		}
	}
	if n := tooBig(); lost > n {
		c.t.Errorf("%s: %d pings lost, %d answered as too big", what, lost, n)
	}
}

// narrowVXLAN is a backend with a smaller MTU than the one before it.
const narrowVXLAN = `{"Type":"vxlan","VNI":2,"MTU":1400}`

// losesHandshakes drops the first packets of WireGuard that arrive at a host. The protocol sends them again after 5 s.
func (c *cluster) losesHandshakes(h *lab.Host) {
	c.ok(h.Run("nft add table inet lost", "nft add chain inet lost in { type filter hook input priority -300; }"))
	for _, port := range []string{"51820", "51821"} {
		c.ok(h.Run("nft add rule inet lost in udp dport " + port + " quota until 600 bytes drop"))
	}
}

// alone wants a host to have the devices of one backend only.
func (c *cluster) alone(h *lab.Host, backend string) error {
	out, err := h.Output("ip -o link show")
	if err != nil {
		return err
	}
	want := map[string][]string{
		`{"Type":"host-gw"}`: nil, `{"Type":"udp"}`: {"flannel0"}, `{"Type":"wireguard"}`: {"flannel-wg", "flannel-wg-v6"},
		`{"Type":"vxlan"}`: {"flannel.1", "flannel-v6.1"}, `{"Type":"vxlan","VNI":2}`: {"flannel.2", "flannel-v6.2"},
		narrowVXLAN: {"flannel.2", "flannel-v6.2"},
	}[backend]
	if n := strings.Count(out, ": flannel"); n != len(want) {
		return fmt.Errorf("%d devices, want %q:\n%s", n, want, out)
	}
	for _, name := range want {
		if !strings.Contains(out, ": "+name+":") {
			return fmt.Errorf("no device %s:\n%s", name, out)
		}
	}
	return nil
}
