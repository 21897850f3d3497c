//go:build kernels

// These tests need modules that not every kernel has, or change the whole machine. They are run in a virtual machine
// (make test-kernels).

package lab_test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.zx2c4.com/wireguard/wgctrl"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"flanneld/api"
	"flanneld/lab"
)

// kernelHasAll reports whether the kernel has all modules, such as ipip and wireguard.
const kernelHasAll = true

// modprobe is what the kernel runs to load a module that it needs.
const modprobe = "/proc/sys/kernel/modprobe"

// withoutWireGuard takes WireGuard from the kernel, until the function that it returns gives it back.
func (c *cluster) withoutWireGuard() (back func()) {
	c.t.Helper()
	before := must[[]byte](c.t)(os.ReadFile(modprobe))
	other := filepath.Join(c.Dir(), "modprobe")
	c.ok(os.WriteFile(other, []byte("#!/bin/sh\ncase \"$*\" in *wireguard*) exit 1;; esac\nexec /sbin/modprobe \"$@\"\n"),
		0o755))
	c.ok(os.WriteFile(modprobe, []byte(other), 0))
	back = func() { c.ok(os.WriteFile(modprobe, bytes.TrimSpace(before), 0)) }
	c.t.Cleanup(back)
	c.await(func() error { // devices of other tests go with their namespaces, some time later
		if out, err := exec.Command("modprobe", "-r", "wireguard").CombinedOutput(); err != nil {
			return fmt.Errorf("remove the module: %w: %s", err, out)
		}
		return nil
	})
	return back
}

// TestKernelWireGuardBesideThatOfTheDaemon has hosts of both kinds in one network: each speaks with the other, takes a
// new key, and one turns from one kind to the other.
func TestKernelWireGuardBesideThatOfTheDaemon(t *testing.T) {
	c := newCluster(t)
	hosts, e := c.hosts(3), c.etcd(wireguardConfig(lab.Dual, `,"PSK":"`+psk+`"`))
	back := c.withoutWireGuard()
	daemons := c.startAll(hosts[:2], e)
	back()
	daemons = append(daemons, c.flanneld(hosts[2], e))
	for i, text := range []string{"running WireGuard in this process", "running WireGuard in this process",
		"using WireGuard of the kernel"} {
		c.ok(c.logs(daemons[i], text)())
	}
	s := &wireguardSite{c, hosts, daemons, c.pods(hosts...)}
	t.Run("all reach all", s.reachable)
	t.Run("packets between both kinds are hidden", func(t *testing.T) {
		wire := must[*lab.Capture](t)(hosts[2].Capture("eth0"))
		defer wire.Stop()
		for i, addr := range s.pods[2].Addrs {
			s.transfer(s.pods[0].Namespace, s.pods[2].Namespace, addr, 3<<20)
			s.transfer(s.pods[2].Namespace, s.pods[0].Namespace, s.pods[0].Addrs[i], 3<<20)
		}
		wantEncrypted(t, wire, [2]*lab.Pod{s.pods[0], s.pods[2]}, "51820 51821")
	})
	t.Run("a new key of the daemon", func(t *testing.T) { s.rotated(t, e) })
	s.hosts, s.daemons, s.pods = reversed(s.hosts), reversed(s.daemons), reversed(s.pods)
	t.Run("a new key of the kernel", func(t *testing.T) { s.rotated(t, e) })
	t.Run("the kernel gets WireGuard", func(t *testing.T) {
		before := s.public(t, e)
		last := len(hosts) - 1
		s.ok(s.daemons[last].Stop(s.ctx))
		s.daemons[last] = s.flanneld(s.hosts[last], e)
		s.ok(s.logs(s.daemons[last], "using WireGuard of the kernel")())
		s.prints(s.hosts[last], "ip -d link show flannel-wg", "wireguard")
		s.reachable(t)
		if now := s.public(t, e); now != before {
			t.Errorf("the record is %s, before %s", now, before)
		}
	})
	t.Run("a restart loses nothing", func(t *testing.T) {
		var pings []*lab.Pings
		for _, a := range s.pods[1].Addrs {
			pings = append(pings, must[*lab.Pings](t)(s.pods[0].Pings(a, lab.PingOptions{})))
		}
		s.ok(s.daemons[0].Stop(s.ctx))
		s.daemons[0] = s.flanneld(s.hosts[0], e)
		s.nothingLost("restart", pings)
	})
	for _, d := range s.daemons {
		s.wantState(d, api.StateReady, "")
	}
}

