package lab_test

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"flanneld/ip"
	"flanneld/lab"
)

// connectByTUN connects two hosts by a VPN: TUN devices, which have no neighbours, and a process that hands over what
// it finds to be for the other end, and drops all else, as a VPN does with addresses that it does not know.
func (c *cluster) connectByTUN(hosts []*lab.Host, ends []netip.Addr) {
	c.t.Helper()
	files := make([]*os.File, len(hosts))
	for i, h := range hosts {
		c.ok(h.Do(func() error {
			fd, err := ip.OpenTUN("tun7", unix.IFF_TUN|unix.IFF_NO_PI)
			if err == nil {
				files[i] = os.NewFile(uintptr(fd), "tun7") // does not block, so that closing it ends a read
			}
			return err
		}))
		c.t.Cleanup(func() { _ = files[i].Close() })
		c.ok(h.Run(fmt.Sprintf("ip addr add %s peer %s dev tun7", ends[i], ends[1-i]), "ip link set tun7 up"))
	}
	for i := range files {
		go func() {
			for b := make([]byte, 64<<10); ; {
				n, err := files[i].Read(b)
				if errors.Is(err, os.ErrClosed) {
					return
				}
				if err != nil || n < 20 || b[0]>>4 != 4 {
					continue
				}
				if to, _ := netip.AddrFromSlice(b[16:20]); to == ends[1-i] {
					_, _ = files[1-i].Write(b[:n])
				}
			}
		}()
	}
}

// With DirectRouting a peer on the same link gets its packets as they are. A VPN drops them: it knows the addresses of
// hosts only.
func TestPeersOverAPointToPointLinkAreReachedByTheTunnel(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	e := c.etcd(strings.Replace(vxlanConfig, `"vxlan"`, `"vxlan","DirectRouting":true`, 1))
	hosts, ends := c.hosts(2), []netip.Addr{netip.MustParseAddr("10.99.0.1"), netip.MustParseAddr("10.99.0.2")}
	c.connectByTUN(hosts, ends)
	for _, h := range hosts {
		c.start(h, e, "-iface", "tun7", "-probe-interval", "200ms")
	}
	for i, h := range hosts {
		c.await(func() error {
			_, err := h.Env()
			return err
		})
		if own := c.subnets(h); len(own) != 1 {
			t.Fatalf("%s has %v", h.Name(), own)
		}
		c.await(func() error { return c.recordNames(e, ends[i]) })
	}
	pods := c.pods(hosts...)
	c.reaches(pods[0].Namespace, pods[1], lab.PingOptions{})
	c.reaches(pods[1].Namespace, pods[0], lab.PingOptions{})
	route := must[string](t)(hosts[0].Output("ip -4 route show " + c.subnets(hosts[1])[0].String()))
	if !strings.Contains(route, "dev flannel.1") {
		t.Errorf("the route of a peer behind a point-to-point link is %q, want one through the tunnel", route)
	}
	if fdb := must[string](t)(hosts[0].Output("bridge fdb show dev flannel.1")); !strings.Contains(fdb, "dst "+
		ends[1].String()) {
		t.Errorf("no entry sends to %s: %s", ends[1], fdb)
	}
}

// recordNames says whether a record has a host's address.
func (c *cluster) recordNames(e *lab.Etcd, a netip.Addr) error {
	records, err := e.Records(c.ctx)
	for _, value := range records {
		if strings.Contains(value, fmt.Sprintf(`"PublicIP":"%s"`, a)) {
			return nil
		}
	}
	return errors.Join(err, fmt.Errorf("no record has the address %s: %v", a, records))
}
