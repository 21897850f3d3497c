package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"flanneld/ip"
)

func checkInterface(_ context.Context, f *facts) finding {
	if f.kernelErr != nil {
		return fail("", "%v", f.kernelErr)
	}
	wanted := f.status.Addresses
	if len(wanted) == 0 {
		for _, l := range f.state.Own.Leases {
			wanted = append(wanted, l.PublicIP)
		}
	}
	if len(wanted) == 0 {
		return skip("this host has published no address")
	}
	var names []string
	for _, a := range wanted {
		i := slices.IndexFunc(f.links, func(l ip.Interface) bool {
			return slices.ContainsFunc(l.Addrs, func(p netip.Prefix) bool { return p.Addr() == a })
		})
		switch {
		case i < 0 && f.daemonErr != nil:
			return warn("", "no interface has %s, the address published last: another one behind a NAT, or gone", a)
		case i < 0:
			return fail("systemctl restart flanneld, or choose with -iface", "no interface has %s, which the tunnel is bound to", a)
		case !f.links[i].Up || !f.links[i].Running:
			return fail("ip link set "+f.links[i].Name+" up", "%s, which has %s, is down", f.links[i].Name, a)
		}
		names = append(names, fmt.Sprintf("%s has %s", f.links[i].Name, a))
	}
	return pass("%s%s", strings.Join(names, ", "), because(f.status.Chosen))
}

func because(reason string) string {
	if reason == "" {
		return ""
	}
	return " (" + reason + ")"
}

func checkDevice(_ context.Context, f *facts) finding {
	if len(f.devices) == 0 {
		return skip("the backend has no device")
	}
	for _, name := range f.devices {
		l, ok := f.link(name)
		switch {
		case !ok:
			return fail(restartFix, "%s is missing", name)
		case !l.Up:
			return fail("", "%s is down", name).safe("ip link set " + name + " up")
		case l.MTU < f.mtu:
			return fail("", "%s has MTU %d, the subnet file says %d", name, l.MTU, f.mtu).safe(fmt.Sprintf("ip link set %s mtu %d", name, f.mtu))
		}
		for _, p := range f.subnets {
			own := netip.PrefixFrom(p.Addr(), p.Addr().BitLen())
			if p.Addr().Is4() != strings.Contains(name, "-v6") && !slices.Contains(l.Addrs, own) {
				return fail("", "%s has not the address %s", name, own).safe(fmt.Sprintf("ip addr add %s dev %s", own, name))
			}
		}
	}
	return pass("%s up, MTU %d", list(f.devices), f.mtu)
}

func checkMAC(_ context.Context, f *facts) finding {
	for name, want := range f.state.MACs {
		l, ok := f.link(name)
		if ok && l.MAC.String() != want {
			return fail("", "%s has the hardware address %s, peers were told %s: a network manager (MACAddressPolicy=persistent of systemd-udevd, NetworkManager) has changed it",
				name, l.MAC, want).safe(fmt.Sprintf("ip link set %s address %s", name, want))
		}
	}
	if len(f.state.MACs) == 0 {
		return skip("the backend has no device with a hardware address")
	}
	return pass("as published")
}

// mostDrift is how many repaired objects in an hour are no news.
const mostDrift = 10

func checkDrift(_ context.Context, f *facts) finding {
	if f.daemonErr != nil {
		return skip("no daemon")
	}
	total := uint64(0)
	for _, n := range f.status.Drift {
		total += n
	}
	up := time.Since(f.status.Started)
	if float64(total) >= mostDrift*max(1, up.Hours()) {
		return warn("journalctl -u flanneld -u NetworkManager -u systemd-networkd; then set the device unmanaged there",
			"somebody keeps changing what is ours: %s in %s", driftText(f.status.Drift), up.Round(time.Second))
	}
	return pass("%s", driftText(f.status.Drift))
}

// checkPeers asks the kernel where it would send a packet to each peer.
func checkPeers(_ context.Context, f *facts) finding {
	if f.kernelErr != nil || len(f.subnets) == 0 || f.config.BackendType == "alloc" {
		return skip("this host carries nothing")
	}
	var lost []string
	for _, l := range f.peers {
		hop, err := f.kernel.RouteTo(l.Subnet.Addr().Next())
		if err != nil {
			lost = append(lost, fmt.Sprintf("%s: %v", f.named(l.Subnet), err))
			continue
		}
		if !slices.Contains(f.devices, hop.Link) && hop.Via != l.PublicIP {
			lost = append(lost, fmt.Sprintf("%s: leaves by %s via %s", f.named(l.Subnet), hop.Link, hop.Via))
		}
	}
	if len(lost) > 0 {
		return fail(restartFix, "%d of %d peers are not routed to: %s", len(lost), len(f.peers), some(lost))
	}
	if f.status.Failing > 0 {
		return fail("flannelctl peers", "%d of %d peers are not in the kernel", f.status.Failing, f.status.Peers)
	}
	return pass("%d peers, all routed", len(f.peers))
}

func checkForwarding(_ context.Context, f *facts) finding {
	for _, fam := range []struct {
		is4 bool
		key string
	}{{true, "net/ipv4/ip_forward"}, {false, "net/ipv6/conf/all/forwarding"}} {
		if !slices.ContainsFunc(f.config.Networks(), func(p netip.Prefix) bool { return p.Addr().Is4() == fam.is4 }) {
			continue
		}
		if v, err := sysctl(fam.key); err == nil && v == 0 {
			return fail("", "%s is 0: packets of pods stop here", fam.key).safe("sysctl -q -w " + strings.ReplaceAll(fam.key, "/", ".") + "=1")
		}
	}
	return pass("on")
}