func reversed[T any](in []T) []T {
	out := make([]T, 0, len(in))
	for i := range in {
		out = append(out, in[len(in)-1-i])
	}
	return out
}

// TestKernelWireGuardThatIsTamperedWithIsRepaired changes what the kernel does not tell.
func TestKernelWireGuardThatIsTamperedWithIsRepaired(t *testing.T) {
	c := newCluster(t)
	hosts, e := c.hosts(2), c.etcd(wireguardConfig(lab.IPv4, ``))
	c.startAll(hosts, e)
	pods := c.pods(hosts...)
	h := hosts[0]
	var client *wgctrl.Client
	c.ok(h.Do(func() (err error) {
		client, err = wgctrl.New()
		return err
	}))
	defer client.Close()
	look := func() wgtypes.Device {
		d := must[*wgtypes.Device](t)(client.Device("flannel-wg"))
		for i := range d.Peers {
			p := &d.Peers[i]
			p.ReceiveBytes, p.TransmitBytes, p.LastHandshakeTime = 0, 0, time.Time{}
		}
		return *d
	}
	c.reaches(pods[0].Namespace, pods[1], lab.PingOptions{})
	before := look()
	peer := before.Peers[0].PublicKey
	key, port, mark, keepalive := must[wgtypes.Key](t)(wgtypes.GeneratePrivateKey()), 4999, 7, 9*time.Second
	everything := net.IPNet{IP: net.IP{0, 0, 0, 0}, Mask: net.CIDRMask(0, 32)}
	for name, change := range map[string]wgtypes.Config{
		"private key":  {PrivateKey: &key},
		"port":         {ListenPort: &port},
		"mark":         {FirewallMark: &mark},
		"all peers":    {ReplacePeers: true},
		"foreign peer": {Peers: []wgtypes.PeerConfig{{PublicKey: key.PublicKey(), AllowedIPs: []net.IPNet{everything}}}},
		"stolen addresses": {Peers: []wgtypes.PeerConfig{{PublicKey: key.PublicKey(),
			AllowedIPs: before.Peers[0].AllowedIPs}}},
		"preshared key": {Peers: []wgtypes.PeerConfig{{PublicKey: peer, PresharedKey: &key}}},
		"keepalive":     {Peers: []wgtypes.PeerConfig{{PublicKey: peer, PersistentKeepaliveInterval: &keepalive}}},
		"allowed IPs":   {Peers: []wgtypes.PeerConfig{{PublicKey: peer, ReplaceAllowedIPs: true}}},
	} {
		t.Run(name, func(t *testing.T) {
			c.ok(client.ConfigureDevice("flannel-wg", change))
			c.await(func() error {
				if diff := cmp.Diff(before, look()); diff != "" {
					return errors.New("the device is not as before (-want +got):\n" + diff)
				}
				return nil
			})
			c.reaches(pods[0].Namespace, pods[1], lab.PingOptions{})
			c.reaches(pods[1].Namespace, pods[0], lab.PingOptions{})
		})
	}
}

