// Package lab builds clusters of hosts in network namespaces on one bridged underlay, with the real flanneld, a real
// etcd and pods behind a bridge, for the end-to-end tests, the benchmarks and the demo. It needs root; Close leaves
// nothing behind, and what a killed run has left is removed by the next New.
//
//	underlay namespace:  br0 198.18.0.1/16, fd00:18::1/64
//	   │        │        │
//	 eth0     eth0     eth0
//	┌┴───┐  ┌─┴────┐ ┌─┴────┐
//	│etcd│  │host 1│ │host 2│ …   flanneld, cni0 ── pods
//	└────┘  └──────┘ └──────┘
package lab
