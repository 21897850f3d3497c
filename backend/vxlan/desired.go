package vxlan

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"

	"flanneld/ip"
	"flanneld/subnet"
)

// Bytes that encapsulation adds: outer Ethernet is not counted, the inner one is (RFC 7348, section 5).
const (
	overhead4      = 20 + 8 + 8 + 14
	overhead6      = 40 + 8 + 8 + 14
	minUnderlayMTU = 576 // RFC 791: what every IPv4 host must take
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

// device is the half of the backend for one family.
type device struct {
	name     string
	overhead int
}

func (o Options) device(prefix netip.Prefix) device {
	if prefix.Addr().Is4() {
		return device{fmt.Sprintf("flannel.%d", o.VNI), overhead4}
	}
	return device{fmt.Sprintf("flannel-v6.%d", o.VNI), overhead6}
}

// underlayMTU is the MTU of the underlay in force: the option, but no more than that of the interface, which the kernel
// would refuse (vxlan_change_mtu in drivers/net/vxlan/vxlan_core.c).
func (o Options) underlayMTU(u ip.Underlay) int {
	if o.MTU != 0 && o.MTU < u.MTU {
		return o.MTU
	}
	return u.MTU
}

// input is all that the desired state is computed from.
type input struct {
	options  Options
	underlay ip.Underlay
	macs     map[string]ip.MAC // own, by device
	peers    []peer            // sorted by subnet
	self     []subnet.Lease
}

// peer is a lease with its data read, and how to reach it.
type peer struct {
	subnet.Lease
	mac    ip.MAC
	direct bool // on the same link: no tunnel
}

// desired returns the state that carries packets to the peers, and the peers that it leaves out because their
// MAC is that of another one before them, or our own: a MAC can lead to one host only.
func desired(in input) (state ip.State, doubled []peer) {
	n := len(in.peers)
	state.FDB, state.Neighs, state.Routes = make([]ip.FDB, 0, n), make([]ip.Neigh, 0, n), make([]ip.Route, 0, n)
	for _, self := range in.self {
		dev := in.options.device(self.Subnet)
		state.Links = append(state.Links, ip.Link{
			Name: dev.name, Type: "vxlan", MAC: in.macs[dev.name], Up: true,
			MTU: in.options.underlayMTU(in.underlay) - dev.overhead,
			VXLAN: ip.VXLAN{
				VNI: in.options.VNI, Port: in.options.Port, Local: in.underlay.Addr(self.Subnet), Underlay: in.underlay.Link,
				Learning: in.options.Learning, GBP: in.options.GBP,
			},
		})
		first := self.Subnet.Addr()
		state.Addrs = append(state.Addrs, ip.Addr{Link: dev.name, Prefix: netip.PrefixFrom(first, first.BitLen())})
		doubled = append(doubled, addPeers(&state, in, self, dev)...)
	}
	return state, doubled
}

// addPeers adds what the peers of one family need.
func addPeers(state *ip.State, in input, self subnet.Lease, dev device) (doubled []peer) {
	seen := make(map[ip.MAC]bool, len(in.peers)+1)
	seen[in.macs[dev.name]] = true
	for _, p := range in.peers {
		first := p.Subnet.Addr()
		switch {
		case first.BitLen() != self.Subnet.Addr().BitLen():
		case p.direct:
			state.Routes = append(state.Routes, ip.Route{
				Dst: p.Subnet, Via: p.PublicIP, Link: in.underlay.Link, Protocol: ip.Protocol,
			})
		case seen[p.mac]:
			doubled = append(doubled, p)
		default:
			seen[p.mac] = true
			state.FDB = append(state.FDB, ip.FDB{Link: dev.name, MAC: p.mac, Dst: in.underlay.OnLink(p.PublicIP)})
			state.Neighs = append(state.Neighs, ip.Neigh{Link: dev.name, IP: first, MAC: p.mac})
			state.Routes = append(state.Routes, ip.Route{
				Dst: p.Subnet, Via: first, Link: dev.name, Onlink: true, Protocol: ip.Protocol,
			})
		}
	}
	return doubled
}
