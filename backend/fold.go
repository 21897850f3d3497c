package backend

import (
	"iter"
	"net/netip"
	"slices"

	"flanneld/ip"
	"flanneld/subnet"
)

// Fold is a wanted state that follows the peers: a plan costs what has changed since the last one. One goroutine may
// use it.
type Fold struct {
	*ip.Desired

	host    ip.Host
	base    []ip.Object
	depends any
	peers   subnet.Peers
}

// NewFold returns a fold that has no state before Start.
func NewFold(h ip.Host) *Fold { return &Fold{host: h} }

// Start begins a plan. base is what the kernel must hold whoever the peers are; the routes of this host's own subnets
// are added to it. depends is comparable: all else that the objects of a peer depend on. If either is not that of the
// last plan, the fold begins anew, with no peers, and Start reports true.
func (f *Fold) Start(self []subnet.Lease, depends any, base ...ip.Object) (anew bool) {
	for _, l := range self {
		base = append(base, f.host.OwnRoutes(l.Subnet)...)
	}
	if f.Desired != nil && f.depends == depends && slices.Equal(f.base, base) {
		return false
	}
	f.Desired, f.base, f.depends, f.peers = ip.NewDesired(base...), base, depends, subnet.Peers{}
	return true
}

// Follow returns the state for these peers. objects returns those that one peer needs; the answer must not change
// before the fold begins anew.
func (f *Fold) Follow(peers subnet.Peers, objects func(*subnet.Lease) []ip.Object) ip.Snapshot {
	for old, now := range f.Changes(peers) {
		if old.Valid() {
			f.Delete(objects(old.Lease())...)
		}
		if now.Valid() {
			f.Put(objects(now.Lease())...)
		}
	}
	return f.Snapshot()
}

// Changes returns the peers that have come, changed and gone since the last plan, for a planner that needs more than
// Follow. All must be read.
func (f *Fold) Changes(peers subnet.Peers) iter.Seq2[subnet.Peer, subnet.Peer] {
	before := f.peers
	f.peers = peers
	return subnet.Changes(before, peers)
}

// FirstAddr returns the address that a device has in a subnet of this host: the first one, alone on its link.
func FirstAddr(device string, p netip.Prefix) ip.Addr {
	return ip.Addr{Link: device, Prefix: netip.PrefixFrom(p.Addr(), p.Addr().BitLen())}
}

// DirectRoute leads to a peer on a link without a tunnel: its host is the next hop.
func DirectRoute(l *subnet.Lease, link string) ip.Route {
	return ip.Route{Dst: l.Subnet, Via: l.PublicIP, Link: link, Protocol: ip.Protocol}
}
