package lab_test

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"flanneld/api"
	"flanneld/lab"
)

// finding is what doctor says about one check.
type finding struct {
	Check    string `json:"check"`
	Result   string `json:"result"`
	Evidence string `json:"evidence"`
	Fix      string `json:"fix"`
	Fixed    string `json:"fixed"`
}

// doctor runs flannelctl doctor, whatever it finds.
func (c *cluster) doctor(h *lab.Host, args ...string) []finding {
	c.t.Helper()
	args = append([]string{"env", "FLANNELD_ETCD_PASSWORD=secret", binaries.Flannelctl, "doctor", "--json",
		"--subnet-file", h.SubnetFile(), "--state-dir", h.StateDir()}, args...)
	out, err := h.Exec(context.Background(), args...)
	var f []finding
	if json.Unmarshal([]byte(out), &f) != nil {
		c.t.Fatalf("doctor prints no JSON (%v):\n%s", err, out)
	}
	return f
}

// healthy waits until doctor raises nothing.
func (c *cluster) healthy(h *lab.Host, args ...string) {
	c.t.Helper()
	c.await(func() error {
		for _, f := range c.doctor(h, args...) {
			if f.Result != "ok" && f.Result != "skipped" {
				return fmt.Errorf("doctor raises %+v on a healthy cluster", f)
			}
		}
		return nil
	})
}

// fault is one thing that goes wrong.
type fault struct {
	name   string
	check  string // that must find it
	says   string // part of the evidence
	inject func() error
	undo   func() error
	fixes  bool // doctor --fix repairs it
	args   []string
}

// find injects a fault, waits until doctor finds it, and repairs it.
func (c *cluster) find(t *testing.T, h *lab.Host, f fault) {
	t.Run(f.name, func(t *testing.T) {
		c := &cluster{c.Lab, t, c.ctx}
		c.ok(f.inject())
		c.await(func() error {
			for _, r := range c.doctor(h, f.args...) {
				if r.Check == f.check && (r.Result == "failure" || r.Result == "warning") && strings.Contains(r.Evidence, f.says) {
					return nil
				}
			}
			return fmt.Errorf("doctor does not find %s: %+v", f.name, c.doctor(h, f.args...))
		})
		if f.fixes {
			i := slices.IndexFunc(c.doctor(h, append(f.args, "--fix")...),
				func(r finding) bool { return r.Check == f.check && r.Fixed == "done" })
			if i < 0 {
				t.Errorf("doctor --fix does not repair %s", f.name)
			}
			for _, r := range c.doctor(h, f.args...) {
				if r.Check == f.check && r.Result != "ok" {
					t.Errorf("after --fix: %+v", r)
				}
			}
		}
		if f.undo != nil {
			c.ok(f.undo())
		}
	})
}

// commands returns a function that runs commands on a machine.
func commands(n *lab.Namespace, lines ...string) func() error {
	return func() error { return n.Run(lines...) }
}