// TestKernelWireGuardMakesSessionsWithADeviceThatIsNew deletes the devices of a host, as a reboot does. Its peers have
// sessions that it knows nothing of, and what they send is lost until it has made new ones. Nobody sends here, the
// probes are off.
func TestKernelWireGuardMakesSessionsWithADeviceThatIsNew(t *testing.T) {
	c := newCluster(t)
	hosts, e := c.hosts(3), c.etcd(wireguardConfig(lab.Dual, ``))
	daemons := c.startAll(hosts, e, "-probe-port", "0")
	h := hosts[0]
	greeted := func() {
		t.Helper()
		c.await(func() error {
			for _, p := range ctlJSON[[]api.Peer](c, h, "peers") {
				if p.Session == nil || p.Session.Handshake == nil {
					return fmt.Errorf("no handshake with %s", p.Subnet)
				}
			}
			return nil
		})
	}
	daemons[0].Kill()
	c.ok(h.Run("ip link del flannel-wg", "ip link del flannel-wg-v6"))
	daemons[0] = c.flanneld(h, e, "-probe-port", "0")
	greeted()
	c.ok(h.Run("ip link del flannel-wg", "ip link del flannel-wg-v6"))
	greeted()
}

// TestKernelWireGuardNamesAPeerThatDoesNotAnswer takes the device of a host away, and the sessions of another one. The
// new device of that one counts from zero what it sends.
func TestKernelWireGuardNamesAPeerThatDoesNotAnswer(t *testing.T) {
	c := newCluster(t)
	hosts, e := c.hosts(2), c.etcd(wireguardConfig(lab.Dual, ``))
	daemons := c.startAll(hosts, e)
	s := &wireguardSite{c, hosts, daemons, c.pods(hosts...)}
	s.reachable(t)
	const much = 1 << 20
	s.transfer(s.pods[0].Namespace, s.pods[1].Namespace, s.pods[1].Addrs[0], much)
	c.await(func() error { // the daemon looks every 5 s
		for _, p := range ctlJSON[[]api.Peer](c, hosts[0], "peers") {
			if p.Traffic != nil && p.Traffic.SentBytes > much {
				return nil
			}
		}
		return errors.New("the daemon does not know yet what was sent")
	})
	pings := must[*lab.Pings](t)(s.pods[0].Pings(s.pods[1].Addrs[0], lab.PingOptions{}))
	defer pings.Cut()
	c.find(t, hosts[0], fault{name: "doctor", check: "handshakes", says: "do not answer handshakes: ",
		inject: func() error {
			return errors.Join(daemons[1].Stop(c.ctx), hosts[1].Run("ip link del flannel-wg"),
				hosts[0].Run("ip link del flannel-wg"))
		},
		undo: func() error {
			daemons[1] = c.flanneld(hosts[1], e)
			return nil
		}})
	s.reachable(t)
	c.healthy(hosts[0])
}

// underlays are the ways in which a host may be connected. Each gives a host, by its number, the interface under0 with
// an address in 198.19.0.0/16 and fd00:19::/64.
var underlays = []struct {
	name     string
	commands []string // ETH is a link to the others, ETH2 another one
}{
	{"VLAN", []string{"ip link add link ETH name under0 type vlan id 7", "ip link set ETH up"}},
	{"VLAN in a VLAN", []string{"ip link add link ETH name outer0 type vlan id 8",
		"ip link add link outer0 name under0 type vlan id 7",
		"ip link set ETH up", "ip link set outer0 up"}},
	{"bond", []string{"ip link add under0 type bond mode active-backup miimon 100", "ip link set ETH down",
		"ip link set ETH2 down",
		"ip link set ETH master under0", "ip link set ETH2 master under0"}},
	{"bridge", []string{"ip link add under0 type bridge", "ip link set ETH master under0", "ip link set ETH up"}},
	{"VRF", []string{"ip link add red type vrf table 10", "ip link set red up", "ip link set ETH down",
		"ip link set ETH name under0", "ip link set under0 master red"}},
	{"macvlan", []string{"ip link add under0 link ETH type macvlan mode bridge", "ip link set ETH up"}},
}

// TestKernelUnderlays has the daemon use interfaces of all kinds.
func TestKernelUnderlays(t *testing.T) {
	for _, u := range underlays {
		t.Run(u.name, func(t *testing.T) {
			for _, backend := range []string{"vxlan", "wireguard", "host-gw", "udp", "ipip", "extension"} {
				if u.name == "VRF" && backend != "vxlan" {
					continue // routes and sockets of the other backends are not those of a VRF
				}
				t.Run(backend, func(t *testing.T) { onUnderlay(t, backend, u.name, u.commands) })
			}
		})
	}
}

