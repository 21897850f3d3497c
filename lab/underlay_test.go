package lab_test

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"flanneld/lab"
)

// eventually waits until a command on a host prints a text.
func (c *cluster) eventually(h *lab.Host, command, want string) {
	c.t.Helper()
	c.await(func() error {
		out, err := h.Output(command)
		if err == nil && !strings.Contains(out, want) {
			err = fmt.Errorf("%s: %q, want %q in it", command, out, want)
		}
		return err
	})
}

// plug gives a host another interface on the underlay.
func plug(c *cluster, h *lab.Host, link, port string, options ...string) {
	c.t.Helper()
	c.ok(c.Underlay().Run(
		fmt.Sprintf("ip link add %s type veth peer name %s netns %s %s", port, link, h.Name(), strings.Join(options, " ")),
		fmt.Sprintf("ip link set %s master br0 up", port),
	))
}

func TestDirectRoutesFollowTheUnderlayLive(t *testing.T) {
	t.Parallel()
	for _, families := range []lab.Families{lab.IPv4, lab.IPv6, lab.Dual} {
		n := network{"vxlan", families}
		t.Run(n.String(), func(t *testing.T) {
			t.Parallel()
			underlayIsFollowed(newSiteWith(t, n, strings.Replace(n.config(), `"vxlan"`, `"vxlan","DirectRouting":true`, 1), 2))
		})
	}
}

// configure gives the interface of a host its addresses and its default routes.
func configure(h *lab.Host) error {
	commands := []string{"ip link set eth0 up"}
	if h.Addr.IsValid() {
		commands = append(commands, "ip addr replace "+h.Addr.String()+"/16 dev eth0",
			"ip route replace default via 198.18.0.1")
	}
	if h.Addr6.IsValid() {
		commands = append(commands, "ip addr replace "+h.Addr6.String()+"/64 dev eth0 nodad",
			"ip route replace default via fd00:18::1")
	}
	return h.Run(commands...)
}

// readdress moves a host to other addresses. A family that it does not have stays away.
func readdress(h *lab.Host, next4, next6 netip.Addr) error {
	old := []string{}
	if h.Addr.IsValid() {
		old, h.Addr = append(old, "ip addr del "+h.Addr.String()+"/16 dev eth0"), next4
	}
	if h.Addr6.IsValid() {
		old, h.Addr6 = append(old, "ip addr del "+h.Addr6.String()+"/64 dev eth0"), next6
	}
	// The default routes go with the addresses that they were made by.
	return errors.Join(configure(h), h.Run(old...), configure(h))
}

// underlayIsFollowed changes the interface of a host under its daemon.
func underlayIsFollowed(s *site) {
	h, macs := s.hosts[0], s.macs(s.hosts[0])
	home4, home6 := h.Addr, h.Addr6
	moved := func(s *site) {
		for _, a := range []netip.Addr{h.Addr, h.Addr6} {
			if a.IsValid() {
				s.recordAwaited(s.store, h, `"`+a.String()+`"`)
			}
		}
		for _, p := range s.subnets(h) {
			at := "local " + h.AddrOf(p.Addr()).String()
			switch dev := s.device(p.Addr()); s.backend {
			case "vxlan":
				s.eventually(h, "ip -d link show "+dev, at+" dev eth0")
			case "ipip":
				s.eventually(h, "ip -d link show "+dev, at)
			}
		}
	}
	resized := func(underlay int) func(s *site) {
		return func(s *site) {
			s.eventually(h, "cat "+h.SubnetFile(), fmt.Sprintf("FLANNEL_MTU=%d\n", s.mtu()-1500+underlay))
			for _, p := range s.subnets(h) {
				if dev := s.device(p.Addr()); s.tunnels() {
					s.eventually(h, "ip link show "+dev, fmt.Sprintf(" mtu %d ", s.deviceMTU(p.Addr())-1500+underlay))
				}
			}
		}
	}
	for _, step := range []struct {
		name   string
		change func() error
		check  func(s *site)
	}{
		{"link down and up", func() error { return errors.Join(h.Run("ip link set eth0 down"), configure(h)) },
			func(*site) {}},
		{"interface deleted and made again under its name", func() error {
			mac := strings.Fields(must[string](s.t)(h.Output("ip -br link show eth0")))[2]
			if err := h.Run("ip link del eth0"); err != nil {
				return err
			}
			plug(s.cluster, h, "eth0", "again0", "address", mac) // as a driver does that is loaded again
			return configure(h)
		}, func(*site) {}},
		{"MTU changed", func() error { return h.Run("ip link set eth0 mtu 1400") }, resized(1400)},
		{"MTU changed back", func() error { return h.Run("ip link set eth0 mtu 1500") }, resized(1500)},
		{"address changed", func() error {
			return readdress(h, netip.MustParseAddr("198.18.77.7"), netip.MustParseAddr("fd00:18::77:7"))
		}, moved},
		{"address changed back", func() error { return readdress(h, home4, home6) }, moved},
	} {
		s.sub(step.name, func(s *site) {
			s.ok(step.change())
			start := time.Now()
			step.check(s)
			s.connected()
			took := time.Since(start)
			s.t.Logf("traffic in both directions %s after the end of the change", took.Round(time.Millisecond))
			s.inTime("the change", took, noticed+slack)
			if got := s.macs(h); !slices.Equal(got, macs) {
				s.t.Errorf("hardware addresses %s, before %s", got, macs)
			}
		})
	}
}

