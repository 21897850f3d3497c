package etcdv3

import (
	"bytes"
	"context"
	"crypto/sha256"
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
	var newest, present witness
	s.mu.Lock()
	key := s.witness.key
	s.mu.Unlock()
	size, junk := int64(pageSize), 0
	for {
		page, err := s.page(ctx, from, end, snap.Revision, &size)
		if err != nil {
			return subnet.Snapshot{}, err
		}
		at := subnet.Position{Cluster: page.Header.ClusterId, Revision: page.Header.Revision}
		switch {
		case snap.Revision == 0:
			snap.Position = at
		case at.Cluster != snap.Cluster || at.Revision < snap.Revision:
			return subnet.Snapshot{}, fmt.Errorf("list records: etcd %s: another store answers: %w", s.servers(),
				subnet.ErrHistory)
		}
		s.add(&snap, page.Kvs, &junk)
		newest.see(page.Kvs)
		for _, kv := range page.Kvs {
			if string(kv.Key) == key {
				present = witnessOf(kv)
			}
		}
		if !page.More || len(page.Kvs) == 0 {
			s.listed(newest, present)
			return snap, nil
		}
		from = string(page.Kvs[len(page.Kvs)-1].Key) + "\x00"
	}
}

// Config implements subnet.Store.
func (s *Store) Config(ctx context.Context) (at subnet.Position, text []byte, err error) {
	err = s.call(ctx, "read network configuration", func(ctx context.Context, c *clientv3.Client) error {
		resp, err := c.Get(ctx, s.prefix+configName)
		if err != nil {
			return err
		}
		at = subnet.Position{Cluster: resp.Header.ClusterId, Revision: resp.Header.Revision}
		if len(resp.Kvs) > 0 {
			text = resp.Kvs[0].Value
		}
		return nil
	})
	return at, text, err
}

// maxJunk is how many keys that cannot be a record's are told of: nobody needs to know each of a million.
const maxJunk = 1000

// add takes keys into a snapshot, and skips what is none of ours.
func (s *Store) add(snap *subnet.Snapshot, kvs []*mvccpb.KeyValue, junk *int) {
	for _, kv := range kvs {
		switch ev := s.event(kv, false); {
		case isJunk(ev.Bad):
			if *junk++; *junk <= maxJunk {
				snap.Bad = append(snap.Bad, *ev.Bad)
			}
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
	key := s.name(kv.Key)
	if bytes.Equal(kv.Value, oversized) {
		return subnet.Entry{}, fmt.Errorf("value of more than %d bytes", maxValue)
	}
	r, err := Decode(key, kv.Value)
	if err != nil {
		return subnet.Entry{}, err
	}
	e := subnet.Entry{Record: r, Key: key, Revision: kv.ModRevision, Created: kv.CreateRevision,
		LeaseID: subnet.LeaseID(kv.Lease)}
	if e.LeaseID == 0 {
		e.Value = string(kv.Value)
	}
	return e, nil
}

// bad tells of a record that makes no sense, in few words: key and value may have a megabyte each.
func (s *Store) bad(kv *mvccpb.KeyValue, err error) subnet.BadRecord {
	if text := err.Error(); len(text) > maxReason {
		err = errors.New(subnet.Brief(text, maxReason))
	}
	return subnet.BadRecord{Key: s.name(kv.Key), Revision: kv.ModRevision, LeaseID: subnet.LeaseID(kv.Lease), Err: err}
}

// isJunk reports whether the key of a bad record names no subnet that it would keep from others.
func isJunk(b *subnet.BadRecord) bool {
	if b == nil {
		return false
	}
	_, err := subnet.ParseKey(strings.TrimPrefix(b.Key, subnet.SubnetsFolder))
	return err != nil
}

// Bounds of what is kept of a record that makes no sense, in bytes.
const (
	maxName   = 128 // of a key; that of a record has 70 at most
	maxReason = 200
)

// name returns the key below the prefix, shortened if it is none of a record's. Other keys stay others.
func (s *Store) name(key []byte) string {
	name := strings.TrimPrefix(string(key), s.prefix)
	if len(name) <= maxName {
		return name
	}
	sum := sha256.Sum256([]byte(name))
	return fmt.Sprintf("%s… (%d bytes, SHA-256 %x…)", strings.ToValidUTF8(name[:maxName/2], "?"), len(name), sum[:8])
}
