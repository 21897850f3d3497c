// Package offload carries packets of the udp backend inside the kernel, by two BPF programs: one at the egress of the
// device and one at the ingress of the underlay's link. They have no state but what they are given here, and hold
// themselves and their maps: they go on when this process ends. What they do not know for sure goes the way that it
// goes without them.
package offload

//go:generate sh generate.sh
