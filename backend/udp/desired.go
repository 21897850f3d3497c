package udp

import (
	"net/netip"

	"flanneld/ip"
	"flanneld/subnet"
)

// deviceName is that of the TUN device, one for both families.
const deviceName = "flannel0"

// desired returns what stands in the kernel: the device, and for each of our subnets its first address and the route of
// its whole network. The peers are in the table of the datapath.
func desired(networks []netip.Prefix, self []subnet.Lease, mtu int) []ip.Object {
	out := []ip.Object{ip.Link{Name: deviceName, Type: "tun", MTU: mtu, Up: true}}
	for _, own := range self {
		first := own.Subnet.Addr()
		out = append(out, ip.Addr{Link: deviceName, Prefix: netip.PrefixFrom(first, first.BitLen())})
		for _, n := range networks {
			if n.Contains(first) {
				out = append(out, ip.Route{Dst: n, Link: deviceName, Protocol: ip.Protocol})
			}
		}
	}
	return out
}
