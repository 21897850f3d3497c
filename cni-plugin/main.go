// Command flannel is the CNI plugin of this network: it reads the subnet that flanneld has taken for this host and lets
// another plugin, the delegate, attach the container. It writes nothing but results to its standard output.
package main

import (
	"github.com/containernetworking/cni/pkg/skel"
	specs "github.com/containernetworking/cni/pkg/version"

	"flanneld/cni-plugin/internal/plugin"
	"flanneld/version"
)

func main() {
	skel.PluginMainFuncs(plugin.Verbs(), specs.All, "CNI plugin flannel "+version.This().String())
}
