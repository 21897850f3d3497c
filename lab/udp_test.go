package lab_test

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"flanneld/api"
	"flanneld/lab"
)

// datapath returns the counters of a daemon's datapath.
func (c *cluster) datapath(d *lab.Daemon) map[string]uint64 {
	c.t.Helper()
	_, text, err := d.Get(c.ctx, "/status")
	c.ok(err)
	var s api.Status
	c.ok(json.Unmarshal([]byte(text), &s))
	return s.Datapath
}

// transfer sends bytes over TCP from one namespace to an address in another, and wants them to arrive.
func (c *cluster) transfer(from, to *lab.Namespace, addr netip.Addr, size int) {
	c.t.Helper()
	sent := make([]byte, size)
	_, _ = rand.Read(sent)
	for i := 0; i < size; i += 500 {
		copy(sent[i:], inner)
	}
	l := must[net.Listener](c.t)(to.Listen("tcp", netip.AddrPortFrom(addr, 7777).String()))
	defer l.Close()
	got := make(chan []byte, 1)
	go func() {
		var b []byte
		if conn, err := l.Accept(); err == nil {
			b, _ = io.ReadAll(conn) // what is missing shows
			_ = conn.Close()
		}
		got <- b
	}()
	conn := must[net.Conn](c.t)(from.Dial(c.ctx, "tcp", l.Addr().String()))
	_, err := conn.Write(sent)
	c.ok(errors.Join(err, conn.Close()))
	select {
	case b := <-got:
		if !bytes.Equal(b, sent) {
			c.t.Errorf("%d bytes to %s, %d arrived, or others", len(sent), addr, len(b))
		}
	case <-c.ctx.Done():
		c.t.Fatalf("transfer to %s: %v", addr, c.ctx.Err())
	}
}

func TestUDPBulkAndSmallPacketsArriveUnderEveryOffload(t *testing.T) {
	t.Parallel()
	for _, offload := range []bool{true, false} {
		t.Run(fmt.Sprint("offload ", offload), func(t *testing.T) {
			t.Parallel()
			c := newCluster(t)
			e := c.etcd(fmt.Sprintf(`{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:5::/48","Backend":{"Type":"udp","Offload":%t}}`, offload))
			hosts := c.hosts(2)
			daemons := c.startAll(hosts, e)
			pods := c.pods(hosts...)
			for _, a := range pods[1].Addrs {
				c.transfer(pods[0].Namespace, pods[1].Namespace, a, 20<<20)
			}
			for _, a := range pods[0].Addrs {
				c.transfer(pods[1].Namespace, pods[0].Namespace, a, 20<<20)
			}
			for name, n := range c.datapath(daemons[0]) {
				if strings.HasPrefix(name, "dropped") && !strings.Contains(name, "no lease") && n > 0 {
					t.Errorf("%s: %d", name, n)
				}
			}
		})
	}
}

// TestUDPRestartWithoutAServiceManager restarts a daemon whose files nobody keeps: the device stays, and so do
// connections; packets are lost only while no process reads.
func TestUDPRestartWithoutAServiceManager(t *testing.T) {
	t.Parallel()
	s := newSite(t, network{"udp", lab.IPv4}, 2)
	s.reaches(s.pods[0].Namespace, s.pods[1], lab.PingOptions{}) // both know each other
	l := must[net.Listener](t)(s.pods[1].Listen("tcp", netip.AddrPortFrom(s.pods[1].Addr(), 7).String()))
	defer l.Close()
	go func() {
		if conn, err := l.Accept(); err == nil {
			_, _ = io.Copy(conn, conn) // ends with the connection
		}
	}()
	conn := must[net.Conn](t)(s.pods[0].Dial(s.ctx, "tcp", l.Addr().String()))
	defer conn.Close()
	echo := func() {
		t.Helper()
		_, err := conn.Write([]byte("hello"))
		s.ok(err)
		s.ok(conn.SetReadDeadline(time.Now().Add(patience)))
		_, err = io.ReadFull(conn, make([]byte, 5))
		s.ok(err)
	}
	echo()
	index := must[string](t)(s.hosts[0].Output("ip -o link show flannel0"))[:3]
	pings := s.pinged(s.pods[0], s.pods[1])
	s.ok(s.daemons[0].Stop(s.ctx))
	s.hosts[0].ForgetFiles()
	s.daemons[0] = s.flanneld(s.hosts[0], s.store)
	echo()
	st := pings[0].Stop()
	t.Log(st)
	if now := must[string](t)(s.hosts[0].Output("ip -o link show flannel0"))[:3]; now != index {
		t.Errorf("the device was made anew: number %s, before %s", now, index)
	}
}

