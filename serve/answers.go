package serve

import (
	"context"
	"encoding/json"
	"io"
	"net/http"

	"flanneld/api"
)

// maxConfig bounds a network configuration that is to be checked, in bytes.
const maxConfig = 1 << 20

// Answers is what the socket serves. The functions are called for each request, by several goroutines at once.
type Answers struct {
	Ready  func() api.Ready
	Status func() api.Status
	Leases func() api.Leases
	Peers  func() []api.Peer
	Events func() []api.Event
	Store  func() api.Store
	// Kubernetes asks the API server; nil: the store is another one.
	Kubernetes func(context.Context) api.Kubernetes
	Validate   func(config []byte) error
	Drain      func(context.Context) (api.Drained, error)
	Rotate     func(context.Context) (api.Rotated, error)
	Joining    Joining // nil: the store is none that hosts join
}

// Joining lets hosts into a secured store, and out of it.
type Joining interface {
	CreateToken(context.Context, api.TokenRequest) (api.Token, error)
	Tokens(context.Context) ([]api.Token, error)
	RevokeToken(context.Context, api.Named) (api.Named, error)
	JoinedHosts(context.Context) ([]api.JoinedHost, error)
	RemoveHost(context.Context, api.Named) (api.JoinedHost, error)
	Members(context.Context) ([]api.Member, error)
	RemoveMember(context.Context, api.Named) (api.Member, error)
	Recover(context.Context) (api.Restored, error)
	Restore(context.Context, api.Named) (api.Restored, error)
}

// Handler returns version 1 of the API.
func (a Answers) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+api.PathReady, func(w http.ResponseWriter, _ *http.Request) {
		r := a.Ready()
		code := http.StatusOK
		if !r.Ready {
			code = http.StatusServiceUnavailable
		}
		writeJSON(w, code, r)
	})
	page(mux, api.PathStatus, a.Status)
	page(mux, api.PathLeases, a.Leases)
	page(mux, api.PathPeers, a.Peers)
	page(mux, api.PathEvents, a.Events)
	page(mux, api.PathStore, a.Store)
	if a.Kubernetes != nil {
		mux.HandleFunc("GET "+api.PathKubernetes, func(w http.ResponseWriter, r *http.Request) {
			writeJSON(w, http.StatusOK, a.Kubernetes(r.Context()))
		})
	}
	mux.HandleFunc("POST "+api.PathValidate, func(w http.ResponseWriter, r *http.Request) {
		text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxConfig))
		if err != nil {
			writeJSON(w, http.StatusBadRequest, api.Problem{Error: err.Error()})
			return
		}
		var v api.Verdict
		if err := a.Validate(text); err != nil {
			v.Problem = err.Error()
		}
		writeJSON(w, http.StatusOK, v)
	})
	order(mux, api.PathDrain, a.Drain)
	order(mux, api.PathRotate, a.Rotate)
	if a.Joining != nil {
		answer(mux, "GET "+api.PathTokens, a.Joining.Tokens)
		request(mux, api.PathTokens, a.Joining.CreateToken)
		request(mux, api.PathTokenRevoke, a.Joining.RevokeToken)
		answer(mux, "GET "+api.PathHosts, a.Joining.JoinedHosts)
		request(mux, api.PathHostRemove, a.Joining.RemoveHost)
		answer(mux, "GET "+api.PathMembers, a.Joining.Members)
		request(mux, api.PathMemberRemove, a.Joining.RemoveMember)
		order(mux, api.PathRecover, a.Joining.Recover)
		request(mux, api.PathRestore, a.Joining.Restore)
	}
	return mux
}

// order serves what changes something.
func order[T any](mux *http.ServeMux, path string, f func(context.Context) (T, error)) {
	answer(mux, "POST "+path, f)
}

// request serves what changes something, and is told what.
func request[In, Out any](mux *http.ServeMux, path string, f func(context.Context, In) (Out, error)) {
	mux.HandleFunc("POST "+path, func(w http.ResponseWriter, r *http.Request) {
		var in In
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxConfig)).Decode(&in); err != nil {
			writeJSON(w, http.StatusBadRequest, api.Problem{Error: err.Error()})
			return
		}
		out, err := f(r.Context(), in)
		writeOutcome(w, out, err)
	})
}

// answer serves what may fail.
func answer[T any](mux *http.ServeMux, pattern string, f func(context.Context) (T, error)) {
	mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		out, err := f(r.Context())
		writeOutcome(w, out, err)
	})
}

func writeOutcome(w http.ResponseWriter, out any, err error) {
	if err != nil {
		writeJSON(w, http.StatusConflict, api.Problem{Error: err.Error()})
		return
	}
	writeJSON(w, http.StatusOK, out)
}

func page[T any](mux *http.ServeMux, path string, f func() T) {
	mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, http.StatusOK, f()) })
}

func writeJSON(w http.ResponseWriter, code int, v any) {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		code, text = http.StatusInternalServerError, []byte(`{"error": "the answer cannot be written as JSON"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	_, _ = w.Write(append(text, '\n')) // nothing to do for a client who has gone
}
