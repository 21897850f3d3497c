package vxlan

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"slices"

	"flanneld/backend"
	"flanneld/ip"
	"flanneld/sorted"
	"flanneld/subnet"
)

// Bytes that encapsulation adds: outer Ethernet is not counted, the inner one is (RFC 7348, section 5).
const (
	overhead4 = 20 + 8 + 8 + 14
	overhead6 = 40 + 8 + 8 + 14
)

// data is what a lease of this backend carries.
type data struct {
	VNI     uint32
	VtepMAC ip.MAC
}

func parseData(text string) (data, error) {
	var d data
	if err := json.Unmarshal([]byte(text), &d); err != nil {
		return data{}, fmt.Errorf("backend data %.100q: %w", text, err)
	}
	switch {
	case d.VtepMAC == ip.MAC{}:
		return data{}, errors.New("backend data has no VtepMAC")
	case d.VtepMAC[0]&1 != 0:
		return data{}, fmt.Errorf("VtepMAC %s is a multicast address", d.VtepMAC)
	}
	return d, nil
}

// checkVNI says why the VNI of a record is not that of the network. One without a VNI is taken for the network's, and
// so is one with its lower 16 bits: flannel before 0.23 cuts it off when it writes the record.
func (o Options) checkVNI(d data) error {
	if d.VNI != 0 && d.VNI != o.VNI && d.VNI != o.VNI&0xffff {
		return fmt.Errorf("its VNI is %d, the network's is %d", d.VNI, o.VNI)
	}
	return nil
}

// device is the half of the backend for one family.
type device struct {
	name     string
	overhead int
}

func (o Options) device(prefix netip.Prefix) device {
	if prefix.Addr().Is4() {
		return device{deviceName("flannel.", "4", o.VNI), overhead4}
	}
	return device{deviceName("flannel-v6.", "6", o.VNI), overhead6}
}

// deviceName ends in the VNI. A name that is too long for the kernel gets another form with the VNI in six hexadecimal
// digits, which no other VNI has.
func deviceName(start, family string, vni uint32) string {
	if name := fmt.Sprintf("%s%d", start, vni); len(name) <= ip.MaxLinkName {
		return name
	}
	return fmt.Sprintf("flannel-%s%06x", family, vni)
}

// underlayMTU is the MTU of the underlay in force: the option, but no more than that of the interface, which the kernel
// would refuse (vxlan_change_mtu in drivers/net/vxlan/vxlan_core.c).
func (o Options) underlayMTU(u ip.Underlay) int {
	if o.MTU != 0 && o.MTU < u.MTU {
		return o.MTU
	}
	return u.MTU
}

// desired is the state that carries packets to the peers. It follows them for as long as what it depends on stays the
// same.
type desired struct {
	fold   *backend.Fold
	peers  subnet.Peers // of the last plan
	link   string       // of the underlay
	halves []half
	direct func(netip.Addr) bool // whether an address is on the underlay link: no tunnel; the answer stays the same

	doubled map[netip.Prefix]peer // left out, because their MAC is that of an older one, or our own
	small   []string              // why a family of the network is not carried
}

func newDesired(h ip.Host) *desired { return &desired{fold: backend.NewFold(h)} }

// begin begins anew, without peers.
func (d *desired) begin(link string, halves []half, direct func(netip.Addr) bool, small []string) {
	d.link, d.halves, d.direct, d.small, d.doubled = link, halves, direct, small, map[netip.Prefix]peer{}
}

// half is what concerns one family.
type half struct {
	bits   int // of an address
	device string
	mac    ip.MAC            // our own
	peers  *sorted.Set[peer] // by the tunnel
}

// peer is a peer with the hardware address in its data. A MAC can lead to one host only: that with the oldest record. A
// younger one is a copy of it, or of its machine.
type peer struct {
	mac ip.MAC
	subnet.Peer
}

func byMAC(a, b peer) int {
	if c := bytes.Compare(a.mac[:], b.mac[:]); c != 0 {
		return c
	}
	if !a.Valid() || !b.Valid() { // before all with its MAC
		return cmp.Compare(bit(a.Valid()), bit(b.Valid()))
	}
	return cmp.Or(a.CompareAge(b.Peer), a.Lease().Subnet.Compare(b.Lease().Subnet))
}

func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}

// tooSmall says why the family of a network cannot be carried; empty: it can.
func (o Options) tooSmall(u ip.Underlay, network netip.Prefix) string {
	mtu, overhead := o.underlayMTU(u), o.device(network).overhead
	if network.Addr().Is4() || mtu-overhead >= ip.MinMTU6 {
		return ""
	}
	of := "the interface " + u.Link
	if mtu == o.MTU {
		of = "the option MTU"
	}
	return fmt.Sprintf("IPv6 is not carried: it needs an MTU of %d, and that of %s is %d", ip.MinMTU6+overhead, of, mtu)
}

