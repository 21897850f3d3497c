package etcdv3

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"flanneld/subnet"
)

func absent(key string) clientv3.Cmp { return clientv3.Compare(clientv3.CreateRevision(key), "=", 0) }

// unchanged is the condition of every change. A request that waits for a connection may reach a store that was wiped
// meanwhile and whose revisions are the same by chance; its lease ids are not. Where there is no lease the value must
// be the same. A claim needs no such care: at worst its writer asks again.
func unchanged(key string, old subnet.Entry) []clientv3.Cmp {
	cond := []clientv3.Cmp{
		clientv3.Compare(clientv3.ModRevision(key), "=", old.Revision),
		clientv3.Compare(clientv3.LeaseValue(key), "=", int64(old.LeaseID)),
	}
	if old.LeaseID == 0 && !old.Claim {
		cond = append(cond, clientv3.Compare(clientv3.Value(key), "=", old.Value))
	}
	return cond
}

// Create implements subnet.Store. In etcd a comparison over a range holds if it holds for each key in it, and for an
// empty range: so it also covers dual-stack keys that start with the same IPv4 subnet. A key that only begins like one
// is no record: if such a key stands in that range, all keys are read and parsed after the write instead.
func (s *Store) Create(ctx context.Context, r subnet.Record, id subnet.LeaseID) (subnet.Entry, error) {
	key := s.prefix + r.Key()
	w := write{what: "create record", record: r, id: id, cond: []clientv3.Cmp{absent(key)},
		current: []clientv3.Op{clientv3.OpGet(key)}}
	if r.Claim {
		return s.write(ctx, w)
	}
	first := s.prefix + subnet.Record{Leases: r.Leases[:1]}.Key()
	pairs := first + "&"
	alone := w
	alone.alone = true
	w.alone = slices.ContainsFunc(r.Prefixes(), is6)
	w.cond = []clientv3.Cmp{absent(first), absent(pairs).WithPrefix()}
	w.current = []clientv3.Op{clientv3.OpGet(first), clientv3.OpGet(pairs, clientv3.WithPrefix(), clientv3.WithLimit(1))}
	e, err := s.write(ctx, w)
	if c := (*subnet.ConflictError)(nil); errors.As(err, &c) && !isRecordKey(c.Key) {
		e, err = s.write(ctx, alone)
	}
	return s.wrote(e, err)
}

// isRecordKey reports whether a key below the prefix is one that a record can stand at.
func isRecordKey(key string) bool {
	_, err := subnet.ParseKey(strings.TrimPrefix(key, subnet.SubnetsFolder))
	return err == nil
}

func is6(p netip.Prefix) bool { return p.Addr().Is6() }

// Update implements subnet.Store.
func (s *Store) Update(ctx context.Context, old subnet.Entry, r subnet.Record, id subnet.LeaseID,
	spent ...subnet.Entry) (subnet.Entry, error) {
	key, next := s.prefix+old.Key, s.prefix+r.Key()
	w := write{what: "update record", record: r, id: id, replaced: append([]subnet.Entry{old}, spent...)}
	w.cond, w.before, w.current = s.replacing(old, spent)
	if next == key {
		e, err := s.write(ctx, w)
		e.Created = old.Created
		return s.wrote(e, err)
	}
	w.cond = append(w.cond, absent(next))
	w.current = append([]clientv3.Op{clientv3.OpGet(next)}, w.current...)
	// Hosts that take in one event after the other must see the new key last, or they forget the subnet that both have.
	w.before = append(w.before, clientv3.OpDelete(key))
	for _, e := range w.replaced {
		text, err := Encode(e.Record)
		if err != nil {
			return subnet.Entry{}, err
		}
		if !e.Claim {
			w.undo = append(w.undo, clientv3.OpPut(s.prefix+e.Key, string(text),
				clientv3.WithLease(clientv3.LeaseID(e.LeaseID))))
		}
	}
	w.alone = true
	return s.wrote(s.write(ctx, w))
}

// replacing returns the parts of a transaction that replaces an entry: the condition that it and what is spent stand
// unchanged, what deletes that, and what reads all of them.
func (s *Store) replacing(old subnet.Entry, spent []subnet.Entry) (cond []clientv3.Cmp, deletes, reads []clientv3.Op) {
	key := s.prefix + old.Key
	cond, reads = unchanged(key, old), []clientv3.Op{clientv3.OpGet(key)}
	for _, c := range spent {
		key := s.prefix + c.Key
		cond, deletes, reads = append(cond, unchanged(key, c)...), append(deletes, clientv3.OpDelete(key)),
			append(reads, clientv3.OpGet(key))
	}
	return cond, deletes, reads
}

// write is a conditional write of a record.
type write struct {
	what     string
	record   subnet.Record
	id       subnet.LeaseID
	replaced []subnet.Entry // what must stand unchanged: an entry, then what is spent
	cond     []clientv3.Cmp
	before   []clientv3.Op // done with it
	undo     []clientv3.Op // undoes before, but for the claims
	current  []clientv3.Op // what reads what stands in the way, the likeliest first
	// alone says that no other record may have one of the prefixes. No comparison can tell that: they are the end of a
	// key, not its beginning. So the transaction also reads all keys as they are after the write. Of two hosts that write
	// at the same time the later one finds the other's, and takes its own back.
	alone bool
}

