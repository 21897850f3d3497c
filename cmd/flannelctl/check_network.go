package main

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"flanneld/ip"
	"flanneld/subnet"
)

// checkOverlap looks for routes of others that reach into the network.
func checkOverlap(_ context.Context, f *facts) finding {
	if len(f.config.Pools) == 0 {
		return skip("no network configuration is known")
	}
	var others []string
	for _, r := range f.routes {
		switch {
		case r.prefix.Bits() == 0, !f.inNetwork(r.prefix), r.Protocol == fmt.Sprint(ip.Protocol), slices.Contains(f.devices, r.Dev):
		case f.ownSubnet(r.prefix.Addr()) && r.Gateway == "":
		case f.ownRange(r.prefix):
		default:
			others = append(others, fmt.Sprintf("%s via %s dev %s proto %s", r.prefix, orNone(r.Gateway), orNone(r.Dev), r.Protocol))
		}
	}
	if len(others) > 0 {
		return fail("ip route del ROUTE, or give the network another range (flannelctl network edit)", "routes of others lie in or over the network %s: %s", list(f.config.Networks()), some(others))
	}
	return pass("no other route in or over %s", list(f.config.Networks()))
}

// ownRange reports whether a route is the kernel's own for an address on a bridge, which checkBridge looks at.
func (f *facts) ownRange(p netip.Prefix) bool {
	for _, l := range f.links {
		if slices.ContainsFunc(l.Addrs, func(a netip.Prefix) bool { return a.Masked() == p }) && f.bridgeLike(l.Name) {
			return true
		}
	}
	return false
}

func (f *facts) bridgeLike(name string) bool {
	return name == "cni0" || strings.HasPrefix(name, "docker") || strings.HasPrefix(name, "br-")
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

// bridges returns the bridges of container runtimes that are wired to the network, or have been.
func (f *facts) bridges() []ip.Interface {
	var out []ip.Interface
	for _, l := range f.links {
		if f.bridgeLike(l.Name) && slices.ContainsFunc(l.Addrs, func(p netip.Prefix) bool { return f.inNetwork(p.Masked()) }) {
			out = append(out, l)
		}
	}
	return out
}

func checkBridge(_ context.Context, f *facts) finding {
	if len(f.subnets) == 0 {
		return skip("this host has no subnet")
	}
	bridges := f.bridges()
	for _, l := range bridges {
		for _, a := range l.Addrs {
			if f.inNetwork(a.Masked()) && !f.ownSubnet(a.Addr()) {
				fix := fmt.Sprintf("ip addr flush dev %s, then start its pods anew", l.Name)
				if strings.HasPrefix(l.Name, "docker") {
					fix = "mk-docker-opts.sh -c && systemctl restart docker"
				}
				return fail(fix, "%s has %s, which is not in this host's subnet %s: its pods reach nobody", l.Name, a, list(f.subnets))
			}
		}
	}
	if len(bridges) == 0 {
		return pass("no bridge is wired to the network yet")
	}
	return pass("%s in the subnet", bridges[0].Name)
}

func checkBridgeMTU(_ context.Context, f *facts) finding {
	for _, l := range f.bridges() {
		if f.mtu > 0 && l.MTU > f.mtu {
			return fail("", "%s has MTU %d, the network carries %d: large packets vanish", l.Name, l.MTU, f.mtu).safe(fmt.Sprintf("ip link set %s mtu %d", l.Name, f.mtu))
		}
	}
	return pass("not above %d", f.mtu)
}

// checkLeftovers looks for what a former flannel, or a former backend, has left.
func checkLeftovers(_ context.Context, f *facts) finding {
	var left []string
	for _, l := range f.links {
		if flannelDevices.MatchString(l.Name) && !slices.Contains(f.devices, l.Name) {
			left = append(left, "device "+l.Name)
		}
	}
	known := map[netip.Prefix]bool{}
	for _, l := range f.peers {
		known[l.Subnet] = true
	}
	for _, r := range f.routes {
		pool, ok := f.config.Pool(r.prefix)
		if ok && pool.Holds(r.prefix) && r.Protocol == fmt.Sprint(ip.Protocol) && !known[r.prefix] && f.storeErr == nil && f.daemonErr != nil {
			left = append(left, "route "+r.prefix.String())
		}
	}
	if len(left) > 0 {
		return warn("flannelctl cleanup --flannel --dry-run, if it belongs to no other daemon of this host", "%s", some(left))
	}
	return pass("none")
}

// path is what probing has found, peer by peer.
func (f *facts) unreachable() (lost []netip.Prefix) {
	for p, r := range f.probed {
		if r.Down() || r.Silent() {
			lost = append(lost, p)
		}
	}
	slices.SortFunc(lost, func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) })
	return lost
}

