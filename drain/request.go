package drain

import (
	"context"
	"errors"
	"fmt"
	"time"

	"flanneld/api"
	"flanneld/ip"
	"flanneld/subnet"
)

// joinWait is how long a request waits for a daemon that has not joined yet.
const joinWait = 3 * time.Second

// ErrKubernetes is the answer where the Kubernetes API is the store.
var ErrKubernetes = errors.New("the subnet belongs to the Node object: to take this node out of the network, " +
	"run kubectl drain and kubectl delete node")

// Requests hands the requests of the operator to the goroutine that has joined the network.
type Requests chan *Request

// NewRequests returns one without requests.
func NewRequests() Requests { return make(Requests) }

// Request is the error that ends all that has joined the network.
type Request struct {
	// Scope returns what the backend may have left in the kernel.
	Scope  func() ip.Scope
	answer chan answer // capacity 1
}

type answer struct {
	api.Drained
	err error
}

func (*Request) Error() string { return "drained by the operator" }

// Answer ends a request. It is called once.
func (r *Request) Answer(out api.Drained, err error) { r.answer <- answer{out, err} }

// Ask has the host leave the network, and returns when it has. Any goroutine may call it. The store is asked first:
// while it cannot be reached, no lease can be given back. notJoined is the error of a daemon that does not take
// requests.
func (r Requests) Ask(ctx context.Context, store Store, notJoined func() error) (api.Drained, error) {
	if _, err := store.List(ctx); err != nil {
		return api.Drained{}, kept(err)
	}
	req := &Request{answer: make(chan answer, 1)}
	select {
	case r <- req:
	case <-ctx.Done():
		return api.Drained{}, ctx.Err()
	case <-time.After(joinWait):
		return api.Drained{}, notJoined()
	}
	select {
	case a := <-req.answer:
		return a.Drained, a.err
	case <-ctx.Done():
		return api.Drained{}, ctx.Err()
	}
}

// Wait returns the next request, as an error, or nil when ctx ends. scope is for Request.Scope.
func (r Requests) Wait(ctx context.Context, scope func() ip.Scope) error {
	select {
	case <-ctx.Done():
		return nil
	case req := <-r:
		req.Scope = scope
		return req
	}
}

// Store is what is asked of the store.
type Store interface {
	List(ctx context.Context) (subnet.Snapshot, error)
	Delete(ctx context.Context, old subnet.Entry, spent ...subnet.Entry) error
}

// kept is the error of a lease that stays.
func kept(err error) error {
	return fmt.Errorf("the lease cannot be given back, so nothing was changed: %w", err)
}
