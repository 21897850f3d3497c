package firewall

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/google/nftables"

	"flanneld/firewall/foreign"
	"flanneld/sorted"
)

// table is an nftables table of the family inet as a value: what render makes of rules, and what is read from the
// kernel. The zero value is a table that is not there.
type table struct {
	name   string
	flags  uint32  // NFT_TABLE_F_*: one of others that is asleep or owned is not what we want
	sets   []set   // sorted by name
	chains []chain // sorted by name
}

// chain is a list of rules. One with a kind is called by the kernel at the hook, others only by jumps.
type chain struct {
	name     string
	kind     nftables.ChainType
	hook     nftables.ChainHook
	priority nftables.ChainPriority
	drop     bool // policy
	rules    []rule
}

// set is a set of addresses of one family.
type set struct {
	name    string
	is4     bool
	ranges  bool // the elements are starts and ends of ranges, not single addresses
	dynamic bool // filled by rules; its elements are no part of what we want
	foreign bool // of a kind that render never makes
	timeout time.Duration
	size    uint32
	elems   sorted.Snapshot[element]
}

// element is a member of a set: an address, or in a set of ranges the first of a range or, with end, the first behind
// it.
type element struct {
	addr netip.Addr
	end  bool
}

func (e element) compare(o element) int {
	if c := e.addr.Compare(o.addr); c != 0 || e.end == o.end {
		return c
	}
	if e.end {
		return -1
	}
	return 1
}

const (
	chainPostrouting = "postrouting"
	chainInput       = "input"
	chainTunnel      = "tunnel"

	setNetworks = "networks"
	setSubnets  = "subnets"
	setPeers    = "peers"
	setNonPeers = "nonpeers"

	nonPeersTimeout = 10 * time.Minute
	nonPeersSize    = 1024 // what one who forges senders can make us remember
)

// in returns the name of a set for a family.
func in(is4 bool, name string) string {
	if is4 {
		return name + "4"
	}
	return name + "6"
}

// render returns the table for normal rules. It does not depend on anything else.
func render(name string, r Rules) table {
	t := table{name: name}
	if len(r.Ingress.Tunnels) > 0 {
		t.closeTunnel(r.Ingress)
	}
	if r.Masquerade && len(r.Networks) > 0 {
		t.masquerade(r)
	}
	if len(t.chains) == 0 {
		return table{}
	}
	t.sort()
	return t
}

func (t *table) sort() {
	slices.SortFunc(t.sets, func(a, b set) int { return strings.Compare(a.name, b.name) })
	slices.SortFunc(t.chains, func(a, b chain) int { return strings.Compare(a.name, b.name) })
}

// masquerade adds the chain that hides the network behind the host. Conntrack asks it for the first packet of a
// connection only.
func (t *table) masquerade(r Rules) {
	c := chain{name: chainPostrouting, kind: nftables.ChainTypeNAT, hook: *nftables.ChainHookPostrouting,
		priority: *nftables.ChainPriorityNATSource}
	c.add(kubeProxyMark(), verdictReturn())
	for _, is4 := range foreign.Families {
		networks := foreign.OfFamily(r.Networks, is4)
		if len(networks) == 0 {
			continue
		}
		t.sets = append(t.sets,
			set{name: in(is4, setNetworks), is4: is4, ranges: true, elems: ranges(networks)},
			set{name: in(is4, setSubnets), is4: is4, ranges: true, elems: ranges(foreign.OfFamily(r.Subnets, is4))})
		from, to, local := saddrIn(is4, setNetworks), daddrIn(is4, setNetworks), daddrIn(is4, setSubnets)
		c.add(family(is4), from, to, verdictReturn())
		c.add(family(is4), local, verdictReturn())
		c.add(family(is4), to, masquerade(r.FullyRandom))
		c.add(family(is4), multicast(is4), verdictReturn())
		c.add(family(is4), from, masquerade(r.FullyRandom))
	}
	t.chains = append(t.chains, c)
}

// ports returns the ports of the tunnels, each once.
func (i Ingress) ports() (out []uint16) {
	for _, t := range i.Tunnels {
		if !slices.Contains(out, t.Port) {
			out = append(out, t.Port)
		}
	}
	return out
}

// closeTunnel adds the chains that drop what hosts that are no peers send to the tunnel. Drop is the last rule and
// everything that passes is accepted before it, so that a packet that cannot be parsed, such as the first fragment of
// one that was cut right behind the UDP header, does not get past. The hook input comes after the reassembly of IPv4
// fragments.
func (t *table) closeTunnel(i Ingress) {
	base := chain{name: chainInput, kind: nftables.ChainTypeFilter, hook: *nftables.ChainHookInput,
		priority: *nftables.ChainPriorityFilter}
	for _, port := range i.ports() {
		base.add(udpPort(port), verdictJump(chainTunnel))
	}
	tunnel := chain{name: chainTunnel}
	for _, is4 := range foreign.Families {
		peers := set{name: in(is4, setPeers), is4: is4, elems: i.Peers.of(is4)}
		nonPeers := set{name: in(is4, setNonPeers), is4: is4, dynamic: true, timeout: nonPeersTimeout, size: nonPeersSize}
		t.sets = append(t.sets, peers, nonPeers)
		tunnel.add(family(is4), saddrIn(is4, setPeers), verdictAccept())
	}
	for _, port := range i.ports() {
		var others []rule // of VXLAN on the port
		if len(i.ports()) > 1 {
			others = append(others, udpPort(port))
		}
		vxlan := true
		for _, t := range i.Tunnels {
			if t.Port == port {
				others, vxlan = append(others, otherVNI(t.VNI)), vxlan && t.VNI != 0
			}
		}
		if vxlan {
			tunnel.add(append(others, verdictAccept())...)
		}
	}
	for _, is4 := range foreign.Families {
		tunnel.add(family(is4), remember(is4, setNonPeers))
	}
	tunnel.add(counter(), verdictDrop())
	t.chains = append(t.chains, base, tunnel)
}

// ranges returns the bounds of disjoint prefixes. A range up to the last address of all has no end.
func ranges(prefixes []netip.Prefix) sorted.Snapshot[element] {
	var elems []element
	for _, p := range prefixes {
		elems = append(elems, element{addr: p.Addr()})
		if next := lastOf(p).Next(); next.IsValid() {
			elems = append(elems, element{addr: next, end: true})
		}
	}
	return sorted.Of(element.compare, elems)
}

func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < 8*len(b); i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	last, _ := netip.AddrFromSlice(b)
	return last
}
