package doctor

import (
	"fmt"
	"net/netip"
	"regexp"
	"strings"
)

func checkBridge(f *Facts) Finding {
	if len(f.Subnets) == 0 {
		return skip("this host has no subnet")
	}
	bridges := f.Bridges()
	if r, wrong := f.foreignBridge(); wrong {
		return r
	}
	for _, l := range bridges {
		for _, a := range l.Addrs {
			if !f.inNetwork(a.Masked()) || f.ownSubnet(a.Addr()) {
				continue
			}
			fix := fmt.Sprintf("ip addr flush dev %s, then recreate its containers", l.Name)
			if strings.HasPrefix(l.Name, "docker") {
				fix = "mk-docker-opts.sh -c && systemctl restart docker"
			}
			return fail(fix, "%s has %s, which is not in this host's subnet %s: its containers are not reached", l.Name, a,
				list(f.Subnets))
		}
	}
	if len(bridges) == 0 {
		return pass("no bridge uses the network yet")
	}
	return pass("%s is in the subnet", bridges[0].Name)
}

// foreignBridge looks for an address of the pods' bridge that is of an earlier subnet or network: the plugin refuses to
// start a pod then ("cni0 already has an IP address different from").
func (f *Facts) foreignBridge() (Finding, bool) {
	name := f.CNI.bridgeName()
	l, ok := f.link(name)
	if !ok || f.Pod == nil {
		return Finding{}, false
	}
	for _, a := range l.Addrs {
		if f.ownSubnet(a.Addr()) || a.Addr().IsLinkLocalUnicast() {
			continue
		}
		fix := fmt.Sprintf("kubectl drain %s --ignore-daemonsets, then on that node: ip link delete %s; "+
			"then kubectl uncordon %s", f.Pod.Node, name, f.Pod.Node)
		return fail(fix, "%s has %s, which is not in this node's podCIDR %s: pods cannot be started, and those that run "+
			"are not reached", name, a, list(f.Subnets)), true
	}
	return Finding{}, false
}

// checkBridgeAddresses looks for two bridges with one range: each runtime hands out the same addresses.
func checkBridgeAddresses(f *Facts) Finding {
	seen := map[string]netip.Prefix{}
	for _, l := range f.Bridges() {
		for _, a := range l.Addrs {
			if !f.ownSubnet(a.Addr()) {
				continue
			}
			if name := overlapping(seen, l.Name, a.Masked()); name != "" {
				return fail(splitFix(f.Subnets, a),
					"%s and %s both use %s: two containers can get the same address, and packets reach one bridge only", name, l.Name,
					a.Masked())
			}
			seen[l.Name] = a.Masked()
		}
	}
	return pass("no two bridges share a range")
}

// overlapping returns a bridge of another name with a range that overlaps one; empty if there is none.
func overlapping(ranges map[string]netip.Prefix, bridge string, p netip.Prefix) string {
	for name, other := range ranges {
		if name != bridge && other.Overlaps(p) {
			return name
		}
	}
	return ""
}

// splitFix says how two runtimes share the subnet that an address is of: each gets one half.
func splitFix(subnets []netip.Prefix, a netip.Prefix) string {
	for _, s := range subnets {
		if low, high, ok := halves(s); ok && s.Contains(a.Addr()) {
			return fmt.Sprintf("take one of them out of the network, or split the subnet: docker --bip=%s and, "+
				"in a CNI configuration of type bridge, the host-local range %s "+
				"(troubleshooting.md has an example)", netip.PrefixFrom(low.Addr().Next(), low.Bits()), high)
		}
	}
	return "take one of them out of the network"
}

// halves splits an IPv4 subnet.
func halves(s netip.Prefix) (low, high netip.Prefix, ok bool) {
	if !s.Addr().Is4() || s.Bits() > 29 {
		return low, high, false
	}
	b := s.Masked().Addr().As4()
	b[s.Bits()/8] |= 0x80 >> (s.Bits() % 8)
	return netip.PrefixFrom(s.Masked().Addr(), s.Bits()+1), netip.PrefixFrom(netip.AddrFrom4(b), s.Bits()+1), true
}

func checkBridgeMTU(f *Facts) Finding {
	for _, l := range f.Bridges() {
		if f.MTU > 0 && l.MTU > f.MTU {
			return fail("", "%s has MTU %d, the network carries %d: larger packets are lost", l.Name, l.MTU, f.MTU).
				safe(fmt.Sprintf("ip link set %s mtu %d", l.Name, f.MTU))
		}
	}
	return pass("no bridge has an MTU above %d", f.MTU)
}

// dropsDirect are rules by which docker 28 and later drop what does not come from a container's own bridge, in the
// language of iptables and of nft.
var dropsDirect = []*regexp.Regexp{
	regexp.MustCompile(`^-A (\S+) -d (\S+) ! -i (\S+) -j DROP`),
	regexp.MustCompile(`ip6? daddr (\S+) iifname != (.+?) .*drop`),
}

const directRoutingFix = "mk-docker-opts.sh and flannel-docker set it; by hand: " +
	`"allow-direct-routing": true in /etc/docker/daemon.json, then systemctl restart docker`

// checkDockerRouting looks for docker's rules in the raw table that drop packets to containers from other hosts.
func checkDockerRouting(f *Facts) Finding {
	seen := false
	for _, r := range f.Rules {
		if r.Table != "raw" {
			continue
		}
		seen = true
		for line := range strings.Lines(r.Text) {
			if a, ok := f.directDrop(strings.TrimSpace(line)); ok {
				return fail(directRoutingFix, "docker drops packets from other hosts to its container %s (%s): "+
					"docker 28 and later need a setting to allow direct routing", a, r.Program)
			}
		}
	}
	if !seen {
		return skip("no rules of docker in the raw table")
	}
	return pass("docker lets packets from other hosts reach its containers")
}

func (f *Facts) directDrop(line string) (netip.Addr, bool) {
	for _, pattern := range dropsDirect {
		m := pattern.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		for _, word := range m[1:] {
			a, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimSuffix(word, "/32"), "/128"))
			if err == nil && f.ownSubnet(a) {
				return a, true
			}
		}
	}
	return netip.Addr{}, false
}