func (s *Store) write(ctx context.Context, w write) (subnet.Entry, error) {
	text, err := Encode(w.record)
	if err != nil {
		return subnet.Entry{}, err
	}
	key := w.record.Key()
	then := append(w.before, clientv3.OpPut(s.prefix+key, string(text), clientv3.WithLease(clientv3.LeaseID(w.id))))
	if w.alone {
		then = append(then, clientv3.OpGet(s.prefix+subnet.SubnetsFolder, clientv3.WithPrefix(), clientv3.WithKeysOnly()))
	}
	resp, err := s.txn(ctx, w.what, w.cond, then, w.current)
	if err != nil {
		return subnet.Entry{}, err
	}
	if !resp.Succeeded {
		return subnet.Entry{}, s.conflict(key, resp, w.replaced...)
	}
	rev := resp.Header.Revision
	e := subnet.Entry{Record: w.record, Key: key, Revision: rev, Created: rev, LeaseID: w.id}
	if w.id == 0 {
		e.Value = string(text)
	}
	if w.alone {
		keys := resp.Responses[len(then)-1].GetResponseRange().GetKvs()
		if other, found := s.sharing(keys, e); found {
			return subnet.Entry{}, s.takeBack(ctx, w, e, other)
		}
	}
	return e, nil
}

// sharing returns the key of another record that has one of the prefixes.
func (s *Store) sharing(keys []*mvccpb.KeyValue, e subnet.Entry) (string, bool) {
	for _, kv := range keys {
		name := strings.TrimPrefix(string(kv.Key), s.prefix+subnet.SubnetsFolder)
		prefixes, err := subnet.ParseKey(name)
		if err != nil || subnet.SubnetsFolder+name == e.Key {
			continue
		}
		for _, l := range e.Leases {
			if slices.Contains(prefixes, l.Subnet) {
				return string(kv.Key), true
			}
		}
	}
	return "", false
}

// takeBack undoes a write and returns the conflict with the other record. If it does not come to that, the host finds
// its record beside an older one, and gives the subnet up.
func (s *Store) takeBack(ctx context.Context, w write, e subnet.Entry, other string) error {
	key := s.prefix + e.Key
	then := append([]clientv3.Op{clientv3.OpGet(other), clientv3.OpDelete(key)}, w.undo...)
	resp, err := s.txn(ctx, "take record back", unchanged(key, e), then, []clientv3.Op{clientv3.OpGet(other)})
	if err != nil {
		return err
	}
	return s.conflict(strings.TrimPrefix(other, s.prefix), resp)
}

// conflict tells what stood there, as the last part of a transaction that failed has read it. What stands there as it
// should, an entry and what is spent for it, is not the reason; that one of them does not may be.
func (s *Store) conflict(key string, resp *clientv3.TxnResponse, expected ...subnet.Entry) error {
	c, entry := &subnet.ConflictError{Key: key}, ""
	if len(expected) > 0 {
		entry = expected[0].Key
	}
	for _, r := range resp.Responses {
		kvs := r.GetResponseRange().GetKvs()
		if len(kvs) == 0 {
			continue
		}
		kv := kvs[0]
		if i := slices.IndexFunc(expected, func(e subnet.Entry) bool { return s.stands(e, kv) }); i >= 0 {
			expected = slices.Delete(slices.Clone(expected), i, i+1)
			continue
		}
		c.Key = strings.TrimPrefix(string(kv.Key), s.prefix)
		if e, err := s.entry(kv); err == nil {
			c.Current = &e
		} else {
			bad := s.bad(kv, err)
			c.Bad = &bad
		}
		return c
	}
	if len(expected) > 0 && expected[0].Key != entry { // the entry stands
		c.Key = expected[0].Key
	}
	return c
}

// stands reports whether an entry stands unchanged; see unchanged.
func (s *Store) stands(e subnet.Entry, kv *mvccpb.KeyValue) bool {
	return string(kv.Key) == s.prefix+e.Key && kv.ModRevision == e.Revision && kv.Lease == int64(e.LeaseID) &&
		(e.LeaseID != 0 || e.Claim || string(kv.Value) == e.Value)
}

// Delete implements subnet.Store.
func (s *Store) Delete(ctx context.Context, old subnet.Entry, spent ...subnet.Entry) error {
	cond, deletes, reads := s.replacing(old, spent)
	resp, err := s.txn(ctx, "delete record", cond, append(deletes, clientv3.OpDelete(s.prefix+old.Key)), reads)
	if err != nil || resp.Succeeded || resp.Responses[0].GetResponseRange().GetCount() == 0 {
		return err
	}
	return s.conflict(old.Key, resp, append([]subnet.Entry{old}, spent...)...)
}