func TestUDPTellsHopsAndUnreachableNetworks(t *testing.T) {
	t.Parallel()
	s := newSite(t, network{"udp", lab.IPv4}, 2)
	// both know each other
	s.reaches(s.pods[0].Namespace, s.pods[1], lab.PingOptions{})
	// it fails, which is wanted
	out, _ := s.pods[0].Exec(s.ctx, "ping", "-c", "1", "-W", "2", "-t", "2", s.pods[1].Addr().String())
	if !strings.Contains(out, "Time to live exceeded") {
		t.Errorf("ping with two hops: %s", out)
	}
	_, err := s.pods[0].Dial(s.ctx, "tcp", "10.5.0.9:80") // below SubnetMin
	if err == nil || !strings.Contains(err.Error(), "network is unreachable") &&
		!strings.Contains(err.Error(), "no route to host") {
		t.Errorf("a subnet that nobody leases: %v", err)
	}
}

func TestUDPDropsWhatOutsidersSend(t *testing.T) {
	t.Parallel()
	s := newSite(t, network{"udp", lab.IPv4}, 2)
	before := s.datapath(s.daemons[0])
	outsider := s.host("outsider")
	conn := must[net.Conn](t)(outsider.Dial(s.ctx, "udp", netip.AddrPortFrom(s.hosts[0].Addr, 8285).String()))
	defer conn.Close()
	_, err := conn.Write([]byte{0x45, 0, 0, 20, 19: 1})
	s.ok(err)
	s.await(func() error {
		const name = "dropped: sender is no peer"
		if now := s.datapath(s.daemons[0])[name]; now != before[name]+1 {
			return fmt.Errorf("%s: %d", name, now)
		}
		return nil
	})
}

// TestUDPFitsIntoASmallerPath narrows the path between two hosts: who may not be fragmented is told, TCP adapts, the
// rest is fragmented inside the tunnel.
func TestUDPFitsIntoASmallerPath(t *testing.T) {
	t.Parallel()
	s := newSite(t, network{"udp", lab.Dual}, 2)
	for i, h := range s.hosts {
		other := s.hosts[1-i]
		s.ok(h.Run(fmt.Sprintf("ip route add %s/32 dev eth0 mtu 1400", other.Addr),
			fmt.Sprintf("ip -6 route add %s/128 dev eth0 mtu 1400", other.Addr6)))
	}
	// Until the daemons have heard of the routes, kernels go on to send by the wider path.
	s.await(func() error {
		out, err := s.pods[0].Exec(s.ctx, "ping", "-c", "1", "-W", "1", "-M", "do", "-s", "1400", s.pods[1].Addr().String())
		if told := fmt.Sprint(out, err); !strings.Contains(told, "mtu = 1372") && !strings.Contains(told, "mtu=1372") {
			return fmt.Errorf("a packet that may not be fragmented: %s", told)
		}
		return nil
	})
	for i, a := range s.pods[1].Addrs {
		s.transfer(s.pods[0].Namespace, s.pods[1].Namespace, a, 5<<20)
		s.transfer(s.pods[1].Namespace, s.pods[0].Namespace, s.pods[0].Addrs[i], 5<<20)
	}
	out, err := s.pods[0].Exec(s.ctx, "ping", "-c", "3", "-i", "0.2", "-W", "2", "-M", "dont", "-s", "1400",
		s.pods[1].Addr().String())
	if err != nil {
		t.Errorf("a packet that may be fragmented: %s", out)
	}
}
