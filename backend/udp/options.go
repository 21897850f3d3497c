package udp

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"

	"flanneld/ip"
)

// Bytes that encapsulation adds: the outer IP header and that of UDP.
const (
	overhead4      = 20 + 8
	overhead6      = 40 + 8
	minUnderlayMTU = 576 // RFC 791: what every IPv4 host must take
)

// Options are the options of the backend in the network configuration.
type Options struct {
	Port    uint16 // UDP port of all hosts
	MTU     int    // of the underlay, in bytes; 0: that of the interface
	Offload bool   // use what the kernel offers to carry many packets in one call
}

// ParseOptions reads the object "Backend" of the network configuration. The error joins all that is wrong.
func ParseOptions(raw []byte) (Options, error) {
	in := struct {
		Port    int
		MTU     int
		Offload *bool
	}{}
	if len(raw) > 0 {
		if err := json.Unmarshal(raw, &in); err != nil {
			return Options{}, fmt.Errorf("backend udp: %w", err)
		}
	}
	if in.Port == 0 {
		in.Port = 8285
	}
	var errs []error
	if in.Port < 1 || in.Port > 1<<16-1 {
		errs = append(errs, fmt.Errorf("backend udp: Port is %d, want 1 to 65535", in.Port))
	}
	if in.MTU != 0 && (in.MTU < minUnderlayMTU || in.MTU > 1<<16-1) {
		errs = append(errs, fmt.Errorf("backend udp: MTU is %d, want %d to 65535", in.MTU, minUnderlayMTU))
	}
	if err := errors.Join(errs...); err != nil {
		return Options{}, err
	}
	return Options{Port: uint16(in.Port), MTU: in.MTU, Offload: in.Offload == nil || *in.Offload}, nil
}

// overhead returns what encapsulation adds to a packet for an address of this family, in bytes.
func overhead(a netip.Addr) int {
	if a.Is4() {
		return overhead4
	}
	return overhead6
}

// mtu is the largest packet that fits into a datagram of each of the networks' families that are carried. small says why one is not: the device
// has one MTU for both, and none of the kernel's IPv6 if that is too small for it.
func (o Options) mtu(u ip.Underlay, networks []netip.Prefix) (mtu int, small string) {
	underlay, most, of := u.MTU, 0, "the interface "+u.Link
	if o.MTU != 0 {
		underlay, of = o.MTU, "the option MTU"
	}
	for _, n := range networks {
		if n.Addr().Is6() && underlay-overhead6 < ip.MinMTU6 {
			small = fmt.Sprintf("IPv6 is not carried: it needs an MTU of %d, and that of %s is %d", ip.MinMTU6+overhead6, of, underlay)
			continue
		}
		most = max(most, overhead(n.Addr()))
	}
	return underlay - most, small
}
