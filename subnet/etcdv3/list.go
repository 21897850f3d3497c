package etcdv3

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"flanneld/subnet"
)

// configName is the key of the network configuration below the prefix.
const configName = "config"

// pageSize is how many keys are listed with one request.
const pageSize = 1000

// listTries bounds how often a list starts anew because its revision was compacted meanwhile.
const listTries = 3

// List implements subnet.Store: one request for each thousand keys. Claims, configuration and records are neighbours
// in etcd's order, so that one range holds them all.
func (s *Store) List(ctx context.Context) (subnet.Snapshot, error) {
	for try := 1; ; try++ {
		snap, err := s.list(ctx)
		if !errors.Is(err, rpctypes.ErrCompacted) || try == listTries {
			return snap, err
		}
	}
}

// all returns the first key of ours and the one behind the last.
func (s *Store) all() (from, end string) {
	return s.prefix + subnet.ClaimsFolder, clientv3.GetPrefixRangeEnd(s.prefix + subnet.SubnetsFolder)
}

func (s *Store) list(ctx context.Context) (snap subnet.Snapshot, err error) {
	from, end := s.all()
	for {
		var page *clientv3.GetResponse
		err := s.call(ctx, "list records", func(ctx context.Context, c *clientv3.Client) error {
			page, err = c.Get(ctx, from, clientv3.WithRange(end), clientv3.WithLimit(pageSize), clientv3.WithRev(snap.Revision))
			return err
		})
		if err != nil {
			return subnet.Snapshot{}, err
		}
		at := subnet.Position{Cluster: page.Header.ClusterId, Revision: page.Header.Revision}
		switch {
		case snap.Revision == 0:
			snap.Position = at
		case at.Cluster != snap.Cluster || at.Revision < snap.Revision:
			return subnet.Snapshot{}, fmt.Errorf("list records: etcd %s: another store answers: %w", s.servers, subnet.ErrHistory)
		}
		s.add(&snap, page.Kvs)
		if !page.More || len(page.Kvs) == 0 {
			return snap, nil
		}
		from = string(page.Kvs[len(page.Kvs)-1].Key) + "\x00"
	}
}

// add takes keys into a snapshot, and skips what is none of ours.
func (s *Store) add(snap *subnet.Snapshot, kvs []*mvccpb.KeyValue) {
	for _, kv := range kvs {
		switch ev := s.event(kv, false); {
		case ev.ConfigSet:
			snap.Config = ev.Config
		case ev.Put != nil && ev.Put.Claim:
			snap.Claims = append(snap.Claims, *ev.Put)
		case ev.Put != nil:
			snap.Entries = append(snap.Entries, ev.Put)
		case ev.Bad != nil:
			snap.Bad = append(snap.Bad, *ev.Bad)
		}
	}
}

func (s *Store) entry(kv *mvccpb.KeyValue) (subnet.Entry, error) {
	key := strings.TrimPrefix(string(kv.Key), s.prefix)
	r, err := Decode(key, kv.Value)
	if err != nil {
		return subnet.Entry{}, err
	}
	e := subnet.Entry{Record: r, Key: key, Revision: kv.ModRevision, Created: kv.CreateRevision, LeaseID: subnet.LeaseID(kv.Lease)}
	if e.LeaseID == 0 {
		e.Value = string(kv.Value)
	}
	return e, nil
}

func (s *Store) bad(kv *mvccpb.KeyValue, err error) subnet.BadRecord {
	return subnet.BadRecord{Key: strings.TrimPrefix(string(kv.Key), s.prefix), Revision: kv.ModRevision, LeaseID: subnet.LeaseID(kv.Lease), Err: err}
}
