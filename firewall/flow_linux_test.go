package firewall_test

import (
	"net/netip"
	"strings"
	"testing"

	"flanneld/firewall"
	"flanneld/ip"
	"flanneld/ip/iptest"
	"flanneld/need"
)

// TestRulesThatAreNotAboutPacketsBetweenHostsAreTold asks for the chain that packets must not bypass, with rules as
// other programs and operators write them.
func TestRulesThatAreNotAboutPacketsBetweenHostsAreTold(t *testing.T) {
	need.Program(t, "nft", "iptables-nft")
	flow := ip.Flow{Link: "eth0", Local: netip.MustParseAddr("192.0.2.1"), Port: 8285}
	const input = "nft add table inet t; nft add chain inet t in '{ type filter hook input priority 0 ; }'; "
	const closed = "nft add table inet t;" +
		"nft add chain inet t in '{ type filter hook input priority 0 ; policy drop ; }'; "
	for _, test := range []struct{ name, rules, chain string }{
		{"nothing", "true", ""},
		{"only forwarded packets and NAT", "iptables-nft -P FORWARD DROP; iptables-nft -t nat -A PREROUTING -j ACCEPT", ""},
		{"docker keeps others away from its containers",
			"iptables-nft -t raw -A PREROUTING -d 172.17.0.2/32 ! -i docker0 -j DROP", ""},
		{"the same for this host", "iptables-nft -t raw -A PREROUTING -d 192.0.2.1/32 ! -i docker0 -j DROP", "PREROUTING"},
		{"kubelet", "iptables-nft -N KUBE-FIREWALL; iptables-nft -A INPUT -j KUBE-FIREWALL;" +
			"iptables-nft -A OUTPUT -j KUBE-FIREWALL;" +
			"iptables-nft -A KUBE-FIREWALL ! -s 127.0.0.0/8 -d 127.0.0.0/8 -m comment --comment x -m conntrack " +
			"! --ctstate RELATED,ESTABLISHED,DNAT -j DROP", ""},
		{"kube-proxy", "iptables-nft -N KUBE-EXTERNAL; iptables-nft -A INPUT -m conntrack --ctstate NEW -j KUBE-EXTERNAL;" +
			"iptables-nft -A KUBE-EXTERNAL -d 192.0.2.1/32 -p tcp -m tcp --dport 80 -j REJECT;" +
			"iptables-nft -t mangle -N KUBE-KUBELET-CANARY", ""},
		{"a protected port", "iptables-nft -A INPUT -p tcp --dport 2379 -j DROP; iptables-nft -A INPUT -i lo -j ACCEPT", ""},
		{"a protected port in nft", input + "nft add rule inet t in udp dport 53 drop", ""},
		{"our port", input + "nft add rule inet t in udp dport 8285 drop", "in"},
		{"our port among others", input + "nft add rule inet t in udp dport '{ 53, 8285 }' drop", "in"},
		{"a range of ports", input + "nft add rule inet t in udp dport 8000-9000 drop", "in"},
		{"another range of ports", input + "nft add rule inet t in udp dport 1-1023 drop", ""},
		{"not our port", input + "nft add rule inet t in udp dport != 8285 drop", ""},
		{"all that is not known", input + "nft add rule inet t in ct state invalid drop", "in"},
		{"some senders", input + "nft add rule inet t in ip saddr 198.51.100.0/24 drop", "in"},
		{"some senders, to another address", input + "nft add rule inet t in ip daddr 192.0.2.0/31 ip saddr 1.2.3.4 drop;" +
			"nft flush chain inet t in; nft add rule inet t in ip daddr 192.0.2.2/31 ip saddr 1.2.3.4 drop", ""},
		{"IPv6", input + "nft add rule inet t in meta nfproto ipv6 drop", ""},
		{"another interface", input + "nft add rule inet t in iifname eth1 drop", ""},
		{"names that begin like that of our interface", input + "nft add rule inet t in iifname 'eth*' drop", "in"},
		{"our interface", input + "nft add rule inet t in iifname eth0 drop", "in"},
		{"closed", closed, "in"},
		{"closed but for us", closed +
			"nft add rule inet t in ip saddr 1.2.3.4 counter; nft add rule inet t in udp dport 8285 accept", ""},
		{"closed but for some", closed +
			"nft add rule inet t in ip saddr 192.0.2.0/24 udp dport 8285 accept", "in"},
		{"a jump that decides", input + "nft add chain inet t more; nft add rule inet t in udp dport 8285 jump more;" +
			"nft add rule inet t in drop; nft add rule inet t more accept", ""},
		{"a jump that comes back", input + "nft add chain inet t more; nft add rule inet t in udp dport 8285 jump more;" +
			"nft add rule inet t in drop; nft add rule inet t more return", "in"},
		{"a goto that does not", input + "nft add chain inet t more; nft add rule inet t in udp dport 8285 goto more;" +
			"nft add rule inet t in drop; nft add rule inet t more counter", ""},
		{"a map of verdicts", input + "nft add rule inet t in udp dport vmap '{ 53 : drop }'", "in"},
		{"a mark", "iptables-nft -t mangle -A OUTPUT -p udp --dport 8285 -j MARK --set-mark 7", "OUTPUT"},
		{"a mark for others", "iptables-nft -t mangle -A OUTPUT -p udp --dport 53 -j MARK --set-mark 7", ""},
		{"a log", "iptables-nft -A OUTPUT -p udp -j LOG", ""},
		{"a class", "nft add table ip t; nft add chain ip t post '{ type filter hook postrouting priority 0 ; }';" +
			"nft add rule ip t post udp sport 8285 ip dscp set cs1", "post"},
		{"the ingress of a device", "nft add table netdev t;" +
			"nft add chain netdev t in '{ type filter hook ingress device eth0 priority 0 ; }';" +
			"nft add rule netdev t in ip saddr 1.2.3.4 drop", "in"},
		{"our own tables", "nft add table inet flannel;" +
			"nft add chain inet flannel in '{ type filter hook input priority 0 ; }';" +
			"nft add rule inet flannel in udp dport 8285 drop", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			iptest.Namespace(t)
			shell(t, "ip link add eth0 type veth peer name eth1")
			shell(t, test.rules)
			got, err := firewall.NewBypass().Why(flow)
			if err != nil {
				t.Fatal(err)
			}
			_, chain, _ := strings.Cut(got, "in chain ")
			if chain, _, _ = strings.Cut(chain, " "); chain != test.chain {
				t.Errorf("%q, want chain %q; rules:\n%s", got, test.chain, shell(t, "nft list ruleset"))
			}
		})
	}
}
