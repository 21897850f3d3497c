package kube_test

import (
	"net/http"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"flanneld/subnet/kube"
)

// denied returns what an inspection finds to be missing.
func denied(in kube.Inspection) (out []string) {
	for _, r := range in.Rights {
		if !r.Allowed {
			out = append(out, r.Verb+" "+r.Resource)
		}
	}
	return out
}

func TestAnInspectionTellsThePodCIDRsAndWhatTheServiceAccountLacks(t *testing.T) {
	s := newServer(t)
	s.joined("a", "10.244.1.0/24")
	s.denied = map[string]bool{"watch nodes": true, "patch nodes/status": true, "get pods": true}
	in := s.client().Inspect(t.Context(), kube.OwnOptions{Node: "a", Names: names(t)})
	if in.NodeErr != nil || in.RightErr != nil || in.Node != "a" || !slices.Equal(in.PodCIDRs, []string{"10.244.1.0/24"}) {
		t.Errorf("got %+v", in)
	}
	if got := denied(in); !slices.Equal(got, []string{"watch nodes", "patch nodes/status"}) || len(in.Rights) != 4 {
		t.Errorf("denied are %v of %d rights, want those to nodes", got, len(in.Rights))
	}
}

func TestAnInspectionFindsTheNodeOfAPod(t *testing.T) {
	s := newServer(t)
	s.joined("a", "10.244.1.0/24")
	pod := &corev1.Pod{Spec: corev1.PodSpec{NodeName: "a"}}
	pod.APIVersion, pod.Kind = "v1", "Pod"
	s.pods = map[string]*corev1.Pod{"/api/v1/namespaces/net/pods/p": pod}
	s.denied = map[string]bool{"get pods": true}
	in := s.client().Inspect(t.Context(), kube.OwnOptions{Namespace: "net", Pod: "p", Names: names(t)})
	if got := denied(in); in.Node != "a" || in.NodeErr != nil || !slices.Equal(got, []string{"get pods"}) {
		t.Errorf("got %+v, denied are %v", in, got)
	}
}

func TestAnInspectionOfAServerThatIsAwaySaysSo(t *testing.T) {
	s := newServer(t)
	s.failing(func(*http.Request) int { return 503 })
	in := s.client().Inspect(t.Context(), kube.OwnOptions{Node: "a", Names: names(t)})
	if in.NodeErr == nil || in.RightErr == nil {
		t.Errorf("got %+v, want two errors", in)
	}
}
