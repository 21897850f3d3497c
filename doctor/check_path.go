package doctor

import (
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// MostPinged bounds how many peers that do not answer are looked at further.
const MostPinged = 4

// noProbes is the finding of a check that needs answers of peers, if there are none.
func (f *Facts) noProbes() (Finding, bool) {
	switch {
	case f.NoProbes != "":
		return skip("%s", f.NoProbes), true
	case f.ProbeErr != nil:
		return fail(restartFix, "%v", f.ProbeErr), true
	case len(f.Probes) == 0:
		return skip("no peer answers probes"), true
	}
	return Finding{}, false
}

// checkTunnel tells apart peers whose daemon is silent (their kernel refuses probes, or answers pings through the
// tunnel), whose tunnel port is filtered (their host answers on the underlay), and that are down.
func checkTunnel(f *Facts) Finding {
	if r, ok := f.noProbes(); ok {
		return r
	}
	lost := f.Unreached()
	if len(lost) == 0 {
		return pass("%d of %d peers were asked, all answer", len(f.Probes), len(f.Peers))
	}
	silent, filtered, down := f.sortUnreached(lost[:min(len(lost), MostPinged)])
	switch {
	case len(filtered) > 0:
		return fail(f.allow(),
			"%d of %d peers answer on the underlay and not through the tunnel, so the tunnel port is filtered on the way: %s",
			len(lost), len(f.Probes), some(filtered))
	case len(down) > 0:
		return fail("ping the addresses; for a host that is gone for good: flannelctl leases release SUBNET --force",
			"%d of %d peers answer neither through the tunnel nor on the underlay: %s", len(lost), len(f.Probes), some(down))
	}
	return warn("on those hosts: flannelctl doctor", "%d of %d peers are reached, and their daemon does not answer "+
		"probes: it does not run, has another -probe-port, or a filter drops probes: %s",
		len(lost), len(f.Probes), some(silent))
}

// checkHandshakes looks for peers that an encrypted tunnel has no session with although packets are sent to them:
// another cause than a filter is that they do not have our key, or we an old one of theirs.
func checkHandshakes(f *Facts) Finding {
	if r, ok := f.noDaemon(); ok {
		return r
	}
	if f.Status.Backend != "wireguard" {
		return pass("no handshakes: the backend does not encrypt")
	}
	var silent []string
	for _, p := range f.Status.Silent {
		silent = append(silent, f.named(p)+f.lastHandshake(p))
	}
	if len(silent) == 0 {
		return pass("all peers that packets are sent to answer handshakes%s", f.handshakes())
	}
	return fail("flannelctl peers; on those hosts: flannelctl status; "+f.allow(),
		"%d of %d peers do not answer handshakes: they are down, the tunnel port "+
			"is filtered, or one of the two hosts does not have the other's present key or PSK: %s", len(silent),
		f.Status.Peers, some(silent))
}

// handshakes says with how many peers there were some, and when; empty: that is not known.
func (f *Facts) handshakes() string {
	var ages []time.Duration
	for _, s := range f.Sessions {
		if s.Handshake != nil {
			ages = append(ages, f.Now.Sub(*s.Handshake).Round(time.Second))
		}
	}
	switch {
	case len(f.Sessions) == 0:
		return ""
	case len(ages) == 0:
		return "; there were no handshakes yet"
	}
	return fmt.Sprintf("; last handshakes with %d of %d peers, %s to %s ago", len(ages), len(f.Sessions),
		slices.Min(ages), slices.Max(ages))
}

// lastHandshake says when that with a peer was.
func (f *Facts) lastHandshake(p netip.Prefix) string {
	s, ok := f.Sessions[p]
	switch {
	case !ok:
		return ""
	case s.Handshake == nil:
		return " (no handshake yet)"
	}
	return fmt.Sprintf(" (last handshake %s ago)", f.Now.Sub(*s.Handshake).Round(time.Second))
}

func (f *Facts) sortUnreached(peers []netip.Prefix) (silent, filtered, down []string) {
	for _, p := range peers {
		underlay := f.Pings[f.Lease(p).PublicIP]
		switch {
		case f.Probes[p].Silent(), underlay && (len(f.Devices) == 0 || f.Pings[p.Addr()]):
			silent = append(silent, f.named(p))
		case underlay:
			filtered = append(filtered, f.named(p))
		default:
			down = append(down, f.named(p))
		}
	}
	return silent, filtered, down
}

// allow is the rule that lets the tunnel through.
func (f *Facts) allow() string {
	port := f.tunnelPort()
	if port == 0 && f.Config.BackendType == "ipip" {
		return "on both hosts and between them: allow IP protocol 4, for example iptables -I INPUT -p ipencap -j ACCEPT"
	}
	if port == 0 {
		return "look for a packet filter between the hosts"
	}
	return fmt.Sprintf("on both hosts and between them: allow UDP port %d, for example "+
		"iptables -I INPUT -p udp --dport %d -j ACCEPT", port, port)
}

func checkPathMTU(f *Facts) Finding {
	if r, ok := f.noProbes(); ok {
		return r
	}
	var small []string
	for p, r := range f.Probes {
		if r.Small(f.MTU) {
			small = append(small, fmt.Sprintf("%s: %d", f.named(p), r.PathMTU))
		}
	}
	slices.Sort(small)
	if len(small) > 0 {
		return fail(`flannelctl network edit: set "MTU" of the backend to what the path carries; `+
			"then restart the daemons and the containers", "packets of %d bytes are lost on the way to %d of %d peers; "+
			"the largest that arrive, in bytes: %s", f.MTU, len(small), len(f.Probes), some(small))
	}
	return pass("packets of %d bytes arrive", f.MTU)
}
