//go:build nokube

package source

import (
	"context"
	"fmt"

	"flanneld/api"
	"flanneld/options"
	"flanneld/subnet"
)

// Kubernetes is the Kubernetes API in a daemon that was built without it.
type Kubernetes struct{}

// checkAnnotations refuses the Kubernetes API as the store.
func checkAnnotations(o options.Options) error {
	if o.KubeSubnetMgr {
		return fmt.Errorf("%s: this flanneld was built without the Kubernetes API (build tag nokube): use another build, or "+
			"etcd as the store", options.Named("kube-subnet-mgr"))
	}
	return nil
}

// Open is never called: see checkAnnotations.
func (k *Kubernetes) Open(context.Context, Host) (Source, subnet.Config, Node, error) {
	return nil, subnet.Config{}, Node{}, checkAnnotations(options.Options{KubeSubnetMgr: true})
}

// Inspect returns nothing.
func (k *Kubernetes) Inspect(context.Context) api.Kubernetes { return api.Kubernetes{} }