// Slow: some thirty faults are made and mended one after the other on one cluster, whose probes have to notice them.
func TestDoctorFindsEveryFault(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	ctx, cancel := context.WithTimeout(context.Background(), 4*patience) // twenty faults
	defer cancel()
	c.ctx = ctx
	e := c.etcd(vxlanConfig)
	hosts := c.hosts(2)
	args := []string{"-probe-interval", "1s", "-on-lost-subnet", "hold"}
	daemons := c.startAll(hosts, e, args...)
	c.pods(hosts...)
	h, peer := hosts[0], hosts[1]
	c.healthy(h)
	c.healthy(peer)
	s := ctlJSON[api.Status](c, h, "status")
	other := ctlJSON[api.Status](c, peer, "status")
	elsewhere := []string{
		"cni",             // TestTheKubeFlannelManifestOnACluster
		"handshakes",      // TestWireGuardInTheDaemon
		"neighbour-table", // its limit is that of the whole machine
	}
	never := map[string]bool{}
	for _, f := range c.doctor(h) {
		never[f.Check] = true
	}
	find := func(faults ...fault) {
		for _, f := range faults {
			c.find(t, h, f)
			delete(never, f.check)
		}
	}
	find(c.kernelFaults(h, peer, other)...)
	c.ok(daemons[0].Stop(c.ctx)) // forgets the drift
	daemons[0] = c.flanneld(h, e, args...)
	c.healthy(h)
	find(c.storeFaults(e, s, other)...)
	c.healthy(h)
	find(c.surroundings(h, s.Subnets[0], other.Subnets[0])...)
	c.healthy(h)
	c.ok(daemons[1].Stop(c.ctx))
	mute := c.flanneld(peer, e, append(args, "-probe-port", "0")...)
	find(c.versionSkew(h, peer))
	c.ok(mute.Stop(c.ctx))
	daemons[1] = c.flanneld(peer, e, args...)
	c.healthy(h)
	c.ok(daemons[0].Stop(c.ctx))
	dead := append([]string{"--etcd-endpoints", e.URL()}, "--etcd-prefix", lab.Prefix)
	for _, f := range c.deadFaults(h, s, other) {
		f.args = dead
		find(f)
	}
	find(c.wrongClock(e))
	restarted := c.flanneld(h, e, args...)
	c.healthy(h)
	find(fault{name: "packets come with wrong checksums", check: "checksums", says: "wrong checksum",
		inject: func() error { return wrongChecksums(peer, h) }},
		fault{name: "no right to write records", check: "store-rights", says: "permission denied",
			inject: func() error { return authorize(c, e, "reader", map[string]bool{"/": false}) },
			args:   append(dead, "--etcd-username", "reader")},
		fault{name: "the connection table is full", check: "connection-table", says: "connections are tracked",
			inject: func() error { return c.fillConnections(h) }, args: dead})
	c.ok(restarted.Stop(c.ctx))
	if got := slices.Sorted(maps.Keys(never)); !slices.Equal(got, elsewhere) {
		t.Errorf("no fault provokes the checks %v, want %v", got, elsewhere)
	}
}

func TestDoctorTellsADeadDaemonFromAFilteredPort(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	e := c.etcd(vxlanConfig)
	hosts := c.hosts(2)
	daemons := c.startAll(hosts, e)
	c.healthy(hosts[0])
	c.ok(daemons[1].Stop(c.ctx))
	c.find(t, hosts[0], fault{name: "the daemon of a peer is dead", check: "tunnel", says: "does not answer probes",
		inject: func() error { return nil }})
}

