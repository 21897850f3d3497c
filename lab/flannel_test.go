//go:build flannel

package lab_test

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"flanneld/api"
	"flanneld/lab"
)

// flannelProgram builds the released flannel, once for all tests, if it is not there.
var flannelProgram = sync.OnceValues(func() (string, error) {
	program := filepath.Join(filepath.Dir(binaries.Flanneld), lab.ReleasedFlannel)
	if _, err := os.Stat(program); err == nil {
		return program, nil
	}
	return program, lab.BuildFlannel(context.Background(), program, "flannel")
})

// migration is a cluster whose hosts run either flannel or flanneld.
type migration struct {
	*cluster
	store  *lab.Etcd
	hosts  []*lab.Host
	pods   []*lab.Pod
	stop   []func() error // by host
	starts int
}

// flannels starts flannel on n hosts, and adds a pod to each.
func flannels(t *testing.T, families lab.Families, config string, n int) *migration {
	t.Helper()
	m := &migration{cluster: newClusterWith(t, lab.Options{Families: families}), stop: make([]func() error, n)}
	ctx, cancel := context.WithTimeout(context.Background(), 3*patience) // six swaps
	t.Cleanup(cancel)
	m.ctx = ctx
	m.store = m.etcd(config)
	m.hosts = m.cluster.hosts(n)
	for i := range m.hosts {
		m.flannel(i)
	}
	m.pods = m.cluster.pods(m.hosts...)
	m.allReachAll()
	return m
}

// flannel starts flannel on a host, and waits until it says that its backend runs.
func (m *migration) flannel(i int) {
	m.t.Helper()
	m.starts++
	program := must[string](m.t)(flannelProgram())
	p := must[*lab.Process](m.t)(m.hosts[i].Start(fmt.Sprintf("flannel%d", m.starts),
		"env", "WIREGUARD_KEY_FILE="+filepath.Join(filepath.Dir(m.hosts[i].SubnetFile()), "wgkey"), program,
		"-etcd-endpoints", m.store.URL(), "-subnet-file", m.hosts[i].SubnetFile(), "-iface", "eth0", "-ip-masq"))
	m.await(func() error {
		select {
		case <-p.Done():
			m.t.Fatalf("flannel has ended:\n%s", p.Log())
		default:
		}
		if !strings.Contains(p.Log(), "Running backend") {
			return fmt.Errorf("flannel does not run:\n%s", p.Log())
		}
		return nil
	})
	m.stop[i] = func() error { return p.Stop(m.ctx) }
}

// flanneld starts our daemon on a host, and waits until it is ready.
func (m *migration) flanneld(i int) {
	m.t.Helper()
	d := m.cluster.flanneld(m.hosts[i], m.store, "-ip-masq", "-probe-interval", "200ms")
	m.stop[i] = func() error {
		err := d.Stop(m.ctx)
		m.hosts[i].ForgetFiles() // as "systemctl stop" does
		return err
	}
}

// allReachAll waits until each pod has had answers from all others.
func (m *migration) allReachAll() {
	m.t.Helper()
	for i, from := range m.pods {
		for j, to := range m.pods {
			if i != j {
				m.reaches(from.Namespace, to, lab.PingOptions{})
			}
		}
	}
}

// swap has a host run the other program while all pods ping each other, and returns the worst stream.
func (m *migration) swap(i int, start func(int)) lab.PingStats {
	m.t.Helper()
	var streams []*lab.Pings
	for a, from := range m.pods {
		for b, to := range m.pods {
			for _, addr := range to.Addrs {
				if a != b {
					streams = append(streams, must[*lab.Pings](m.t)(from.Pings(addr,
						lab.PingOptions{Interval: 20 * time.Millisecond})))
				}
			}
		}
	}
	m.ok(m.stop[i]())
	start(i)
	m.allReachAll()
	m.await(func() error { // a while longer: what the new program still does must not harm either
		if n := streams[0].Stats().Sent; n < 50 {
			return fmt.Errorf("only %d pings", n)
		}
		return nil
	})
	stats := make([]lab.PingStats, len(streams))
	var ends sync.WaitGroup
	for i, s := range streams {
		ends.Go(func() { stats[i] = s.Stop() })
	}
	ends.Wait()
	return slices.MaxFunc(stats, func(a, b lab.PingStats) int { return cmp.Compare(a.Lost(), b.Lost()) })
}

