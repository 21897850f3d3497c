package lab_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"flanneld/api"
	"flanneld/ip"
	"flanneld/lab"
)

// The networks whose packets are carried inside the kernel, as without a backend, and by the daemon.
const (
	kernelConfig = `{"Network":"10.5.0.0/16"}`
	userConfig   = `{"Network":"10.5.0.0/16","Backend":{"Type":"udp","Kernel":false}}`
)

// path waits until a daemon carries packets where it should.
func (c *cluster) path(d *lab.Daemon, want string) {
	c.t.Helper()
	c.await(func() error {
		_, text, err := d.Get(c.ctx, "/status")
		if err != nil {
			return err
		}
		var s api.Status
		if err := json.Unmarshal([]byte(text), &s); err != nil {
			return err
		}
		if !strings.HasPrefix(s.Path, want) {
			return fmt.Errorf("packets are carried in %q, want %q", s.Path, want)
		}
		return nil
	})
}

// crosses waits until packets of one host are carried by its kernel, not the process.
func (c *cluster) crosses(from, to *lab.Pod, program func() uint64) {
	c.t.Helper()
	c.await(func() error {
		before := program()
		if _, err := from.Ping(c.ctx, to.Addr(), lab.PingOptions{}); err != nil {
			return err
		}
		if program() == before {
			return fmt.Errorf("the ping was not carried by the kernel")
		}
		return nil
	})
}

// exchanged returns what a host has counted of its only peer, and wants it to have received so many bytes, and to have
// sent some.
func (c *cluster) exchanged(h *lab.Host, least uint64) api.Traffic {
	c.t.Helper()
	peers := ctlJSON[[]api.Peer](c, h, "peers")
	if len(peers) != 1 || peers[0].Traffic == nil {
		c.t.Fatalf("no traffic of one peer: %+v", peers)
	}
	t := *peers[0].Traffic
	if t.ReceivedBytes < least || t.ReceivedPackets == 0 || t.SentPackets == 0 || t.SentBytes == 0 {
		c.t.Errorf("the traffic is %+v, want %d bytes received", t, least)
	}
	return t
}

// TestUDPInsideTheKernel has the kernels of two hosts carry packets, while one daemon is killed and stays away, after
// the programs were detached, beside IPsec and a packet filter, and cleans up.
func TestUDPInsideTheKernel(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	e := c.etcd(kernelConfig)
	hosts := c.hosts(2)
	daemons := c.startAll(hosts, e)
	pods := c.pods(hosts...)
	sent := func() uint64 {
		var n uint64
		for name, v := range c.datapath(daemons[1]) {
			if name == "sent packets" {
				n = v
			}
		}
		return n
	}
	for _, d := range daemons {
		c.path(d, "kernel")
	}
	c.crosses(pods[1], pods[0], sent)
	for i := range pods {
		c.transfer(pods[i].Namespace, pods[1-i].Namespace, pods[1-i].Addr(), 10<<20)
	}
	c.exchanged(hosts[1], 10<<20)

	programs := func(h *lab.Host) (n int) {
		t.Helper()
		c.ok(h.Do(func() error {
			hooks := map[ip.Hook]string{{Device: "flannel0", Egress: true}: "flannel0", {Device: "flannel0"}: "eth0"}
			for hook, link := range hooks {
				number, _, err := ip.Ethernet(link)
				if err != nil {
					return err
				}
				hook.Link = number
				if id, err := hook.Attached(); err != nil {
					return err
				} else if id != 0 {
					n++
				}
			}
			return nil
		}))
		return n
	}
	daemons[0].Kill()
	hosts[0].ForgetFiles()
	for i := range pods {
		_, err := pods[i].Ping(c.ctx, pods[1-i].Addr(), lab.PingOptions{Size: 1472, DontFragment: true})
		c.ok(err)
		c.transfer(pods[i].Namespace, pods[1-i].Namespace, pods[1-i].Addr(), 2<<20)
	}
	daemons[0] = c.flanneld(hosts[0], e)
	c.path(daemons[0], "kernel")

	c.ok(hosts[1].Do(func() error { return ip.DetachPrograms("flannel0") }))
	c.await(func() error {
		if n := c.datapath(daemons[1])["BPF programs attached again"]; n != 2 {
			return fmt.Errorf("%d programs attached again", n)
		}
		return nil
	})
	c.crosses(pods[1], pods[0], sent)

	c.ok(hosts[1].Run("ip xfrm policy add src 203.0.113.1/32 dst 203.0.113.2/32 dir out tmpl proto esp mode transport"))
	c.path(daemons[1], "user space: there are IPsec policies")
	if n := programs(hosts[1]); n != 0 {
		t.Errorf("%d programs are still there", n)
	}
	c.ok(hosts[1].Run("ip xfrm policy flush", "nft add table ip guard",
		"nft add chain ip guard in { type filter hook input priority 0 ; }",
		"nft add rule ip guard in ip saddr 198.51.100.1 drop"))
	c.path(daemons[1], "user space: the packet filter may have rules")
	before := c.exchanged(hosts[1], 10<<20)
	c.transfer(pods[0].Namespace, pods[1].Namespace, pods[1].Addr(), 2<<20)
	c.exchanged(hosts[1], before.ReceivedBytes+2<<20)
	c.ok(hosts[1].Run("nft flush chain ip guard in", "nft add rule ip guard in udp dport 53 drop"))
	c.path(daemons[1], "kernel")

	c.ok(daemons[1].Stop(c.ctx))
	if n := programs(hosts[1]); n != 2 {
		t.Errorf("%d programs are left, want 2", n)
	}
}

// TestPacketsOfAKernelThatArriveByAnotherInterfaceAreTaken has the packets of one host come in by an interface of the
// other where no program is, which is a link without a network card that would finish them.
func TestPacketsOfAKernelThatArriveByAnotherInterfaceAreTaken(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	e := c.etcd(kernelConfig)
	hosts := c.hosts(2)
	daemons := c.startAll(hosts, e)
	pods := c.pods(hosts...)
	for _, d := range daemons {
		c.path(d, "kernel")
	}
	_, err := pods[0].Ping(c.ctx, pods[1].Addr(), lab.PingOptions{})
	c.ok(err)
	plug(c, hosts[1], "eth1", "second1")
	c.ok(hosts[1].Run("ip link set eth1 up"))
	_, mac, _ := strings.Cut(must[string](t)(hosts[1].Output("ip -o link show eth1")), "link/ether ")
	mac, _, _ = strings.Cut(mac, " ")
	c.ok(hosts[0].Run(fmt.Sprintf("ip neigh replace %s lladdr %s dev eth0 nud permanent", hosts[1].Addr, mac)))
	before := c.datapath(daemons[1])
	for i := range pods {
		c.transfer(pods[i].Namespace, pods[1-i].Namespace, pods[1-i].Addr(), 5<<20)
	}
	if got := c.datapath(daemons[1])["received packets"]; got == before["received packets"] {
		t.Errorf("nothing was received: %v", c.datapath(daemons[1]))
	}
}
