package etcdv3

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"flanneld/subnet"
)

// expiriesAtOnce bounds the questions for the rest of a lease that are on the way.
const expiriesAtOnce = 16

// Expiries returns when store leases end unless they are renewed, one request for each. Those that are gone, or were
// not answered, are missing. It is for operators: daemons do not ask for other hosts' leases.
func (s *Store) Expiries(ctx context.Context, ids []subnet.LeaseID) (map[subnet.LeaseID]time.Time, error) {
	client, err := s.connected(ctx)
	if err != nil {
		return nil, fmt.Errorf("read leases: %w", err)
	}
	var mu sync.Mutex
	var errs []error
	out := map[subnet.LeaseID]time.Time{}
	ask := func(id subnet.LeaseID) {
		resp, err := client.TimeToLive(ctx, clientv3.LeaseID(id))
		mu.Lock()
		defer mu.Unlock()
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("read lease %x: %w", id, err))
		case resp.TTL > 0:
			out[id] = time.Now().Add(time.Duration(resp.TTL) * time.Second)
		}
	}
	var all sync.WaitGroup
	slots := make(chan struct{}, expiriesAtOnce)
	for _, id := range ids {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			ask(id)
		})
	}
	all.Wait()
	return out, errors.Join(errs...)
}