// records returns the records, without their lease.
func (m *migration) records() map[string]string {
	m.t.Helper()
	return must[map[string]string](m.t)(m.store.Records(m.ctx))
}

// swap is a network in which hosts are swapped.
type swap struct {
	name   string
	lab    lab.Families
	config string
	gap    time.Duration // longest time without an answer that docs/migration.md allows; 0: no ping is lost
}

var swaps = []swap{
	{name: "vxlan", lab: lab.IPv4, config: vxlanConfig},
	{name: "vxlan, both families", lab: lab.Dual, config: dualConfig},
	{name: "vxlan, direct", lab: lab.IPv4,
		config: `{"Network":"10.5.0.0/16","SubnetMax":"10.5.199.0","Backend":{"Type":"vxlan","DirectRouting":true}}`},
	{name: "vxlan, nftables", lab: lab.IPv4,
		config: `{"Network":"10.5.0.0/16","SubnetMax":"10.5.199.0","EnableNFTables":true,"Backend":{"Type":"vxlan"}}`},
	{name: "host-gw", lab: lab.IPv4, config: network{"host-gw", lab.IPv4}.config()},
	{name: "host-gw, both families", lab: lab.Dual, config: network{"host-gw", lab.Dual}.config()},
	{name: "udp", lab: lab.IPv4, config: network{"udp", lab.IPv4}.config(), gap: 5 * time.Second},
}

func TestHostsAreSwappedWithARealFlannel(t *testing.T) {
	for _, n := range slices.Concat(swaps, kernelSwaps) {
		t.Run(n.name, func(t *testing.T) {
			m := flannels(t, n.lab, n.config, 3)
			flannels := m.records()
			talks := []*talk{m.talk(m.pods[0].Namespace, m.pods[1].Namespace, m.pods[1].Addr()),
				m.talk(m.pods[2].Namespace, m.Underlay(), underlayAddr)}
			well := func(i int, program string, stats lab.PingStats) {
				t.Helper()
				t.Logf("host%d runs %s: %s", i+1, program, stats)
				if stats.Lost() > 0 && stats.LongestGap > scaled(n.gap) {
					t.Errorf("host%d runs %s: %s", i+1, program, stats)
				}
				m.sameRecords(flannels)
				for _, talk := range talks {
					m.ok(talk.goesOn())
				}
			}
			for i, h := range m.hosts {
				well(i, "flanneld", m.swap(i, m.flanneld))
				if out := m.kernelState(h); strings.Contains(out, "FLANNEL-") || strings.Contains(out, "flannel-ipv4") {
					t.Errorf("rules of flannel are left:\n%s", out)
				}
			}
			m.allWell(n.name == "vxlan, both families")
			for i, h := range m.hosts {
				well(i, "flannel", m.swap(i, func(i int) {
					if n.name == "udp" {
						m.ok(h.Run("ip link del flannel0"))
					}
					m.flannel(i)
				}))
				m.ok(h.Run("nft delete table inet flannel"))
				m.allReachAll()
				m.ok(talks[1].goesOn())
			}
			if got := m.records(); !maps.Equal(got, flannels) {
				t.Errorf("the records are %q, want those from before the first swap: %q", got, flannels)
			}
			m.forgets(m.hosts[0], m.hosts[1])
		})
	}
}