func (f *facts) probeProblem() (finding, bool) {
	switch {
	case f.probeSkip != "":
		return skip("%s", f.probeSkip), true
	case f.probeErr != nil:
		return fail(restartFix, "%v", f.probeErr), true
	case len(f.probed) == 0:
		return skip("no peer that answers probes"), true
	}
	return finding{}, false
}

// checkTunnel tells apart peers whose daemon is silent (their kernel refuses probes, or answers pings through the tunnel), whose tunnel port is filtered
// (their host answers on the underlay), and that are down.
func checkTunnel(ctx context.Context, f *facts) finding {
	if r, ok := f.probeProblem(); ok {
		return r
	}
	lost := f.unreachable()
	if len(lost) == 0 {
		return pass("%d of %d peers asked, all answer", len(f.probed), len(f.peers))
	}
	var silent, filtered, down []string
	for _, p := range lost[:min(len(lost), 4)] {
		if f.probed[p].Silent() {
			silent = append(silent, f.named(p))
			continue
		}
		underlay := pings(ctx, f.leaseOf(p).PublicIP)
		switch {
		case underlay && (len(f.devices) == 0 || pings(ctx, p.Addr())):
			silent = append(silent, f.named(p))
		case underlay:
			filtered = append(filtered, f.named(p))
		default:
			down = append(down, f.named(p))
		}
	}
	switch {
	case len(filtered) > 0:
		return fail(f.allow(), "%d of %d peers do not answer through the tunnel though their host answers on the underlay, so the tunnel port is filtered on the way: %s",
			len(lost), len(f.probed), some(filtered))
	case len(down) > 0:
		return fail("ping the addresses; flannelctl leases release SUBNET --force if a host is gone for good",
			"%d of %d peers do not answer, neither through the tunnel nor on the underlay: %s", len(lost), len(f.probed), some(down))
	}
	return warn("on those hosts: flannelctl doctor", "%d of %d peers carry packets, but their daemon does not answer probes: dead, another -probe-port, or a filter: %s",
		len(lost), len(f.probed), some(silent))
}

// allow is the rule that lets the tunnel through.
func (f *facts) allow() string {
	port := map[string]string{"vxlan": "8472", "udp": "8285", "wireguard": "51820"}[f.config.BackendType]
	if port == "" {
		return "look for a filter between the hosts"
	}
	return "on both hosts and between them: allow UDP port " + port + ", e.g. iptables -I INPUT -p udp --dport " + port + " -j ACCEPT"
}

func (f *facts) leaseOf(p netip.Prefix) subnet.Lease {
	for _, l := range f.peers {
		if l.Subnet == p {
			return l
		}
	}
	return subnet.Lease{}
}

func checkPathMTU(_ context.Context, f *facts) finding {
	if r, ok := f.probeProblem(); ok {
		return r
	}
	var small []string
	for p, r := range f.probed {
		if r.Small(f.mtu) {
			small = append(small, fmt.Sprintf("%s: %d", f.named(p), r.PathMTU))
		}
	}
	slices.Sort(small)
	if len(small) > 0 {
		return fail(`flannelctl network edit: set "MTU" of the backend to what the path carries, then restart the daemons and the pods`,
			"packets of %d bytes get lost on the way to %d of %d peers; the largest that arrive: %s", f.mtu, len(small), len(f.probed), some(small))
	}
	return pass("%d bytes pass", f.mtu)
}

func checkVersions(_ context.Context, f *facts) finding {
	if f.daemonErr != nil {
		return skip("no daemon")
	}
	var others []string
	for p, r := range f.probed {
		if r.Version != "" && r.Version != f.status.Version {
			others = append(others, fmt.Sprintf("%s runs %s", f.named(p), r.Version))
		}
	}
	slices.Sort(others)
	foreign := 0
	for _, l := range f.peers {
		if f.hosts[l.Subnet].Identity == "" {
			foreign++
		}
	}
	if len(others) > 0 {
		return warn("upgrade the hosts that are behind", "this host runs %s, %s", f.status.Version, some(others))
	}
	if foreign > 0 {
		return pass("%s here, %d peers run flannel", f.status.Version, foreign)
	}
	return pass("%s on all that were asked", f.status.Version)
}