func checkReversePath(_ context.Context, f *facts) finding {
	all, err := sysctl("net/ipv4/conf/all/rp_filter")
	if err != nil {
		return skip("%v", err)
	}
	for _, name := range append(slices.Clone(f.devices), f.status.Interface) {
		if name == "" {
			continue
		}
		own, err := sysctl("net/ipv4/conf/" + name + "/rp_filter")
		if err == nil && max(all, own) == 1 {
			f := warn("", "rp_filter is strict on %s: packets that return another way are dropped without a word", name)
			return f.safe("sysctl -q -w net.ipv4.conf." + strings.ReplaceAll(name, ".", "/") + ".rp_filter=2")
		}
	}
	return pass("not strict on %s", list(append(slices.Clone(f.devices), f.status.Interface)))
}

// checkForwardChain looks for a FORWARD policy that drops, as docker sets it, with nothing before it that accepts the network.
func checkForwardChain(ctx context.Context, f *facts) finding {
	seen := false
	for _, program := range []string{"iptables-nft", "iptables-legacy"} {
		if program == "iptables-legacy" {
			if names, err := os.ReadFile("/proc/net/ip_tables_names"); err != nil || !strings.Contains(string(names), "filter") {
				continue
			}
		}
		out, err := exec.CommandContext(ctx, program, "-S").Output()
		if err != nil {
			continue
		}
		seen = true
		if strings.Contains(string(out), "-P FORWARD DROP") && !f.accepts(string(out)) {
			return fail("restart flanneld with -iptables-forward-rules, or: iptables -I FORWARD -s NETWORK -j ACCEPT; iptables -I FORWARD -d NETWORK -j ACCEPT",
				"%s: the policy of FORWARD is DROP, and no rule accepts %s", program, list(f.config.Networks()))
		}
	}
	if !seen {
		return skip("no iptables here")
	}
	return pass("FORWARD lets the network pass")
}

func checkFirewall(_ context.Context, f *facts) finding {
	wall := f.status.Firewall
	switch {
	case f.daemonErr != nil || wall == nil:
		return skip("no daemon")
	case len(wall.Problems) > 0:
		return fail("", "%s", some(wall.Problems))
	case len(wall.Strangers) > 0:
		return warn("flannelctl status --json: who sends; is it a host whose lease is gone?", "%d tunnel packets of strangers were dropped, most from %s", wall.Dropped, wall.Strangers[0].Address)
	}
	return pass("as wanted")
}

// accepts reports whether rules accept packets from the network.
func (f *facts) accepts(rules string) bool {
	for line := range strings.Lines(rules) {
		if !strings.Contains(line, "-j ACCEPT") {
			continue
		}
		for _, n := range f.config.Networks() {
			if strings.Contains(line, n.String()) {
				return true
			}
		}
	}
	return false
}

func checkNeighbours(_ context.Context, f *facts) finding {
	most, err := sysctl("net/ipv4/neigh/default/gc_thresh3")
	if err != nil {
		return skip("the limit is that of the initial network namespace")
	}
	if n := len(f.peers); n*10 >= most*9 {
		return fail("", "%d peers, and the kernel keeps at most %d neighbours", n, most).safe(fmt.Sprintf("sysctl -q -w net.ipv4.neigh.default.gc_thresh3=%d", 4*n))
	}
	return pass("%d peers, room for %d", len(f.peers), most)
}

func checkConntrack(_ context.Context, _ *facts) finding {
	n, err := sysctl("net/netfilter/nf_conntrack_count")
	most, err2 := sysctl("net/netfilter/nf_conntrack_max")
	if err != nil || err2 != nil || most == 0 {
		return skip("no connection tracking here")
	}
	if n*10 >= most*9 {
		return fail(fmt.Sprintf("sysctl -w net.netfilter.nf_conntrack_max=%d", 2*most), "%d of %d connections are tracked: new ones are dropped", n, most)
	}
	return pass("%d of %d", n, most)
}

// fewBad is how many packets with a wrong checksum are the weather.
const fewBad = 20

// checkChecksums looks for packets that arrive with a wrong checksum: some NICs compute that of tunnelled packets wrongly.
func checkChecksums(_ context.Context, f *facts) finding {
	text, err := os.ReadFile("/proc/self/net/snmp")
	if err != nil {
		return skip("%v", err)
	}
	for _, proto := range []string{"Udp", "Tcp"} {
		v := snmp(string(text), proto)
		in := v["InDatagrams"] + v["InSegs"]
		if bad := v["InCsumErrors"]; bad >= fewBad && bad*100 > in {
			finding := fail("", "%d of %d %s packets came with a wrong checksum: the sender's NIC computes it wrongly inside the tunnel", bad, in+bad, proto)
			if len(f.devices) > 0 {
				finding.Fix = "on the senders: ethtool -K " + f.devices[0] + " tx-checksum-ip-generic off"
			}
			return finding
		}
	}
	return pass("as good as none wrong")
}

// snmp reads the counters of one protocol: a line of names and a line of values.
func snmp(text, proto string) map[string]int {
	out := map[string]int{}
	var names []string
	for line := range strings.Lines(text) {
		rest, ok := strings.CutPrefix(line, proto+": ")
		if !ok {
			continue
		}
		cells := strings.Fields(rest)
		if names == nil {
			names = cells
			continue
		}
		for i, c := range cells[:min(len(cells), len(names))] {
			out[names[i]], _ = strconv.Atoi(c) // the kernel writes numbers
		}
	}
	return out
}
