package source_test

import (
	"testing"

	"flanneld/options"
	"flanneld/source"
)

func TestTheKubernetesAPIMakesMoreGarbage(t *testing.T) {
	etcd, kube := source.GCPercent(options.Options{}), source.GCPercent(options.Options{KubeSubnetMgr: true})
	if kube >= etcd || kube <= 0 {
		t.Errorf("percents are %d with etcd and %d with the Kubernetes API, want less", etcd, kube)
	}
}
