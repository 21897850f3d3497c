package etcdv3

import (
	"context"
	"errors"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"flanneld/subnet"
)

// configName is the key of the network configuration below the prefix.
const configName = "config"

// listTries bounds how often a list starts anew because its revision was compacted meanwhile.
const listTries = 3

// List implements subnet.Store: one request for the configuration and the first thousand records, and one for each thousand
// more.
func (s *Store) List(ctx context.Context) (subnet.Snapshot, error) {
	for try := 1; ; try++ {
		snap, err := s.list(ctx)
		if !errors.Is(err, rpctypes.ErrCompacted) || try == listTries {
			return snap, err
		}
	}
}

func (s *Store) list(ctx context.Context) (subnet.Snapshot, error) {
	from := s.prefix + subnet.SubnetsFolder
	end := clientv3.GetPrefixRangeEnd(from)
	resp, err := s.txn(ctx, "list records", nil, []clientv3.Op{
		clientv3.OpGet(s.prefix + configName),
		clientv3.OpGet(from, clientv3.WithRange(end), clientv3.WithLimit(pageSize)),
	}, nil)
	if err != nil {
		return subnet.Snapshot{}, err
	}
	snap := subnet.Snapshot{Position: subnet.Position{Cluster: resp.Header.ClusterId, Revision: resp.Header.Revision}}
	for _, kv := range resp.Responses[0].GetResponseRange().GetKvs() {
		snap.Config = kv.Value
	}
	page := resp.Responses[1].GetResponseRange()
	kvs, more := page.GetKvs(), page.GetMore()
	for {
		s.add(&snap, kvs)
		if !more || len(kvs) == 0 {
			return snap, nil
		}
		next := string(kvs[len(kvs)-1].Key) + "\x00"
		err := s.call(ctx, "list records", func(ctx context.Context, c *clientv3.Client) error {
			page, err := c.Get(ctx, next, clientv3.WithRange(end), clientv3.WithLimit(pageSize), clientv3.WithRev(snap.Revision))
			if err == nil {
				kvs, more = page.Kvs, page.More
			}
			return err
		})
		if err != nil {
			return subnet.Snapshot{}, err
		}
	}
}

func (s *Store) add(snap *subnet.Snapshot, kvs []*mvccpb.KeyValue) {
	for _, kv := range kvs {
		e, err := s.entry(kv)
		if err != nil {
			snap.Bad = append(snap.Bad, s.bad(kv, err))
			continue
		}
		snap.Entries = append(snap.Entries, e)
	}
}

func (s *Store) entry(kv *mvccpb.KeyValue) (subnet.Entry, error) {
	key := strings.TrimPrefix(string(kv.Key), s.prefix)
	r, err := Decode(key, kv.Value)
	if err != nil {
		return subnet.Entry{}, err
	}
	return subnet.Entry{Record: r, Key: key, Revision: kv.ModRevision, Created: kv.CreateRevision, LeaseID: subnet.LeaseID(kv.Lease)}, nil
}

func (s *Store) bad(kv *mvccpb.KeyValue, err error) subnet.BadRecord {
	return subnet.BadRecord{Key: strings.TrimPrefix(string(kv.Key), s.prefix), Revision: kv.ModRevision, Err: err}
}
