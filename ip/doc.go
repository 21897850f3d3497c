// Package ip holds what the daemon wants of the kernel as plain values, the pure difference between two such
// states, and the netlink edge that reads and writes them. Everything outside the _linux.go files is pure.
package ip
