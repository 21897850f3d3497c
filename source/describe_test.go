package source_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"flanneld/api"
	"flanneld/options"
	"flanneld/source"
)

// TestTheStatusNamesTheStore leaves out what is not used, and passwords.
func TestTheStatusNamesTheStore(t *testing.T) {
	o := options.Options{EtcdPrefix: "/n", EtcdEndpoints: []string{"http://user:secret@192.0.2.1:2379"}}
	var got api.Daemon
	source.Describe(&got, o)
	if d := cmp.Diff(api.Daemon{Prefix: "/n", Endpoints: []string{"http://REDACTED@192.0.2.1:2379"}}, got); d != "" {
		t.Errorf("with etcd (-want +got):\n%s", d)
	}
	got, o.KubeSubnetMgr = api.Daemon{}, true
	source.Describe(&got, o)
	if d := cmp.Diff(api.Daemon{Kubernetes: true, Endpoints: []string{}}, got); d != "" {
		t.Errorf("with the Kubernetes API (-want +got):\n%s", d)
	}
}
