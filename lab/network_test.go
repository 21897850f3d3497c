package lab_test

import (
	"fmt"
	"net/netip"

	"flanneld/ip"
	"flanneld/lab"
)

// network is one row of the table that the cases of every backend and family run over.
type network struct {
	backend  string
	families lab.Families
}

// traits are what tells one backend from another in the cases. What has two values is of IPv4 and of IPv6.
type traits struct {
	device   [2]string // that takes packets to the peers
	overhead [2]int    // bytes that a tunnel adds to a packet at most
	options  string    // of the network configuration
}

var traitsOf = map[string]traits{
	"vxlan":     {device: [2]string{"flannel.1", "flannel-v6.1"}, overhead: [2]int{50, 70}},
	"host-gw":   {device: [2]string{"eth0", "eth0"}},
	"udp":       {device: [2]string{"flannel0", "flannel0"}, overhead: [2]int{28, 48}},
	"wireguard": {device: [2]string{"flannel-wg", "flannel-wg-v6"}, overhead: [2]int{80, 80}},
	"ipip":      {device: [2]string{"flannel.ipip"}, overhead: [2]int{20}},
	"extension": {device: [2]string{"eth0", "eth0"}, // as host-gw, of IPv4
		options: `,"SubnetAddCommand":"ip route replace $SUBNET via $PUBLIC_IP","SubnetRemoveCommand":"ip route del $SUBNET via $PUBLIC_IP"`},
	"alloc": {device: [2]string{"flannel.1", "flannel-v6.1"}}, // there must be none
}

func (n network) String() string {
	return n.backend + " over " + map[lab.Families]string{lab.IPv4: "IPv4", lab.IPv6: "IPv6",
		lab.Dual: "both families"}[n.families]
}

func (n network) config() string {
	return fmt.Sprintf(`{"EnableIPv4":%t,"Network":"10.5.0.0/16","SubnetMax":"10.5.199.0","EnableIPv6":%t,"IPv6Network":"fd00:5::/48","Backend":{"Type":%q%s}}`,
		n.families.Has(lab.IPv4), n.families.Has(lab.IPv6), n.backend, traitsOf[n.backend].options)
}

// devices returns the names of the tunnel devices that have hardware addresses, IPv4 first.
func (n network) devices() []string {
	var names []string
	if n.backend == "vxlan" && n.families.Has(lab.IPv4) {
		names = append(names, "flannel.1")
	}
	if n.backend == "vxlan" && n.families.Has(lab.IPv6) {
		names = append(names, "flannel-v6.1")
	}
	return names
}

// mtu is what pods get on an underlay of 1500 bytes.
func (n network) mtu() int {
	overhead := traitsOf[n.backend].overhead
	if n.families.Has(lab.IPv6) {
		return 1500 - overhead[1]
	}
	return 1500 - overhead[0]
}

// device returns the name of the device that takes packets of a family to the peers, of the family of an address.
func (n network) device(family netip.Addr) string {
	if family.Is4() {
		return traitsOf[n.backend].device[0]
	}
	return traitsOf[n.backend].device[1]
}

// tunnels reports whether packets leave by a device of the daemon's.
func (n network) tunnels() bool { return traitsOf[n.backend].overhead[0] > 0 }

// carries reports whether the backend carries packets.
func (n network) carries() bool { return n.backend != "alloc" }

// survives reports whether packets are carried while the daemon is stopped.
func (n network) survives() bool {
	has, err := ip.HasWireGuard()
	return n.backend != "wireguard" || err == nil && has
}

// familiesOf are all that a backend carries.
func familiesOf(backend string) lab.Families {
	if backend == "ipip" || backend == "extension" {
		return lab.IPv4
	}
	return lab.Dual
}

// networks are those that the kernel can carry. Where it has no WireGuard, the daemon has.
func networks() []network {
	out := []network{{"wireguard", lab.IPv4}, {"wireguard", lab.Dual}, {"extension", lab.IPv4}}
	if kernelHasAll {
		out = append(out, network{"ipip", lab.IPv4})
	}
	for _, backend := range []string{"vxlan", "host-gw", "udp", "alloc"} {
		for _, families := range []lab.Families{lab.IPv4, lab.IPv6, lab.Dual} {
			out = append(out, network{backend, families})
		}
	}
	return out
}
