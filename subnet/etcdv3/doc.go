// Package etcdv3 is the subnet.Store on etcd (API v3), in the records that flannel reads and writes. Every write is a
// transaction on what was read.
package etcdv3
