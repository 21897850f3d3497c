// Package probe measures the way to other hosts: UDP echoes through the tunnel, answered by every daemon on a reserved
// port. However large the cluster, a host sends a few dozen small packets in each period and answers a bounded number.
package probe
