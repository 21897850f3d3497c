// Package vxlan carries packets to the peers through the kernel's VXLAN (RFC 7348): one device for each family,
// and for each peer a route, a neighbour entry and a forwarding entry, all known beforehand, so that nothing is ever
// flooded or learned.
package vxlan
