package kube_test

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"

	"flanneld/subnet/annotation"
	"flanneld/subnet/kube"
)

// server is an API server that knows nodes and pods only, in JSON. It keeps a history, so that watches resume, and
// fails on demand.
type server struct {
	t *testing.T
	*httptest.Server

	mu       sync.Mutex // guards all below
	nodes    map[string]*corev1.Node
	pods     map[string]*corev1.Pod
	version  int
	history  []event
	news     chan struct{}             // closed at each change
	fail     func(r *http.Request) int // status of the answer; 0: none
	protobuf bool                      // lists are sent so, as a real one does
	denied   map[string]bool           // rights that nobody has, such as "patch nodes/status"
	requests []string
	late     func() // called once, between a patch and its answer
}

type event struct {
	version int
	kind    string
	node    corev1.Node
}

func newServer(t *testing.T) *server {
	s := &server{t: t, nodes: map[string]*corev1.Node{}, pods: map[string]*corev1.Pod{}, news: make(chan struct{}),
		version: 100}
	s.Server = httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(s.CloseClientConnections)
	return s
}

func (s *server) client() *kube.Client {
	s.t.Helper()
	c, err := kube.NewClient(kube.ClientOptions{APIURL: s.URL, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		s.t.Fatal(err)
	}
	return c
}

// set puts a node, or changes the one that stands there.
func (s *server) set(name string, change func(n *corev1.Node)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	kind, n := "MODIFIED", &corev1.Node{}
	if old := s.nodes[name]; old != nil {
		n = old.DeepCopy()
	} else {
		kind = "ADDED"
		n.Name, n.UID = name, types.UID(fmt.Sprintf("uid-%s-%d", name, s.version))
		n.CreationTimestamp = metav1.NewTime(time.Unix(int64(s.version), 0))
		n.APIVersion, n.Kind, n.Annotations = "v1", "Node", map[string]string{}
	}
	change(n)
	s.notifyLocked(kind, n)
}

func (s *server) notifyLocked(kind string, n *corev1.Node) {
	s.version++
	n.ResourceVersion = strconv.Itoa(s.version)
	if s.nodes[n.Name] = n; kind == "DELETED" {
		delete(s.nodes, n.Name)
	}
	s.history = append(s.history, event{s.version, kind, *n.DeepCopy()})
	close(s.news)
	s.news = make(chan struct{})
}

func (s *server) delete(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.notifyLocked("DELETED", s.nodes[name].DeepCopy())
}

// failing has requests answered with a status, 0: as usual.
func (s *server) failing(f func(r *http.Request) int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = f
}

// asked returns the requests so far, and forgets them.
func (s *server) asked() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.requests
	s.requests = nil
	return out
}

func (s *server) annotation(node, name string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.nodes[node] == nil {
		return ""
	}
	return s.nodes[node].Annotations[annotation.DefaultPrefix+"/"+name]
}

func (s *server) serve(w http.ResponseWriter, r *http.Request) {
	verb := r.Method
	if r.URL.Query().Get("watch") != "" {
		verb = "WATCH"
	}
	s.mu.Lock()
	s.requests = append(s.requests, verb+" "+r.URL.Path)
	fail := s.fail
	s.mu.Unlock()
	if fail != nil {
		if code := fail(r); code != 0 {
			status(w, code, "as the test says")
			return
		}
	}
	name, found := strings.CutPrefix(r.URL.Path, "/api/v1/nodes/")
	switch {
	case strings.HasSuffix(r.URL.Path, "/selfsubjectaccessreviews"):
		s.review(w, r)
	case verb == "WATCH":
		s.watch(w, r)
	case !found && r.URL.Path == "/api/v1/nodes":
		s.list(w, r)
	case verb == http.MethodPatch:
		s.patch(w, r, strings.TrimSuffix(name, "/status"))
	case found:
		s.get(w, name)
	default:
		s.pod(w, r.URL.Path)
	}
}

