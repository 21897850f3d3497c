// Package kube takes the Kubernetes API as the store of leases: this host's subnets are the pod CIDRs of its Node
// object, and what peers must know of it stands there in annotations. Nothing is leased, so nothing is ever taken from
// another host; all the package writes is its own node's annotations and one condition.
//
//	API server ──watch──▶ nodes ──▶ subnet.Table ──▶ View: own subnets, peers
//	    ▲                    │ own node
//	    └─ patch nodes/status ◀── what is published differs from what should be
package kube
