// Package subnet gives every host a subnet of its own out of the cluster's range: leases, the network
// configuration, the choice of a free subnet, subnet.env, and the Manager that holds this host's lease over a
// Store. It knows neither etcd nor the kernel; nobody's lease is ever overwritten.
package subnet
