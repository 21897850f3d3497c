package udp

import (
	"fmt"
	"net/netip"

	"flanneld/backend/udp/options"
	"flanneld/ip"
)

// Bytes that encapsulation adds: the outer IP header and that of UDP.
const (
	overhead4 = 20 + 8
	overhead6 = 40 + 8
)

// Options are the options of the backend in the network configuration.
type Options options.Options

// ParseOptions reads the object "Backend" of the network configuration. The error joins all that is wrong.
func ParseOptions(raw []byte) (Options, error) {
	o, err := options.Parse(raw)
	return Options(o), err
}

// overhead returns what encapsulation adds to a packet for an address of this family, in bytes.
func overhead(a netip.Addr) int {
	if a.Is4() {
		return overhead4
	}
	return overhead6
}

// mtu is the largest packet that fits into a datagram of each of the networks' families that are carried. small says
// why one is not: the device has one MTU for both, and none of the kernel's IPv6 if that is too small for it.
func (o Options) mtu(u ip.Underlay, networks []netip.Prefix) (mtu int, small string) {
	underlay, most, of := u.MTU, 0, "the interface "+u.Link
	if o.MTU != 0 {
		underlay, of = o.MTU, "the option MTU"
	}
	for _, n := range networks {
		if n.Addr().Is6() && underlay-overhead6 < ip.MinMTU6 {
			small = fmt.Sprintf("IPv6 is not carried: it needs an MTU of %d, and that of %s is %d", ip.MinMTU6+overhead6, of,
				underlay)
			continue
		}
		most = max(most, overhead(n.Addr()))
	}
	return underlay - most, small
}
