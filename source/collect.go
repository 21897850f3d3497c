package source

import "flanneld/options"

// How much the heap may grow before it is collected. The daemon is idle nearly always: its memory matters more than the
// time of its collector. With ten thousand peers in etcd it needs 59 MiB at its peak, and 68 with the usual 100. From
// the Kubernetes API, nodes arrive as objects of ten kilobytes, of which half a kilobyte is kept: a start with 5,000
// takes 1.4 s of processor time in place of 1.1 with 50, and 5 MiB less.
const (
	etcdPercent = 50
	kubePercent = 20
)

// GCPercent returns what runtime/debug.SetGCPercent gets.
func GCPercent(o options.Options) int {
	if o.KubeSubnetMgr {
		return kubePercent
	}
	return etcdPercent
}
