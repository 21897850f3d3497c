// Package wireguard carries packets to the peers in WireGuard tunnels: encrypted, and accepted only from hosts whose
// public key is in the store. Routes lead whole networks into the device, and the device itself knows which peer has
// which subnet.
//
// The device is the kernel's where the kernel has WireGuard, else one of this process on a TUN device. Both are
// configured by the same difference of peers, so that sessions of peers that have not changed are never lost:
//
//	leases ──▶ desired ──▶ settings ─┐
//	                                 ├─▶ change ──▶ tunnel.Configure
//	tunnel.Device ──▶ settings ──────┘
//
// The private key leaves this package only for its file and for the device.
package wireguard