func onUnderlay(t *testing.T, backend, name string, commands []string) {
	n := network{backend, familiesOf(backend)}
	c := newClusterWith(t, lab.Options{Families: n.families})
	hosts, e := c.hosts(2), c.etcd(n.config())
	for i, h := range hosts {
		plug(c, h, "eth1", fmt.Sprint("one", i))
		plug(c, h, "eth2", fmt.Sprint("two", i))
		for _, command := range commands {
			c.ok(h.Run(strings.NewReplacer("ETH2", "eth2", "ETH", "eth1").Replace(command)))
		}
		c.ok(h.Run("ip link set under0 up", fmt.Sprintf("ip addr add 198.19.0.%d/16 dev under0", i+1),
			fmt.Sprintf("ip addr add fd00:19::%d/64 dev under0 nodad", i+1)))
	}
	daemons := c.startAll(hosts, e, "-iface", "under0")
	pods := c.pods(hosts...)
	if backend == "udp" {
		for _, d := range daemons {
			c.path(d, "kernel")
		}
	}
	mtu := n.mtu()
	full := lab.PingOptions{Size: mtu, DontFragment: true}
	c.reaches(pods[0].Namespace, pods[1], full)
	c.reaches(pods[1].Namespace, pods[0], full)
	for _, a := range pods[1].Addrs {
		c.transfer(pods[0].Namespace, pods[1].Namespace, a, 1<<20)
	}
	if name == "bond" { // the link in use fails
		pings := c.pinged(pods[0], pods[1])
		c.ok(c.Underlay().Run("ip link set one0 down"))
		c.flowsAgain(pings)
	}
	for _, d := range daemons {
		c.wantState(d, api.StateReady, "")
	}
}

// TestKernelNetem carries packets over an underlay that loses, delays and reorders them.
func TestKernelNetem(t *testing.T) {
	for _, backend := range []string{"vxlan", "host-gw", "udp", "wireguard", "ipip", "extension"} {
		t.Run(backend, func(t *testing.T) { overABadLink(t, network{backend, familiesOf(backend)}) })
	}
	t.Run("wireguard of the daemon", func(t *testing.T) {
		c := newCluster(t)
		back := c.withoutWireGuard()
		defer back()
		overABadLink(t, network{"wireguard", lab.Dual})
	})
}

func overABadLink(t *testing.T, n network) {
	s := newSite(t, n, 2)
	for _, h := range s.hosts {
		s.ok(h.Run("tc qdisc add dev eth0 root netem delay 20ms 10ms loss 5% reorder 25% 50% duplicate 2%"))
	}
	s.connected()
	for i, a := range s.pods[1].Addrs {
		s.transfer(s.pods[0].Namespace, s.pods[1].Namespace, a, 128<<10)
		s.transfer(s.pods[1].Namespace, s.pods[0].Namespace, s.pods[0].Addrs[i], 128<<10)
	}
	for i, h := range s.hosts { // sessions are made over the same link
		s.ok(s.daemons[i].Stop(s.ctx))
		s.daemons[i] = s.flanneld(h, s.store)
		s.connected()
	}
	for _, h := range s.hosts {
		s.ok(h.Run("tc qdisc del dev eth0 root"))
	}
	for _, d := range s.daemons {
		s.wantState(d, api.StateReady, "")
	}
	s.connected()
}

// TestKernelBackendsAtAnAPIServerOfKubernetes has the backends that kernels of clusters' test machines lack.
func TestKernelBackendsAtAnAPIServerOfKubernetes(t *testing.T) {
	k := newKubeCluster(t)
	k.meets(k.network("ipip.example.com", `{"Network":"10.244.0.0/16","Backend":{"Type":"ipip"}}`))
	k.meets(k.network("wireguard.example.com", kubeConfig("wireguard")))
}
