package etcdv3

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"flanneld/subnet"
)

// ErrChanged says that the network configuration is another one than the writer has seen.
var ErrChanged = errors.New("the network configuration has been changed meanwhile")

// PutConfig replaces the network configuration old, nil: none, by text. ErrChanged: the store holds another one.
func (s *Store) PutConfig(ctx context.Context, old []byte, text string) error {
	key := s.prefix + configName
	same := absent(key)
	if old != nil {
		same = clientv3.Compare(clientv3.Value(key), "=", string(old))
	}
	resp, err := s.txn(ctx, "write network configuration", []clientv3.Cmp{same}, []clientv3.Op{clientv3.OpPut(key, text)},
		nil)
	if err == nil && !resp.Succeeded {
		err = ErrChanged
	}
	return err
}

// MayWrite returns an error if the user has no right to write records. It writes nothing: etcd checks the rights of
// both branches of a transaction before it looks at the condition, which never holds.
func (s *Store) MayWrite(ctx context.Context) error {
	never := clientv3.Compare(clientv3.CreateRevision(s.prefix+configName), "<", 0)
	for _, folder := range []string{subnet.SubnetsFolder, subnet.ClaimsFolder} {
		if _, err := s.txn(ctx, "write below "+s.prefix+folder, []clientv3.Cmp{never},
			[]clientv3.Op{clientv3.OpPut(s.prefix+folder+"rights", "")}, nil); err != nil {
			return err
		}
	}
	return nil
}

// Change is one step in the history of a key.
type Change struct {
	Revision int64
	Deleted  bool          // or expired
	Record   subnet.Record // zero if deleted, or if it makes no sense
	Lease    subnet.LeaseID
	Problem  string // why the record makes no sense
}

// History returns the changes of the record under a key below the prefix that etcd still knows, oldest first, and the
// revision before which it has forgotten all.
func (s *Store) History(ctx context.Context, key string) (changes []Change, from int64, err error) {
	client, err := s.connected(ctx)
	if err != nil {
		return nil, 0, fmt.Errorf("read %s: %w", key, err)
	}
	now, err := client.Get(ctx, s.prefix+key)
	if err != nil {
		return nil, 0, fmt.Errorf("read %s: %w", key, err)
	}
	end := now.Header.Revision
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	from = 1
	for {
		changes, compacted, err := s.replay(ctx, client, key, from, end)
		if errors.Is(err, rpctypes.ErrCompacted) && compacted >= from {
			from = compacted
			continue
		}
		return changes, from, err
	}
}

// progressPause is how often the store is asked whether it has sent all.
const progressPause = 50 * time.Millisecond

// replay collects the changes from one revision up to another. The store answers the question for its progress only
// when it has sent all, and otherwise not at all.
func (s *Store) replay(ctx context.Context, client *clientv3.Client, key string, from, end int64) (out []Change,
	compacted int64, err error) {
	w := client.Watch(ctx, s.prefix+key, clientv3.WithRev(from), clientv3.WithCreatedNotify())
	ticks := time.NewTicker(progressPause)
	defer ticks.Stop()
	created := false
	for {
		select {
		case <-ctx.Done():
			return nil, 0, fmt.Errorf("read the history of %s: %w", key, ctx.Err())
		case <-ticks.C:
			if !created {
				continue
			}
			if err := client.RequestProgress(ctx); err != nil {
				return nil, 0, fmt.Errorf("read the history of %s: %w", key, err)
			}
		case resp := <-w:
			created = created || resp.Created
			if resp.CompactRevision != 0 {
				return nil, resp.CompactRevision, rpctypes.ErrCompacted
			}
			if err := resp.Err(); err != nil {
				return nil, 0, fmt.Errorf("read the history of %s: %w", key, err)
			}
			for _, ev := range resp.Events {
				out = append(out, s.change(ev))
			}
			if resp.IsProgressNotify() && resp.Header.Revision >= end {
				return out, 0, nil
			}
		}
	}
}

func (s *Store) change(ev *clientv3.Event) Change {
	c := Change{Revision: ev.Kv.ModRevision, Lease: subnet.LeaseID(ev.Kv.Lease)}
	if ev.Type == mvccpb.Event_DELETE {
		c.Deleted = true
		return c
	}
	e, err := s.entry(ev.Kv)
	if err != nil {
		c.Problem = err.Error()
	}
	c.Record = e.Record
	return c
}
