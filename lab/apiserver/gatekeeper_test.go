package main

import "testing"

// TestRightsAreThoseOfTheManifest reads the one that users apply.
func TestRightsAreThoseOfTheManifest(t *testing.T) {
	g := gatekeeper{rights: "../../dist/kubernetes/kube-flannel.yml"}
	for _, tt := range []struct {
		verb, resource, subresource string
		want                        bool
	}{
		{"get", "pods", "", true}, {"list", "pods", "", false},
		{"get", "nodes", "", true}, {"list", "nodes", "", true}, {"watch", "nodes", "", true},
		{"patch", "nodes", "", false}, {"create", "nodes", "", false}, {"delete", "nodes", "", false},
		{"patch", "nodes", "status", true}, {"update", "nodes", "status", false},
	} {
		if err := g.may(tt.verb, tt.resource, tt.subresource); (err == nil) != tt.want {
			t.Errorf("%s %s/%s: %v, want %t", tt.verb, tt.resource, tt.subresource, err, tt.want)
		}
	}
}