// review tells whether the user has a right.
func (s *server) review(w http.ResponseWriter, r *http.Request) {
	var v struct {
		Spec struct {
			ResourceAttributes struct{ Verb, Resource, Subresource string }
		}
	}
	if err := json.NewDecoder(r.Body).Decode(&v); err != nil || r.Header.Get("Content-Type") != "application/json" {
		status(w, 400, "no review")
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	a := v.Spec.ResourceAttributes
	allowed := !s.denied[strings.TrimSuffix(a.Verb+" "+a.Resource+"/"+a.Subresource, "/")]
	answer(w, 201, map[string]any{"status": map[string]any{"allowed": allowed, "reason": "as the test says"}})
}

func status(w http.ResponseWriter, code int, message string) {
	reasons := map[int]metav1.StatusReason{403: metav1.StatusReasonForbidden, 404: metav1.StatusReasonNotFound,
		409: metav1.StatusReasonConflict}
	answer(w, code, metav1.Status{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: "Failure", Message: message, Code: int32(code),
		Reason: reasons[code],
	})
}

func answer(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(v)
}

func (s *server) get(w http.ResponseWriter, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := s.nodes[name]; n != nil {
		answer(w, 200, n)
		return
	}
	status(w, 404, "no such node")
}

func (s *server) pod(w http.ResponseWriter, path string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.pods[path]; p != nil {
		answer(w, 200, p)
		return
	}
	status(w, 404, "no such pod")
}

// only returns the name of the one node that a request asks for; empty: all.
func only(r *http.Request) string {
	name, _ := strings.CutPrefix(r.URL.Query().Get("fieldSelector"), "metadata.name=")
	return name
}

func (s *server) list(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := corev1.NodeList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "NodeList"}}
	l.ResourceVersion = strconv.Itoa(s.version)
	for _, n := range s.nodes {
		if name := only(r); name == "" || name == n.Name {
			l.Items = append(l.Items, *n)
		}
	}
	if s.protobuf {
		scheme := runtime.NewScheme()
		_ = corev1.AddToScheme(scheme)
		w.Header().Set("Content-Type", "application/vnd.kubernetes.protobuf")
		_ = protobuf.NewSerializer(scheme, scheme).Encode(&l, w)
		return
	}
	answer(w, 200, l)
}

func (s *server) patch(w http.ResponseWriter, r *http.Request, name string) {
	body, _ := io.ReadAll(r.Body)
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.nodes[name]
	if old == nil {
		status(w, 404, "no such node")
		return
	}
	text, _ := json.Marshal(old)
	patched, err := strategicpatch.StrategicMergePatch(text, body, corev1.Node{})
	n := &corev1.Node{}
	if err == nil {
		err = json.Unmarshal(patched, n)
	}
	switch {
	case err != nil:
		status(w, 400, err.Error())
	case n.UID != old.UID:
		status(w, 409, "another object")
	default:
		s.notifyLocked("MODIFIED", n)
		if late := s.late; late != nil {
			s.late = nil
			s.mu.Unlock()
			late()
			s.mu.Lock()
		}
		answer(w, 200, n)
	}
}

// watch sends what has come after a version. It does not know the streaming list.
func (s *server) watch(w http.ResponseWriter, r *http.Request) {
	if r.URL.Query().Get("sendInitialEvents") != "" {
		status(w, 422, "sendInitialEvents is forbidden")
		return
	}
	at, _ := strconv.Atoi(r.URL.Query().Get("resourceVersion"))
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(200)
	for {
		s.mu.Lock()
		events, news := s.history, s.news
		s.mu.Unlock()
		for _, e := range events {
			if name := only(r); e.version <= at || name != "" && e.node.Name != name {
				continue
			}
			at = e.version
			_ = json.NewEncoder(w).Encode(map[string]any{"type": e.kind, "object": e.node})
		}
		w.(http.Flusher).Flush()
		select {
		case <-r.Context().Done():
			return
		case <-news:
		}
	}
}