func TestDoctorRaisesNothingOnAnyHealthyNetwork(t *testing.T) {
	t.Parallel()
	for name, config := range map[string]string{
		"host-gw":      `{"Network":"10.5.0.0/16","Backend":{"Type":"host-gw"}}`,
		"udp":          `{"Network":"10.5.0.0/16","Backend":{"Type":"udp"}}`,
		"alloc":        `{"Network":"10.5.0.0/16","Backend":{"Type":"alloc"}}`,
		"direct":       `{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan","DirectRouting":true}}`,
		"dual-stack":   `{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:5::/48","Backend":{"Type":"vxlan"}}`,
		"IPv6 only":    `{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00:5::/48","Backend":{"Type":"vxlan"}}`,
		"host-gw IPv6": `{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:5::/48","Backend":{"Type":"host-gw"}}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t)
			e := c.etcd(config)
			hosts := c.hosts(2)
			c.startAll(hosts, e, "-probe-interval", "200ms", "-ip-masq")
			c.pods(hosts...)
			c.healthy(hosts[0])
			if name == "alloc" {
				return
			}
			c.await(func() error {
				found, err := c.probes(hosts[0])
				for a, p := range found {
					if p.Lost != 0 || p.PathMTU == 0 {
						err = fmt.Errorf("the probe of %s is %+v", a, p)
					}
				}
				return err
			})
		})
	}
}

func (c *cluster) kernelFaults(h, peer *lab.Host, other api.Status) []fault {
	return []fault{
		{name: "forwarding is off", check: "forwarding", says: "ip_forward", fixes: true,
			inject: func() error { return h.Sysctl("net/ipv4/ip_forward", "0") }},
		{name: "the reverse path filter is strict", check: "rp-filter", says: "strict", fixes: true,
			inject: func() error { return h.Sysctl("net/ipv4/conf/flannel.1/rp_filter", "1") }},
		{name: "a route of others in the network", check: "overlap", says: "10.5.128.0/17",
			inject: commands(h.Namespace, "ip route add 10.5.128.0/17 via 198.18.0.1 proto static"),
			undo:   commands(h.Namespace, "ip route del 10.5.128.0/17")},
		{name: "the bridge has another subnet", check: "bridge", says: "10.5.251.1",
			inject: commands(h.Namespace, "ip addr add 10.5.251.1/24 dev cni0"),
			undo:   commands(h.Namespace, "ip addr del 10.5.251.1/24 dev cni0")},
		{name: "the bridge has a large MTU", check: "bridge-mtu", says: "1500", fixes: true,
			inject: commands(h.Namespace, "ip link set cni0 mtu 1500")},
		{name: "the device of a former flannel", check: "leftovers", says: "flannel.7",
			inject: commands(h.Namespace, "ip link add flannel.7 type vxlan id 7 dstport 4789"),
			undo:   commands(h.Namespace, "ip link del flannel.7")},
		{name: "the tunnel port is filtered", check: "tunnel", says: "filtered",
			inject: commands(peer.Namespace, "nft add table inet filtered",
				"nft add chain inet filtered in { type filter hook input priority 0 ; }",
				"nft add rule inet filtered in udp dport 8472 drop"),
			undo: commands(peer.Namespace, "nft delete table inet filtered")},
		{name: "a peer is down", check: "tunnel", says: "neither",
			inject: commands(peer.Namespace, "ip link set eth0 down"),
			undo:   commands(peer.Namespace, "ip link set eth0 up", "ip route replace default via 198.18.0.1")},
		{name: "the path carries small packets only", check: "path-mtu", says: "1350",
			inject: commands(c.Underlay(), "nft add table bridge small",
				"nft add chain bridge small f { type filter hook forward priority 0 ; }",
				"nft add rule bridge small f meta length gt 1420 drop"),
			undo: commands(c.Underlay(), "nft delete table bridge small")},
		{name: "somebody keeps deleting our routes", check: "drift", says: "keeps changing",
			inject: func() error { return c.deleteRoutes(h, other) }},
	}
}

// deleteRoutes deletes the route to a peer as often as it comes back.
func (c *cluster) deleteRoutes(h *lab.Host, other api.Status) error {
	for range 12 {
		c.await(func() error { return h.Run(fmt.Sprintf("ip route del %s proto 70", other.Subnets[0])) })
	}
	return nil
}

// wrongChecksums sends UDP packets that claim a checksum which they do not have.
func wrongChecksums(from, to *lab.Host) error {
	return from.Do(func() error {
		conn, err := net.Dial("ip4:udp", to.Addr.String())
		if err != nil {
			return err
		}
		defer conn.Close()
		p := make([]byte, 16) // source port, destination port, length, checksum
		binary.BigEndian.PutUint16(p[0:], 9)
		binary.BigEndian.PutUint16(p[2:], 9)
		binary.BigEndian.PutUint16(p[4:], uint16(len(p)))
		binary.BigEndian.PutUint16(p[6:], 0xbad)
		for range 2000 {
			if _, err := conn.Write(p); err != nil {
				return err
			}
		}
		return nil
	})
}

func (c *cluster) storeFaults(e *lab.Etcd, s, other api.Status) []fault {
	own := "subnets/" + strings.ReplaceAll(s.Subnets[0].String(), "/", "-")
	put := func(key, value string) func() error { return func() error { return e.Put(c.ctx, key, value) } }
	del := func(key string) func() error { return func() error { return e.Delete(c.ctx, key) } }
	outsider := `{"PublicIP":"198.18.0.99","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:00:99"},"ID":"outsider"}`
	return []fault{
		{name: "a record that makes no sense", check: "records", says: "10.5.252.0-24",
			inject: put("subnets/10.5.252.0-24", "nonsense"), undo: del("subnets/10.5.252.0-24")},
		{name: "two hosts with one address", check: "duplicates", says: other.PublicIPs[0].String(),
			inject: func() error {
				return leased(c, e, "subnets/10.5.253.0-24",
					strings.ReplaceAll(outsider, "198.18.0.99", other.PublicIPs[0].String()))
			}, undo: del("subnets/10.5.253.0-24")},
		{name: "a configuration that makes no sense", check: "configuration", says: "Network",
			inject: put("config", `{"Network":"nonsense"}`), undo: put("config", vxlanConfig)},
		{name: "a change that waits for a restart", check: "ready", says: "waits for a restart",
			inject: put("config", `{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan","VNI":2}}`),
			undo:   put("config", vxlanConfig)},
		{name: "the store is down", check: "store", says: "list records", inject: func() error { e.Kill(); return nil },
			undo: func() error { return e.Start(c.ctx) }},
		{name: "another host has our subnet", check: "lease", says: "198.18.0.99", inject: put(own, outsider),
			undo: del(own)},
	}
}

