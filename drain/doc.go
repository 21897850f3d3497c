// Package drain takes this host out of the network for good, by request of the operator: lease, kernel, firewall and
// files. If the lease cannot be given back, nothing is changed.
//
//	joined ──Ask──▶ all that writes ends ──▶ record deleted ──▶ kernel, files cleaned ──▶ idle until the process ends
//	   ▲                                            │ store not reachable
//	   └────────────────────────────────────────────┘
package drain
