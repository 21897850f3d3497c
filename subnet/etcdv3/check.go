package etcdv3

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"flanneld/subnet"
)

// A watch that is silent proves nothing: behind etcd's grpc-proxy it outlives the store, and goes on over another one
// whose revisions are not that far. So the store is asked once in a while whether it is still the same:
//
//	same cluster ── revision not lower ── the witness stands as it was ──▶ go on
//	                                       │ no
//	                                       ▼
//	                     the watch tells of it within a while ──▶ go on, else the store is another one
const (
	checkPause = time.Minute // between two checks, on average; the hosts of a cluster do not ask at the same time
	checkAgain = 5           // how many times sooner the store is asked again that has not answered
	checkTries = 3           // after so many questions without an answer the watch has ended
)

// witness is a record as it stands: the one that this store last wrote, or else the newest of the last list. No backup
// from before it has it, and no other history has it with the same revisions and the same lease, whose number is
// random. It stays the witness as long as it stands: over another store the watch tells of newer ones. Without a key:
// none.
type witness struct {
	key                     string
	changed, created, lease int64
}

func witnessOf(kv *mvccpb.KeyValue) witness {
	return witness{string(kv.Key), kv.ModRevision, kv.CreateRevision, kv.Lease}
}

// see takes in keys that stand in the store.
func (w *witness) see(kvs []*mvccpb.KeyValue) {
	for _, kv := range kvs {
		if kv.ModRevision > w.changed && len(kv.Key) <= maxName {
			*w = witnessOf(kv)
		}
	}
}

// seen is what a watch has heard so far.
type seen struct {
	store    *Store
	revision int64 // guarded by the store's mutex, like all below
	busy     bool  // somebody takes in a batch: nothing can be heard meanwhile
}

// take takes in what the watch tells.
func (s *seen) take(events []*mvccpb.Event) {
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	for _, ev := range events {
		s.revision = max(s.revision, ev.Kv.ModRevision)
		switch w := &s.store.witness; {
		case w.key != "" && string(ev.Kv.Key) != w.key, ev.Kv.ModRevision <= w.changed:
		case ev.Type == mvccpb.Event_DELETE:
			*w = witness{}
		default:
			w.see([]*mvccpb.KeyValue{ev.Kv})
		}
	}
}

// listed makes what a list has found the witness: the present one if it stands, else the newest record.
func (s *Store) listed(newest, present witness) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.witness = newest; present.key != "" {
		s.witness = present
	}
}

// wrote makes a record of this host the witness.
func (s *Store) wrote(e subnet.Entry, err error) (subnet.Entry, error) {
	if err == nil && !e.Claim {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.witness = witness{s.prefix + e.Key, e.Revision, e.Created, int64(e.LeaseID)}
	}
	return e, err
}

// handing notes whether somebody takes in a batch.
func (s *seen) handing(busy bool) {
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	s.busy = busy
}

func (s *seen) now() (w witness, revision int64, busy bool) {
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	return s.store.witness, s.revision, s.busy
}

// check returns why the watch from a position cannot go on, or when ctx ends.
func (s *Store) check(ctx context.Context, after subnet.Position, seen *seen) error {
	for tries := 0; ; {
		pause := s.checks*3/4 + rand.N(s.checks/2)
		if tries > 0 {
			pause /= checkAgain
		}
		if err := wait(ctx, pause); err != nil {
			return err
		}
		w, revision, _ := seen.now()
		resp, err := s.readWitness(ctx, w)
		if err != nil {
			if tries++; tries == checkTries {
				return err
			}
			continue
		}
		tries = 0
		told, err := compare(resp, after, w, revision)
		if err == nil && !told {
			err = s.awaitTold(ctx, seen, w)
		}
		if err != nil {
			return err
		}
	}
}

// readWitness reads the witness; without one, a key that need not exist.
func (s *Store) readWitness(ctx context.Context, w witness) (resp *clientv3.GetResponse, err error) {
	key := w.key
	if key == "" {
		key = s.prefix + configName
	}
	err = s.call(ctx, "check the store", func(ctx context.Context, c *clientv3.Client) error {
		resp, err = c.Get(ctx, key)
		return err
	})
	return resp, err
}

// compare holds an answer against what the watch had heard before the question. It returns an error if the store is
// another one, and false if the watch must still tell what became of the witness.
func compare(resp *clientv3.GetResponse, after subnet.Position, w witness, revision int64) (told bool, err error) {
	h := resp.Header
	switch {
	case h.ClusterId != 0 && h.ClusterId != after.Cluster:
		return false, fmt.Errorf("cluster %x answers instead of %x: %w", h.ClusterId, after.Cluster, subnet.ErrHistory)
	case h.Revision < revision:
		return false, fmt.Errorf("store at revision %d, below %d: the store was wiped or restored: %w", h.Revision, revision,
			subnet.ErrHistory)
	case w.key == "":
		return true, nil
	case len(resp.Kvs) == 0:
		return false, nil
	}
	now := witnessOf(resp.Kvs[0])
	if now != w && now.changed <= w.changed {
		return false, fmt.Errorf("the revision of %s is %d and was %d: the store was wiped or restored: %w", w.key,
			now.changed, w.changed, subnet.ErrHistory)
	}
	return now == w, nil
}

// awaitTold waits until the watch tells of a change of the witness, as long as a call may take.
func (s *Store) awaitTold(ctx context.Context, seen *seen, w witness) error {
	const steps = 50
	for quiet := 0; quiet < steps; {
		if err := wait(ctx, s.wait/steps); err != nil {
			return err
		}
		now, _, busy := seen.now()
		if now != w {
			return nil
		}
		if !busy {
			quiet++
		}
	}
	return fmt.Errorf("%s has changed and the watch does not tell: the store was wiped or restored: %w", w.key,
		subnet.ErrHistory)
}

// wait returns after a pause, or with the error of ctx when that ends.
func wait(ctx context.Context, pause time.Duration) error {
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