// leased writes a record with a lease.
func leased(c *cluster, e *lab.Etcd, key, value string) error {
	client, err := e.Client()
	if err != nil {
		return err
	}
	defer client.Close()
	l, err := client.Grant(c.ctx, 600)
	if err == nil {
		_, err = client.Put(c.ctx, lab.Prefix+"/"+key, value, clientv3.WithLease(l.ID))
	}
	return err
}

// authorize turns authentication on, with a user of a role that may read, or also write, what is below folders of the
// network.
func authorize(c *cluster, e *lab.Etcd, user string, folders map[string]bool) error {
	client, err := e.Client()
	if err != nil {
		return err
	}
	defer client.Close()
	steps := []func() error{
		func() error { _, err := client.UserAdd(c.ctx, "root", "root"); return err },
		func() error { _, err := client.UserGrantRole(c.ctx, "root", "root"); return err },
		func() error { _, err := client.UserAdd(c.ctx, user, "secret"); return err },
		func() error { _, err := client.RoleAdd(c.ctx, user); return err },
	}
	for folder, writes := range folders {
		steps = append(steps, func() error {
			kind, key := clientv3.PermRead, lab.Prefix+folder
			if writes {
				kind = clientv3.PermReadWrite
			}
			_, err := client.RoleGrantPermission(c.ctx, user, key, clientv3.GetPrefixRangeEnd(key),
				clientv3.PermissionType(kind))
			return err
		})
	}
	steps = append(steps,
		func() error { _, err := client.UserGrantRole(c.ctx, user, user); return err },
		func() error { _, err := client.AuthEnable(c.ctx); return err },
	)
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func (c *cluster) deadFaults(h *lab.Host, s, other api.Status) []fault {
	state := filepath.Join(h.StateDir(), strings.ReplaceAll(strings.Trim(h.SubnetFile(), "/"), "/", "-")+".json")
	return []fault{
		{name: "the daemon is dead", check: "daemon", says: "no daemon answers", inject: func() error { return nil }},
		{name: "the device is down", check: "device", says: "down", fixes: true,
			inject: commands(h.Namespace, "ip link set flannel.1 down"),
			undo: commands(h.Namespace, fmt.Sprintf("ip route replace %s via %s dev flannel.1 onlink", other.Subnets[0],
				other.Subnets[0].Addr()))},
		{name: "the device has another MTU", check: "device", says: "MTU 1400", fixes: true,
			inject: commands(h.Namespace, "ip link set flannel.1 mtu 1400")},
		{name: "the hardware address was changed", check: "hardware-address", says: "02:00:00:00:00:01", fixes: true,
			inject: commands(h.Namespace, "ip link set flannel.1 address 02:00:00:00:00:01")},
		{name: "a route is missing", check: "peers", says: other.Subnets[0].String(),
			inject: commands(h.Namespace, "ip route del "+other.Subnets[0].String())},
		{name: "the subnet file is wrong", check: "subnet-file", says: "10.5.254.0/24",
			inject: func() error {
				return os.WriteFile(h.SubnetFile(),
					[]byte("FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.254.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=false\n"),
					0o644)
			}, undo: func() error {
				return os.WriteFile(h.SubnetFile(),
					fmt.Appendf(nil, "FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=%s/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=false\n",
						s.Subnets[0].Addr().Next()), 0o644)
			}},
		{name: "FORWARD drops", check: "forward-chain", says: "DROP",
			inject: commands(h.Namespace, "iptables-nft -F FORWARD", "iptables-nft -P FORWARD DROP"),
			undo:   commands(h.Namespace, "iptables-nft -P FORWARD ACCEPT")},
		{name: "the interface has lost its address", check: "interface", says: h.Addr.String(),
			inject: commands(h.Namespace, fmt.Sprintf("ip addr del %s/16 dev eth0", h.Addr),
				"ip addr add 198.18.200.1/16 dev eth0"),
			undo: commands(h.Namespace, "ip addr del 198.18.200.1/16 dev eth0",
				fmt.Sprintf("ip addr add %s/16 dev eth0", h.Addr),
				"ip route replace default via 198.18.0.1")},
		{name: "the state cannot be read", check: "state", says: "identity",
			inject: func() error { return os.Rename(state, state+".kept") },
			undo:   func() error { return os.Rename(state+".kept", state) }},
	}
}
