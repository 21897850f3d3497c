package lab_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/ipv4"

	"flanneld/api"
	"flanneld/lab"
	"flanneld/probe"
)

// surroundings are faults of what else is on a host.
func (c *cluster) surroundings(h *lab.Host, own, peer netip.Prefix) []fault {
	gateway, container := own.Addr().Next(), own.Addr().Next().Next()
	foreign := peer.String() + " dev eth0 proto static"
	return []fault{
		{name: "a route of another program is where a peer is", check: "peers", says: "the route " + foreign +
			" of another program is in the way",
			inject: commands(h.Namespace, "ip route replace "+foreign), undo: commands(h.Namespace, "ip route del "+foreign)},
		{name: "docker and CNI have one address", check: "bridge-addresses", says: "both use " + own.String(),
			inject: commands(h.Namespace, "ip link add docker0 type bridge",
				fmt.Sprintf("ip addr add %s/24 dev docker0", gateway), "ip link set docker0 up"),
			undo: commands(h.Namespace, "ip link del docker0")},
		{name: "docker allows no direct routing", check: "docker-routing", says: container.String(),
			inject: commands(h.Namespace, fmt.Sprintf("iptables-nft -t raw -A PREROUTING -d %s/32 ! -i docker0 -j DROP",
				container)),
			undo: commands(h.Namespace, "iptables-nft -t raw -F PREROUTING")},
		{name: "forwarding is off on one interface", check: "forwarding", says: "off on eth0", fixes: true,
			inject: func() error { return h.Sysctl("net/ipv4/conf/eth0/forwarding", "0") }},
		{name: "docker has the subnet of earlier", check: "bridge", says: "docker0 has 10.5.250.1/24",
			inject: commands(h.Namespace, "ip link add docker0 type bridge", "ip addr add 10.5.250.1/24 dev docker0",
				"ip link set docker0 up"),
			undo: commands(h.Namespace, "ip link del docker0")},
		{name: "somebody's chain drops what is forwarded", check: "firewall", says: "chain passing of table inet admin",
			inject: commands(h.Namespace, "nft add table inet admin",
				"nft add chain inet admin passing { type filter hook forward priority 0 ; policy drop ; }"),
			undo: commands(h.Namespace, "nft delete table inet admin")},
	}
}

// fillConnections has a host track more connections than are good for it: each packet that a bridge without ports
// swallows is one, for half a minute.
func (c *cluster) fillConnections(h *lab.Host) error {
	err := h.Run("nft add table inet tracking", "nft add chain inet tracking out { type filter hook output priority 0 ; }",
		"nft add rule inet tracking out ct state new accept",
		"ip link add swallow type bridge", "ip addr add 203.0.113.1/24 dev swallow", "ip link set swallow arp off up")
	if err != nil {
		return err
	}
	text, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_max")
	if err != nil {
		return err
	}
	most, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return err
	}
	return h.Do(func() error {
		conn, err := net.ListenUDP("udp4", nil)
		if err != nil {
			return err
		}
		defer conn.Close()
		return swallow(ipv4.NewPacketConn(conn), most*95/100)
	})
}

// swallow sends n packets, each to another port of another address.
func swallow(conn *ipv4.PacketConn, n int) error {
	batch := make([]ipv4.Message, 512)
	for sent := 0; sent < n; {
		for i := range batch {
			at := sent + i
			batch[i] = ipv4.Message{Buffers: [][]byte{{0}},
				Addr: &net.UDPAddr{IP: net.IPv4(203, 0, 113, byte(2+at/60000)), Port: 1 + at%60000}}
		}
		k, err := conn.WriteBatch(batch, 0)
		if err != nil {
			return err
		}
		sent += k
	}
	return nil
}

// versionSkew has a peer answer probes as an older version does. Its own daemon does not answer any.
func (c *cluster) versionSkew(h, peer *lab.Host) fault {
	ctx, cancel := context.WithCancel(c.ctx)
	done := make(chan error, 1)
	return fault{name: "a peer runs another version", check: "versions", says: "runs v0.9",
		inject: func() error {
			own, asks := ctlJSON[api.Status](c, peer, "status").Subnets[0].Addr(), ctlJSON[api.Status](c, h, "status").Subnets[0]
			p := probe.New(probe.Options{
				Port: 8473, Period: time.Hour, Version: "v0.9", Log: slog.New(slog.DiscardHandler),
				Observe: func(probe.Outcome, time.Duration) {},
				Admit:   func() bool { return true },
				Site: func() probe.Site {
					return probe.Site{Locals: []netip.Addr{own}, MTU: 1450, Peers: []probe.Peer{{Subnet: asks, Addr: asks.Addr()}}}
				},
			})
			go func() { done <- peer.Do(func() error { return p.Run(ctx) }) }()
			return nil
		},
		undo: func() error { cancel(); return <-done }}
}

// wrongClock is a store of which one endpoint has another time.
func (c *cluster) wrongClock(e *lab.Etcd) fault {
	l := must[net.Listener](c.t)(c.Underlay().Listen("tcp", "198.18.0.1:2379"))
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Date", time.Now().Add(time.Hour).UTC().Format(http.TimeFormat))
	})}
	go func() { _ = s.Serve(l) }() // until it is closed
	return fault{name: "the store has another time", check: "clock", says: "differs from that of http://198.18.0.1:2379",
		inject: func() error { return nil }, undo: s.Close,
		args: []string{"--etcd-endpoints", "http://198.18.0.1:2379," + e.URL(), "--etcd-prefix", lab.Prefix}}
}
