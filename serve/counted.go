package serve

import (
	"context"
	"errors"
	"time"

	"flanneld/ip"
	"flanneld/subnet"
)

// Kernel returns a kernel whose calls are counted.
func (m *Metrics) Kernel(k ip.Kernel) ip.Kernel { return countedKernel{k, m} }

// Store returns a store whose requests are counted.
func (m *Metrics) Store(s subnet.Store) subnet.Store { return countedStore{s, m} }

// countedKernel counts what goes through the seam to the kernel.
type countedKernel struct {
	ip.Kernel
	m *Metrics
}

func (k countedKernel) Dump(s ip.Scope) (ip.State, error) {
	st, err := k.Kernel.Dump(s)
	k.m.dumps.WithLabelValues(result(err)).Inc()
	return st, err
}

func (k countedKernel) Apply(ops []ip.Op) error {
	err := k.Kernel.Apply(ops)
	failed := map[ip.Op]bool{}
	for _, e := range ip.FailedOps(err) {
		failed[e.Op] = true
	}
	unknown := err != nil && len(failed) == 0
	counts := map[[3]string]float64{}
	for _, op := range ops {
		key := [3]string{op.Object.Kind().String(), "put", "ok"}
		if op.Delete {
			key[1] = "delete"
		}
		if unknown || failed[op] {
			key[2] = "error"
		}
		counts[key]++
	}
	for key, n := range counts {
		k.m.operations.WithLabelValues(key[:]...).Add(n)
	}
	return err
}

// countedStore counts the requests to the store.
type countedStore struct {
	subnet.Store
	m *Metrics
}

func (s countedStore) count(request string, err error) {
	r := result(err)
	if conflict := (*subnet.ConflictError)(nil); errors.As(err, &conflict) || errors.Is(err, subnet.ErrLeaseGone) {
		r = "conflict"
	}
	s.m.requests.WithLabelValues(request, r).Inc()
}

func (s countedStore) List(ctx context.Context) (subnet.Snapshot, error) {
	snap, err := s.Store.List(ctx)
	s.count("list", err)
	return snap, err
}

func (s countedStore) Config(ctx context.Context) (subnet.Position, []byte, error) {
	at, text, err := s.Store.Config(ctx)
	s.count("config", err)
	return at, text, err
}

func (s countedStore) Watch(ctx context.Context, after subnet.Position, from int64, f func([]subnet.Event)) error {
	err := s.Store.Watch(ctx, after, from, f)
	if ctx.Err() == nil {
		s.m.watches.Inc()
		s.count("watch", err)
	}
	return err
}

func (s countedStore) Grant(ctx context.Context, ttl time.Duration) (subnet.LeaseID, error) {
	id, err := s.Store.Grant(ctx, ttl)
	s.count("grant", err)
	return id, err
}

func (s countedStore) Create(ctx context.Context, r subnet.Record, id subnet.LeaseID) (subnet.Entry, error) {
	e, err := s.Store.Create(ctx, r, id)
	s.count("create", err)
	return e, err
}

func (s countedStore) Update(ctx context.Context, old subnet.Entry, r subnet.Record, id subnet.LeaseID,
	spent ...subnet.Entry) (subnet.Entry, error) {
	e, err := s.Store.Update(ctx, old, r, id, spent...)
	s.count("update", err)
	return e, err
}

func (s countedStore) Delete(ctx context.Context, old subnet.Entry, spent ...subnet.Entry) error {
	err := s.Store.Delete(ctx, old, spent...)
	s.count("delete", err)
	return err
}

func (s countedStore) KeepAlive(ctx context.Context, id subnet.LeaseID) (time.Duration, error) {
	ttl, err := s.Store.KeepAlive(ctx, id)
	s.count("keep_alive", err)
	return ttl, err
}