// forgets checks that flannel drops the routes to a host that has left, which were ours once.
func (m *migration) forgets(h, gone *lab.Host) {
	m.t.Helper()
	m.ok(m.stop[slices.Index(m.hosts, gone)]())
	m.ok(m.store.Delete(m.ctx, "subnets/"+m.keyOf(gone)))
	for _, p := range m.subnets(gone) {
		m.await(func() error {
			out, err := h.Output(fmt.Sprintf("ip route show %s", p))
			if err == nil && out != "" {
				err = fmt.Errorf("the route to a host that has left is still there: %s", out)
			}
			return err
		})
	}
}

// allWell waits until all hosts, which run our daemon, are. bridges is whether flannel's containers have too large an
// MTU.
func (m *migration) allWell(bridges bool) {
	m.t.Helper()
	for _, h := range m.hosts {
		if bridges {
			m.find(m.t.(*testing.T), h, fault{name: "flannel's MTU on the bridge", check: "bridge-mtu", says: "1450",
				fixes: true, inject: func() error { return nil }})
		}
		m.healthy(h)
		m.await(func() error {
			s := ctlJSON[api.Status](m.cluster, h, "status")
			if s.Peers != (len(m.hosts)-1)*len(s.Subnets) || s.Failing != 0 {
				return fmt.Errorf("%d peers, %d failing", s.Peers, s.Failing)
			}
			return nil
		})
	}
}

// underlayAddr is the address of the network's gateway, outside the overlay.
var underlayAddr = netip.MustParseAddr("198.18.0.1")

// sameRecords compares the records with those of flannel: the same keys, and the same bytes up to the fields that only
// we write.
func (m *migration) sameRecords(flannels map[string]string) {
	m.t.Helper()
	now := m.records()
	if !slices.Equal(slices.Sorted(maps.Keys(now)), slices.Sorted(maps.Keys(flannels))) {
		m.t.Errorf("the subnets are %q, want %q", slices.Sorted(maps.Keys(now)), slices.Sorted(maps.Keys(flannels)))
	}
	for key, record := range flannels {
		if !strings.HasPrefix(now[key], strings.TrimSuffix(record, "}")) {
			m.t.Errorf("the record is %s, want flannel's %s", now[key], record)
		}
	}
}

// counters are those of iptables-save.
var counters = regexp.MustCompile(`\[\d+:\d+\]`)

func TestCleanupTakesARealFlannelAway(t *testing.T) {
	for name, config := range map[string]string{
		"vxlan": network{"vxlan", lab.Dual}.config(), "host-gw": network{"host-gw", lab.Dual}.config(),
		"udp":             network{"udp", lab.IPv4}.config(),
		"vxlan, nftables": `{"Network":"10.5.0.0/16","SubnetMax":"10.5.199.0","EnableIPv6":true,"IPv6Network":"fd00:5::/48","EnableNFTables":true,"Backend":{"Type":"vxlan"}}`,
	} {
		t.Run(name, func(t *testing.T) {
			families := lab.Dual
			if name == "udp" {
				families = lab.IPv4
			}
			m := flannels(t, families, config, 2)
			h := m.host("host3")
			m.ok(h.Run("iptables-nft -P FORWARD ACCEPT", "iptables-nft -t nat -P POSTROUTING ACCEPT",
				"ip6tables-nft -P FORWARD ACCEPT", "ip6tables-nft -t nat -P POSTROUTING ACCEPT"))
			before := counters.ReplaceAllString(m.hostState(h), "")
			m.hosts, m.stop = append(m.hosts, h), append(m.stop, nil)
			m.flannel(2)
			m.await(func() error {
				out, err := h.Output("ip route show")
				if err == nil && name != "udp" && strings.Count(out, "10.5.") < 2 {
					err = fmt.Errorf("no routes to the peers yet:\n%s", out)
				}
				return err
			})
			during := m.hostState(h)
			m.ok(m.stop[2]())
			out := m.ctlOK(h, "cleanup", "--flannel")
			if got := counters.ReplaceAllString(m.hostState(h), ""); got != before {
				t.Errorf("before flannel:\n%s\nwith flannel:\n%s\nafter cleanup (%s):\n%s", before, during, out, got)
			}
		})
	}
}
