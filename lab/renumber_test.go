package lab_test

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv6"

	"flanneld/lab"
)

// router sends router advertisements (RFC 4861, section 4.2) on the underlay, as short after another as a test is
// patient.
type router struct {
	mu       sync.Mutex // guards all below
	prefixes []advertised
}

// advertised is a prefix that hosts shall make addresses of (RFC 4861, section 4.6.2).
type advertised struct {
	prefix    netip.Prefix
	preferred time.Duration // 0: deprecated
}

const routerPeriod = 100 * time.Millisecond

func (r *router) set(prefixes ...advertised) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.prefixes = prefixes
}

// message returns the advertisement that is due.
func (r *router) message() ([]byte, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	body := []byte{64, 0}                            // hop limit, flags
	body = binary.BigEndian.AppendUint16(body, 1800) // lifetime as a default router, in seconds
	body = append(body, 0, 0, 0, 0, 0, 0, 0, 0)      // reachable time, retransmission timer: unspecified
	for _, p := range r.prefixes {
		const onLink, autonomous = 0x80, 0x40
		body = append(body, 3, 4, byte(p.prefix.Bits()), onLink|autonomous) // prefix information, in units of eight bytes
		body = binary.BigEndian.AppendUint32(body, 7200)
		body = binary.BigEndian.AppendUint32(body, uint32(p.preferred/time.Second))
		body = append(append(body, 0, 0, 0, 0), p.prefix.Addr().AsSlice()...)
	}
	m := icmp.Message{Type: ipv6.ICMPTypeRouterAdvertisement, Body: &icmp.RawBody{Data: body}}
	return m.Marshal(nil)
}

// startRouter advertises from the underlay's bridge until the test ends.
func startRouter(t *testing.T, n *lab.Namespace) *router {
	t.Helper()
	r := &router{}
	var conn *icmp.PacketConn
	var link *net.Interface
	err := n.Do(func() (err error) {
		if link, err = net.InterfaceByName("br0"); err != nil {
			return err
		}
		if conn, err = icmp.ListenPacket("ip6:ipv6-icmp", "::"); err != nil {
			return err
		}
		p := conn.IPv6PacketConn()
		// who is not on the link cannot send 255
		return errors.Join(p.SetMulticastInterface(link), p.SetMulticastHopLimit(255))
	})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	var sender sync.WaitGroup
	sender.Go(func() {
		ticks := time.NewTicker(routerPeriod)
		defer ticks.Stop()
		for {
			b, err := r.message()
			if err == nil {
				_, err = conn.WriteTo(b, &net.IPAddr{IP: net.ParseIP("ff02::1"), Zone: link.Name})
			}
			if err != nil {
				t.Logf("router advertisement not sent: %v", err)
			}
			select {
			case <-done:
				return
			case <-ticks.C:
			}
		}
	})
	t.Cleanup(func() {
		close(done)
		sender.Wait()
		_ = conn.Close()
	})
	return r
}

// routedHosts are two hosts, ready, whose IPv6 addresses come from a router; by IPv4 they reach the store.
func (c *cluster) routedHosts(e *lab.Etcd) ([]*lab.Host, []*lab.Daemon) {
	c.t.Helper()
	hosts, daemons := make([]*lab.Host, 2), make([]*lab.Daemon, 2)
	for i, name := range []string{"host1", "host2"} {
		h := must[*lab.Host](c.t)(c.HostOf(name, lab.IPv4))
		// As a host is until its container runtime makes it a router, with addresses that change every day beside the stable
		// ones.
		c.ok(errors.Join(h.Sysctl("net/ipv6/conf/all/forwarding", "0"), h.Sysctl("net/ipv6/conf/eth0/accept_ra", "1"),
			h.Sysctl("net/ipv6/conf/eth0/use_tempaddr", "2")))
		hosts[i], daemons[i] = h, c.start(h, e, "-iface", "eth0", "-ip-forward")
	}
	c.ok(lab.Ready(c.ctx, daemons...))
	return hosts, daemons
}

// keepsWhatTheRouterGave looks at a host on which the daemon has turned forwarding on.
func (c *cluster) keepsWhatTheRouterGave(h *lab.Host) {
	c.t.Helper()
	for dev, want := range map[string]string{"eth0": "2", "flannel-v6.1": "0"} {
		if ra := strings.TrimSpace(must[string](c.t)(h.Output("cat /proc/sys/net/ipv6/conf/" + dev +
			"/accept_ra"))); ra != want {
			c.t.Errorf("accept_ra of %s is %s, want %s", dev, ra, want)
		}
	}
	if out := must[string](c.t)(h.Output("ip -6 route show default")); !strings.Contains(out, "proto ra") {
		c.t.Errorf("the default route of the router is gone: %q", out)
	}
}

func TestARouterThatRenumbersTheUnderlayLosesNoPacket(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	e := c.etcd(network{"vxlan", lab.IPv6}.config())
	r := startRouter(t, c.Underlay())
	old, next := netip.MustParsePrefix("2001:db8:1::/64"), netip.MustParsePrefix("2001:db8:2::/64")
	r.set(advertised{old, time.Hour})
	hosts, daemons := c.routedHosts(e)
	for _, h := range hosts {
		c.keepsWhatTheRouterGave(h)
		c.recordAwaited(e, h, `"`+stable(t, h, old)+`"`)
	}
	pods := c.pods(hosts...)
	c.reaches(pods[0].Namespace, pods[1], lab.PingOptions{})
	pings := append(c.pinged(pods[0], pods[1]), c.pinged(pods[1], pods[0])...)

	r.set(advertised{old, 0}, advertised{next, time.Hour})
	for _, h := range hosts {
		c.await(func() error {
			if stable(t, h, next) == "" {
				return errors.New("no address of the new prefix yet")
			}
			return nil
		})
		c.recordAwaited(e, h, `"`+stable(t, h, next)+`"`)
	}
	for i, h := range hosts { // the peers have followed
		c.await(func() error {
			out, err := h.Output("bridge fdb show dev flannel-v6.1")
			if err == nil && !strings.Contains(out, stable(t, hosts[1-i], next)) {
				err = errors.New("the tunnel still leads to the old address")
			}
			return err
		})
	}
	for _, h := range hosts { // and packets come from the new one: the old addresses are not needed any more
		c.await(func() error {
			out, err := h.Output("ip -d link show flannel-v6.1")
			if err == nil && !strings.Contains(out, "local "+stable(t, h, next)) {
				err = errors.New("the tunnel still sends from the old address")
			}
			return err
		})
	}
	r.set(advertised{next, time.Hour})
	for _, h := range hosts {
		c.ok(h.Run("ip addr del " + stable(t, h, old) + "/64 dev eth0"))
	}
	c.nothingLost("renumbering", pings)
	for i, d := range daemons { // one choice at the start, one for the peers, one for the packets
		if n := strings.Count(d.Log(), "underlay chosen"); n > 3 {
			t.Errorf("host %d: %d choices of the underlay, want 3:\n%s", i+1, n, d.Log())
		}
	}
}

// stable returns the address that the host has made of a prefix, not the temporary one; empty: none yet.
func stable(t *testing.T, h *lab.Host, prefix netip.Prefix) string {
	t.Helper()
	for line := range strings.Lines(must[string](t)(h.Output("ip -6 -o addr show dev eth0 -temporary"))) {
		for _, word := range strings.Fields(line) {
			if p, err := netip.ParsePrefix(word); err == nil && prefix.Contains(p.Addr()) &&
				!strings.Contains(line, "tentative") {
				return p.Addr().String()
			}
		}
	}
	return ""
}
