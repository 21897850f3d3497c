//go:build flannel && kernels

package lab_test

import (
	"time"

	"flanneld/lab"
)

// kernelSwaps are those of which the released flannel needs modules that not every kernel has. It takes its WireGuard
// device away when it stops, and makes it anew when it starts.
var kernelSwaps = []swap{
	{name: "wireguard", lab: lab.IPv4, config: network{"wireguard", lab.IPv4}.config(), gap: 10 * time.Second},
	{name: "wireguard, both families", lab: lab.Dual, config: network{"wireguard", lab.Dual}.config(),
		gap: 10 * time.Second},
	{name: "ipip", lab: lab.IPv4, config: network{"ipip", lab.IPv4}.config()},
	{name: "ipip, direct", lab: lab.IPv4,
		config: `{"Network":"10.5.0.0/16","SubnetMax":"10.5.199.0","Backend":{"Type":"ipip","DirectRouting":true}}`},
}
