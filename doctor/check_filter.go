package doctor

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// checkForwarding looks at the switch of the whole host, and at that of each interface which packets of containers
// arrive on: IPv4 packets are forwarded only where the interface says so. IPv6 has the switch of the host alone.
func checkForwarding(f *Facts) Finding {
	has := func(is4 bool) bool {
		return slices.ContainsFunc(f.Config.Networks(), func(p netip.Prefix) bool { return p.Addr().Is4() == is4 })
	}
	if v, ok := f.Sysctls["net/ipv4/ip_forward"]; ok && v == 0 && has(true) {
		return fail("", "net/ipv4/ip_forward is 0: the kernel drops packets from and to containers").
			safe("sysctl -q -w net.ipv4.ip_forward=1")
	}
	if v, ok := f.Sysctls["net/ipv6/conf/all/forwarding"]; ok && v == 0 && has(false) {
		return fail("", "net/ipv6/conf/all/forwarding is 0: the kernel drops packets from and to containers").
			safe("sysctl -q -w net.ipv6.conf.all.forwarding=1")
	}
	var off, repair []string
	for _, name := range f.Forwarders() {
		if v, ok := f.Sysctls["net/ipv4/conf/"+name+"/forwarding"]; ok && v == 0 && has(true) {
			off = append(off, name)
			repair = append(repair, "sysctl -q -w net/ipv4/conf/"+name+"/forwarding=1")
		}
	}
	if len(off) > 0 {
		return fail("",
			"forwarding is off on %s (net/ipv4/conf/%s/forwarding is 0): packets for containers that arrive there are dropped",
			strings.Join(off, ", "), off[0]).safe(repair...)
	}
	return pass("forwarding is on")
}

func checkReversePath(f *Facts) Finding {
	all, ok := f.Sysctls["net/ipv4/conf/all/rp_filter"]
	if !ok {
		return skip("net/ipv4/conf/all/rp_filter cannot be read")
	}
	names := slices.Clone(f.Devices)
	if f.Status.Interface != "" {
		names = append(names, f.Status.Interface)
	}
	for _, name := range names {
		if own, ok := f.Sysctls["net/ipv4/conf/"+name+"/rp_filter"]; ok && max(all, own) == 1 {
			return warn("", "rp_filter is strict on %s: "+
				"packets whose answer would leave by another interface are dropped without a message", name).
				safe("sysctl -q -w net/ipv4/conf/" + name + "/rp_filter=2")
		}
	}
	return pass("not strict on %s", orNone(list(names)))
}

// checkForwardChain looks for a FORWARD policy that drops, as docker sets it, with no rule that accepts the network.
func checkForwardChain(f *Facts) Finding {
	seen := false
	for _, r := range f.Rules {
		if r.Table != "filter" || !strings.HasPrefix(r.Program, "iptables") {
			continue
		}
		seen = true
		if strings.Contains(r.Text, "-P FORWARD DROP") && !f.accepts(r.Text) {
			return fail("restart flanneld with -iptables-forward-rules, or: "+
				"iptables -I FORWARD -s NETWORK -j ACCEPT; iptables -I FORWARD -d NETWORK -j ACCEPT",
				"%s: the policy of FORWARD is DROP, and no rule accepts %s", r.Program, list(f.Config.Networks()))
		}
	}
	if !seen {
		return skip("iptables is not installed, or only root may list its rules")
	}
	return pass("the FORWARD chain accepts the network")
}

// accepts reports whether rules accept packets from the network.
func (f *Facts) accepts(rules string) bool {
	for line := range strings.Lines(rules) {
		if !strings.Contains(line, "-j ACCEPT") {
			continue
		}
		for _, n := range f.Config.Networks() {
			if strings.Contains(line, n.String()) {
				return true
			}
		}
	}
	return false
}

func checkFirewall(f *Facts) Finding {
	if r, ok := f.noDaemon(); ok {
		return r
	}
	switch w := f.Status.Firewall; {
	case w == nil:
		return skip("the daemon has set up no firewall yet")
	case len(w.Problems) > 0:
		return fail("", "%s", some(w.Problems))
	case len(w.NonPeers) > 0:
		fix := fmt.Sprintf("find out what %s is: a host whose lease has expired, or one that should not send to the tunnel",
			w.NonPeers[0].Address)
		return warn(fix,
			"%d tunnel packets of hosts that are no peers were dropped, most of them from %s", w.Dropped, w.NonPeers[0].Address)
	}
	return pass("the rules are in place")
}
