package serve_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"

	"flanneld/api"
	"flanneld/serve"
)

func TestOnlyADaemonWithTheKubernetesAPIAnswersForIt(t *testing.T) {
	ask := func(a serve.Answers) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		a.Handler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, api.PathKubernetes, nil))
		return w
	}
	if w := ask(serve.Answers{}); w.Code != http.StatusNotFound {
		t.Errorf("with etcd: status %d, want 404", w.Code)
	}
	w := ask(serve.Answers{Kubernetes: func(context.Context) api.Kubernetes { return api.Kubernetes{Node: "a"} }})
	var got api.Kubernetes
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != http.StatusOK || got.Node != "a" {
		t.Errorf("status %d, %s, %v", w.Code, w.Body, err)
	}
}
