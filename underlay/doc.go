// Package underlay chooses the interface and the addresses that tunnel packets are sent from, and follows them. It
// reads the kernel's links, addresses and routes, and never changes them.
package underlay