// carried returns those of our leases whose family can be carried, and why the others cannot.
func (o Options) carried(u ip.Underlay, self []subnet.Lease) (carried []subnet.Lease, small []string) {
	for _, l := range self {
		if why := o.tooSmall(u, l.Subnet); why != "" {
			small = append(small, why)
			continue
		}
		carried = append(carried, l)
	}
	return carried, small
}

// base returns the devices of this host and what stands on them whoever the peers are.
func (o Options) base(u ip.Underlay, macs map[string]ip.MAC, self []subnet.Lease) (own []ip.Object, halves []half) {
	for _, l := range self {
		dev, first := o.device(l.Subnet), l.Subnet.Addr()
		own = append(own, ip.Link{
			Name: dev.name, Type: "vxlan", MAC: macs[dev.name], Up: true, MTU: o.underlayMTU(u) - dev.overhead,
			VXLAN: ip.VXLAN{VNI: o.VNI, Port: o.Port, Local: u.Addr(l.Subnet), Underlay: u.Link, Learning: o.Learning,
				GBP: o.GBP},
		}, backend.FirstAddr(dev.name, l.Subnet))
		halves = append(halves, half{first.BitLen(), dev.name, macs[dev.name], sorted.New(byMAC)})
	}
	return own, halves
}

// follow returns the state for these peers.
func (d *desired) follow(peers subnet.Peers) ip.Snapshot {
	for old, now := range d.fold.Changes(peers) {
		if old.Valid() {
			d.change(old, false)
		}
		if now.Valid() {
			d.change(now, true)
		}
	}
	d.peers = peers
	return d.fold.Snapshot()
}

// change adds a lease or takes it away.
func (d *desired) change(p subnet.Peer, add bool) {
	l := p.Lease()
	i := slices.IndexFunc(d.halves, func(h half) bool { return h.bits == l.Subnet.Addr().BitLen() })
	data, err := parseData(l.BackendData)
	switch {
	case i < 0 || err != nil: // Valid has said so
	case d.direct(l.PublicIP) && add:
		d.fold.Put(backend.DirectRoute(l, d.link))
	case d.direct(l.PublicIP):
		d.fold.Delete(backend.DirectRoute(l, d.link))
	default:
		d.changeTunnel(&d.halves[i], peer{data.VtepMAC, p}, add)
	}
}

// changeTunnel adds a peer in a tunnel or takes it away, and with it whoever loses or gets its MAC thereby.
func (d *desired) changeTunnel(h *half, p peer, add bool) {
	if first, ok := h.first(p.mac); ok {
		d.fold.Delete(d.tunnel(h, first)...)
	}
	if add {
		h.peers.Put(p)
	} else {
		h.peers.Delete(p)
		delete(d.doubled, p.Lease().Subnet)
	}
	first, ok := h.first(p.mac)
	if ok {
		d.fold.Put(d.tunnel(h, first)...)
	}
	for o := range h.with(p.mac) {
		if ok && o == first {
			delete(d.doubled, o.Lease().Subnet)
		} else {
			d.doubled[o.Lease().Subnet] = o
		}
	}
}

// leftOut says why peers are left out whose route may lead to them: they have the MAC of another host, or this host
// does not carry their family.
func (d *desired) leftOut() map[netip.Prefix]string {
	out := make(map[netip.Prefix]string, len(d.doubled))
	for subnet, p := range d.doubled {
		out[subnet] = d.owner(p)
	}
	if len(d.small) == 0 {
		return out
	}
	for l := range d.peers.All() {
		if l.Subnet.Addr().Is6() {
			out[l.Subnet] = "IPv6 is not carried by this host"
		}
	}
	return out
}

// owner says who has the MAC of a peer.
func (d *desired) owner(p peer) string {
	for _, h := range d.halves {
		if first, ok := h.first(p.mac); ok && h.bits == p.Lease().Subnet.Addr().BitLen() {
			return fmt.Sprintf("its VtepMAC %s is that of %s, whose record is older", p.mac, first.Lease())
		}
	}
	return fmt.Sprintf("its VtepMAC %s is this host's", p.mac)
}

// with returns the peers with a MAC, the oldest first.
func (h *half) with(mac ip.MAC) iter.Seq[peer] {
	return func(yield func(peer) bool) {
		for p := range h.peers.From(peer{mac: mac}) {
			if p.mac != mac || !yield(p) {
				return
			}
		}
	}
}

// first returns the peer that has a MAC; false: nobody, or we.
func (h *half) first(mac ip.MAC) (peer, bool) {
	for p := range h.with(mac) {
		return p, mac != h.mac
	}
	return peer{}, false
}

// tunnel is what leads to a peer in the tunnel.
func (d *desired) tunnel(h *half, p peer) []ip.Object {
	first, host := p.Lease().Subnet.Addr(), ip.Underlay{Link: d.link}.OnLink(p.Lease().PublicIP)
	return []ip.Object{
		ip.FDB{Link: h.device, MAC: p.mac, Dst: host},
		ip.Neigh{Link: h.device, IP: first, MAC: p.mac},
		ip.Route{Dst: p.Lease().Subnet, Via: first, Link: h.device, Onlink: true, Protocol: ip.Protocol},
	}
}