func TestAMovedDefaultRouteMovesTheUnderlay(t *testing.T) {
	t.Parallel()
	inEachFamily(t, defaultRouteMovesTheUnderlay)
}

func defaultRouteMovesTheUnderlay(t *testing.T, n network) {
	s := newSite(t, n, 2)
	h, home := s.hosts[0], underlayOf(s.hosts[0])
	ip, router, second, next, bits, metric := "ip -4", "198.18.0.1", "198.19.0.1", "198.19.0.7", "/16", "0"
	if n.families == lab.IPv6 {
		ip, router, second, next, bits, metric = "ip -6", "fd00:18::1", "fd00:19::1", "fd00:19::7", "/64", "1024"
	}
	s.ok(s.Underlay().Run("ip addr add " + second + bits + " dev br0"))
	s.ok(errors.Join(s.Underlay().Sysctl("net/ipv4/ip_forward", "1"),
		s.Underlay().Sysctl("net/ipv6/conf/all/forwarding", "1")))
	s.connected()
	plug(s.cluster, h, "eth1", "second0")
	s.ok(h.Run("ip addr add "+next+bits+" dev eth1", "ip link set eth1 up"))
	// As a DHCP client does it: with a metric, and the better one wins.
	s.ok(h.Run(ip+" route add default via "+router+" metric 2000", ip+" route del default via "+router+" metric "+metric,
		ip+" route add default via "+second+" metric 1500"))
	dev := n.devices()[0]
	s.eventually(h, "ip -d link show "+dev, "local "+next+" dev eth1")
	s.eventually(s.hosts[1], "bridge fdb show dev "+dev, "dst "+next)
	s.connected()
	s.ok(h.Run(ip + " route del default via " + second + " metric 1500"))
	s.eventually(h, "ip -d link show "+dev, "local "+home+" dev eth0")
	s.connected()
}

func TestDirectRoutesFollowTheRoutes(t *testing.T) {
	t.Parallel()
	inEachFamily(t, directRoutesFollowTheRoutes)
}

func directRoutesFollowTheRoutes(t *testing.T, n network) {
	s := newSiteWith(t, n, strings.Replace(n.config(), `"vxlan"`, `"vxlan","DirectRouting":true`, 1), 2)
	s.ok(errors.Join(s.Underlay().Sysctl("net/ipv4/ip_forward", "1"),
		s.Underlay().Sysctl("net/ipv6/conf/all/forwarding", "1")))
	s.connected()
	h, peer, to := s.hosts[0], s.subnets(s.hosts[1])[0], underlayOf(s.hosts[1])
	show, detour := "ip -4 route show "+peer.String(), to+"/32 via 198.18.0.1"
	if n.families == lab.IPv6 {
		show, detour = "ip -6 route show "+peer.String(), to+"/128 via fd00:18::1"
	}
	straight, tunnel := "via "+to+" dev eth0 proto 70", "dev "+n.devices()[0]+" proto 70"
	s.eventually(h, show, straight)
	if out := must[string](t)(h.Output("bridge fdb show dev " + n.devices()[0])); strings.Contains(out, to) {
		t.Errorf("a peer on the link has a forwarding entry: %s", out)
	}
	s.ok(h.Run("ip route add " + detour))
	s.eventually(h, show, tunnel)
	s.connected()
	s.ok(h.Run("ip route del " + detour))
	s.eventually(h, show, straight)
	s.connected()
}

