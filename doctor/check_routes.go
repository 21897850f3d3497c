package doctor

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"

	"flanneld/ip"
	"flanneld/subnet"
)

// Devices are the names that flannel gives its devices.
var Devices = regexp.MustCompile(`^flannel(\d+|\.\d+|-v6\.\d+|\.ipip|-wg|-wg-v6|\.wg)$`)

func (r Route) String() string {
	text := r.Dst.String()
	if r.Gateway != "" {
		text += " via " + r.Gateway
	}
	if r.Dev != "" {
		text += " dev " + r.Dev
	}
	return text + " proto " + orNone(r.Protocol)
}

// ours reports whether a route is one of the network's own.
func (f *Facts) ours(r Route) bool {
	return r.Protocol == fmt.Sprint(ip.Protocol) || f.ownDevice(r.Dev)
}

// inTheWay returns the route of another program that packets to an address take.
func (f *Facts) inTheWay(a netip.Addr) (Route, bool) {
	var best Route
	for _, r := range f.Routes {
		if r.Dst.Contains(a) && (!best.Dst.IsValid() || r.Dst.Bits() > best.Dst.Bits()) {
			best = r
		}
	}
	return best, best.Dst.Bits() > 0 && !f.ours(best)
}

const conflictFix = "remove that route or address, if it is not needed; otherwise move the peer to another subnet " +
	"(on the peer: flannelctl drain, then restart flanneld), or change the range of the network (flannelctl network edit)"

// checkPeers compares where the kernel would send a packet to each peer with where it should.
func checkPeers(f *Facts) Finding {
	if f.LinksErr != nil || len(f.Subnets) == 0 || f.Config.BackendType == "alloc" {
		return skip("this host carries no packets of the network")
	}
	var lost, blocked []string
	for _, l := range f.Peers {
		hop, ok := f.Hops[l.Subnet]
		if !ok || hop.Err == nil && (f.ownDevice(hop.Link) || hop.Via == l.PublicIP) {
			continue
		}
		r, foreign := f.inTheWay(l.Subnet.Addr().Next())
		switch {
		case foreign:
			blocked = append(blocked, fmt.Sprintf("%s: the route %s of another program is in the way", f.named(l.Subnet), r))
		case hop.Err != nil:
			lost = append(lost, fmt.Sprintf("%s: %v", f.named(l.Subnet), hop.Err))
		default:
			lost = append(lost, fmt.Sprintf("%s: packets leave by %s", f.named(l.Subnet), hop))
		}
	}
	switch {
	case len(blocked) > 0:
		return fail(conflictFix, "%d of %d peers are not reached: %s", len(blocked)+len(lost), len(f.Peers),
			some(append(blocked, lost...)))
	case len(lost) > 0:
		return fail(restartFix, "no route to %d of %d peers: %s", len(lost), len(f.Peers), some(lost))
	case f.Status.Failing > 0:
		return fail("flannelctl peers", "%d of %d peers are not installed in the kernel", f.Status.Failing, f.Status.Peers)
	}
	return pass("%s, a route to each", count(len(f.Peers), "peer"))
}

// checkOverlap looks for routes and addresses of others that overlap the network: packets to what is in both go one
// way only. It is a failure where a peer is.
func checkOverlap(f *Facts) Finding {
	if len(f.Config.Pools) == 0 {
		return skip("no network configuration is known")
	}
	verdict := warn
	var others []string
	var connected []netip.Prefix
	add := func(what, hits string) {
		others = append(others, what+hits)
		if hits != "" {
			verdict = fail
		}
	}
	for _, l := range f.Links {
		if f.ownDevice(l.Name) || bridgeLike(l.Name) || Devices.MatchString(l.Name) {
			continue
		}
		for _, a := range l.Addrs {
			if !a.IsSingleIP() && f.inNetwork(a.Masked()) && !f.ownSubnet(a.Addr()) {
				connected = append(connected, a.Masked())
				add(fmt.Sprintf("%s, the network of %s (%s)", a.Masked(), l.Name, a.Addr()), f.hits(a.Masked()))
			}
		}
	}
	for _, r := range f.Routes {
		switch {
		case r.Dst.Bits() == 0, !f.inNetwork(r.Dst), f.ours(r), slices.Contains(connected, r.Dst):
		case f.ownSubnet(r.Dst.Addr()) && r.Gateway == "":
		case f.onBridge(r.Dst):
		default:
			add("route "+r.String(), f.hits(r.Dst))
		}
	}
	if len(others) > 0 {
		return verdict(conflictFix, "routes of other programs overlap the network %s: %s", list(f.Config.Networks()),
			some(others))
	}
	return pass("no other route overlaps %s", list(f.Config.Networks()))
}

// hits names the peers whose subnets a range overlaps.
func (f *Facts) hits(p netip.Prefix) string {
	var peers []string
	for _, l := range f.Peers {
		if l.Subnet.Overlaps(p) {
			peers = append(peers, f.named(l.Subnet))
		}
	}
	if len(peers) == 0 {
		return ""
	}
	return ", where the peer " + some(peers) + " is"
}

// onBridge reports whether a route is the kernel's own for an address on a bridge, which checkBridge looks at.
func (f *Facts) onBridge(p netip.Prefix) bool {
	for _, l := range f.Links {
		if bridgeLike(l.Name) && slices.ContainsFunc(l.Addrs, func(a netip.Prefix) bool { return a.Masked() == p }) {
			return true
		}
	}
	return false
}

// Uses reports whether a device is that of one of the networks.
func Uses(networks []subnet.State, device string) bool {
	return slices.ContainsFunc(networks, func(s subnet.State) bool { return slices.Contains(s.Links, device) })
}

// checkLeftovers looks for what a former flannel, or a former backend, has left.
func checkLeftovers(f *Facts) Finding {
	var left []string
	for _, l := range f.Links {
		if Devices.MatchString(l.Name) && !f.ownDevice(l.Name) && !Uses(f.Others, l.Name) {
			left = append(left, "device "+l.Name)
		}
	}
	known := map[netip.Prefix]bool{}
	for _, l := range f.Peers {
		known[l.Subnet] = true
	}
	for _, r := range f.Routes {
		if f.StoreErr != nil || f.DaemonErr == nil {
			break // it is not known what should be there, or the daemon sees to it
		}
		pool, ok := f.Config.Pool(r.Dst)
		if ok && pool.Holds(r.Dst) && r.Protocol == fmt.Sprint(ip.Protocol) && !known[r.Dst] {
			left = append(left, "route "+r.Dst.String())
		}
	}
	if len(left) > 0 {
		return warn("flannelctl cleanup --flannel --dry-run, unless another daemon of this host uses it",
			"left by a former flannel or backend: %s", some(left))
	}
	return pass("nothing is left of a former flannel or backend")
}
