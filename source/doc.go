// Package source opens the source of leases that the options name: etcd, or the Kubernetes API. It waits until the
// network configuration is known, and hands over what the source must know of this host.
package source