// Slow: fifteen restarts of daemons, and after each one all of the kernel is looked at.
func TestTheBackendIsChangedHostByHostWithoutLeftovers(t *testing.T) {
	t.Parallel()
	inEachFamily(t, backendIsChangedHostByHost)
}

func backendIsChangedHostByHost(t *testing.T, n network) {
	const other = `"vxlan","VNI":7,"Port":4789`
	c := newClusterWith(t, lab.Options{Families: n.families})
	e := c.etcd(n.config())
	hosts := c.hosts(3)
	daemons := c.startAll(hosts, e, "-ip-blackhole-route")
	pods := c.pods(hosts...)
	for _, backend := range []string{`"host-gw"`, other, `"wireguard"`, `"alloc"`, `"vxlan"`} {
		c.ok(e.Put(c.ctx, "config", strings.Replace(n.config(), `"vxlan"`, backend, 1)))
		for i, h := range hosts {
			daemons[i] = c.restartedTo(h, daemons[i], e, backend)
			c.wantNoLeftovers(h, n, backend)
			undisturbed(c.t, daemons[i])
		}
		if backend == `"alloc"` {
			continue
		}
		for i, from := range pods {
			c.reaches(from.Namespace, pods[(i+1)%len(pods)], lab.PingOptions{})
		}
	}
	// Once a peer's routes have followed, too, nothing of the old ones is left.
	for _, h := range hosts {
		if routes := must[string](t)(n.ourRoutes(h)); strings.Count(routes, "\n") != 3 {
			t.Errorf("routes of ours, want two to peers and a blackhole:\n%s", routes)
		}
	}
}

// restartedTo restarts a daemon after a change of its backend. One that has waited a second for the store goes on with
// the former backend and says so; it is restarted once more, as the documentation says.
func (c *cluster) restartedTo(h *lab.Host, d *lab.Daemon, e *lab.Etcd, backend string) *lab.Daemon {
	c.t.Helper()
	for pending := "yes"; pending != ""; {
		c.ok(d.Stop(c.ctx))
		d = c.flanneld(h, e, "-ip-blackhole-route")
		c.await(func() error {
			s := statusOf(c.t, c, d)
			if pending = s.Pending; pending == "" && !strings.HasPrefix(backend, strconv.Quote(s.Backend)) {
				return fmt.Errorf("the backend is %s, want %s, and no restart is pending", s.Backend, backend)
			}
			return nil
		})
	}
	return d
}

// ourRoutes returns those in a network of one family.
func (n network) ourRoutes(h *lab.Host) (string, error) {
	if n.families == lab.IPv6 {
		return h.Output("ip -6 route show proto 70")
	}
	return h.Output("ip -4 route show proto 70")
}

// wantNoLeftovers looks for what other backends have.
func (c *cluster) wantNoLeftovers(h *lab.Host, n network, backend string) {
	c.t.Helper()
	device := n.devices()[0]
	c.await(func() error {
		links, err := h.Output("ip -br link")
		if err != nil {
			return err
		}
		routes, err := n.ourRoutes(h)
		if err != nil {
			return err
		}
		for device, mine := range map[string]bool{
			device: backend == `"vxlan"`, strings.Replace(device, ".1", ".7", 1): strings.Contains(backend, `"VNI":7`),
			"eth0":       backend == `"host-gw"`,
			"flannel-wg": backend == `"wireguard"`, // and flannel-wg-v6
		} {
			if strings.Contains(routes, "dev "+device) && !mine {
				return fmt.Errorf("under %s: routes by %s:\n%s", backend, device, routes)
			}
			if device != "eth0" && strings.Contains(links, device) != mine {
				return fmt.Errorf("under %s: links:\n%s", backend, links)
			}
		}
		if n := strings.Count(routes, "blackhole"); n != 1 {
			return fmt.Errorf("%d blackholes:\n%s", n, routes)
		}
		return nil
	})
}
