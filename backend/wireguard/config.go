package wireguard

import (
	"net/netip"
	"slices"

	"flanneld/backend/wireguard/options"
	"flanneld/ip"
	"flanneld/subnet"
)

// config are the options, and what follows from them.
type config struct{ options.Options }

// overhead is what a tunnel adds to a packet at most, in bytes: the headers of IPv6 and UDP, and WireGuard's own
// header and authentication tag.
const overhead = 40 + 8 + 16 + 16

// mtu is that of the devices, and of pods.
func (o config) mtu(u ip.Underlay) int {
	if o.MTU != 0 && o.MTU < u.MTU {
		return o.MTU - overhead
	}
	return u.MTU - overhead
}

// Names of the devices. A single one carries both families.
const (
	device4 = "flannel-wg"
	device6 = "flannel-wg-v6"
)

// device returns the name of the device that carries packets to a subnet.
func (o config) device(subnet netip.Prefix) string {
	if o.Mode == options.Separate && subnet.Addr().Is6() {
		return device6
	}
	return device4
}

// port returns the UDP port of a device.
func (o config) port(device string) uint16 {
	if device == device6 {
		return o.ListenPortV6
	}
	return o.ListenPort
}

// devices returns the names of all devices for some networks, each once.
func (o config) devices(networks []netip.Prefix) []string {
	var out []string
	for _, n := range networks {
		if name := o.device(n); !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return out
}

// Devices returns the names of the devices that a network needs.
func Devices(c subnet.Config) []string {
	o, err := options.Parse(c.Backend)
	if err != nil {
		return nil
	}
	return config{o}.devices(c.Networks())
}
