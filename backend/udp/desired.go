package udp

import (
	"fmt"
	"net/netip"

	"flanneld/backend"
	"flanneld/ip"
	"flanneld/subnet"
)

// maxDevices bounds how many networks of this backend a host can have.
const maxDevices = 10

// Devices returns the names that the TUN device may have, one for both families: each network of a host needs another
// one.
func Devices() []string {
	out := make([]string, maxDevices)
	for i := range out {
		out[i] = fmt.Sprintf("flannel%d", i)
	}
	return out
}

// desired returns what stands in the kernel: the device, and for each of our subnets its first address and the route of
// its whole network. The peers are in the table of the datapath.
func desired(device string, networks []netip.Prefix, self []subnet.Lease, mtu int) []ip.Object {
	out := []ip.Object{ip.Link{Name: device, Type: "tun", MTU: mtu, Up: true}}
	for _, own := range self {
		out = append(out, backend.FirstAddr(device, own.Subnet))
		for _, n := range networks {
			if n.Contains(own.Subnet.Addr()) {
				out = append(out, ip.Route{Dst: n, Link: device, Protocol: ip.Protocol})
			}
		}
	}
	return out
}
