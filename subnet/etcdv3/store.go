package etcdv3

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"flanneld/subnet"
)

// Options say how to reach etcd.
type Options struct {
	Endpoints                 []string // URLs
	Prefix                    string   // "/coreos.com/network"
	CertFile, KeyFile, CAFile string   // TLS, read again when they change; empty: none
	Username, Password        string
	Log                       *slog.Logger
	// Patience is how many times the usual time to wait for an answer: for simulations, whose hosts share a processor. 0: once.
	Patience int
}

const (
	requestTime   = 5 * time.Second // for one call; a slow etcd answers within it
	pageSize      = 1000            // leases listed with one request
	keepaliveTime = 10 * time.Second
	keepaliveWait = 3 * time.Second
	maxRedial     = 1500 * time.Millisecond // a store that comes back is noticed within 5 s
	// window is how many bytes etcd may send before they are looked at. Left to itself gRPC lets it grow to 16 MiB. What a host that is
	// starved does not take in thereby waits in etcd, which keeps one copy of it for all.
	window = 256 << 10
)

// Store is a subnet.Store. It is made without asking etcd for anything.
type Store struct {
	config  clientv3.Config
	prefix  string        // with a slash at the end
	wait    time.Duration // for one call
	servers string        // for messages

	mu     sync.Mutex // guards all below
	client *clientv3.Client
	cancel context.CancelFunc // of the client's context
}

var _ subnet.Store = (*Store)(nil)

// New returns a store. It does not wait for etcd.
func New(o Options) (*Store, error) {
	tls, err := tlsConfig(o)
	if err != nil {
		return nil, err
	}
	patience := time.Duration(max(1, o.Patience))
	config := clientv3.Config{
		Endpoints: o.Endpoints, TLS: tls, Username: o.Username, Password: o.Password,
		DialKeepAliveTime: patience * keepaliveTime, DialKeepAliveTimeout: patience * keepaliveWait, PermitWithoutStream: true,
		// Retrying is the manager's business: here a call costs what it says. Two tries, so that an
		// expired token is renewed and a member that has just died is stepped over.
		MaxUnaryRetries: 2, BackoffWaitBetween: 100 * time.Millisecond,
		DialOptions: []grpc.DialOption{grpc.WithChainUnaryInterceptor(failFast), grpc.WithInitialWindowSize(window), grpc.WithInitialConnWindowSize(window), grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 200 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: maxRedial},
			MinConnectTimeout: patience * keepaliveWait,
		})},
		Logger: zap.NewNop(),
	}
	prefix := "/" + strings.Trim(o.Prefix, "/") + "/"
	return &Store{config: config, prefix: prefix, wait: patience * requestTime, servers: strings.Join(o.Endpoints, ", ")}, nil
}

// failFast has a call that finds no connection fail with the reason. By itself clientv3 waits for one, silently, and sends the request
// to whatever store stands there by then.
func failFast(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	return invoke(ctx, method, req, reply, cc, append(slices.Clip(opts), grpc.WaitForReady(false))...)
}

// Close ends all calls.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.client == nil {
		return nil
	}
	s.cancel()
	return s.client.Close()
}

// Redial drops the connection, and with it all that is under way; the next call makes a new one. Without it, calls over a
// connection from an address that this host no longer has wait until TCP gives up.
func (s *Store) Redial() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.client == nil {
		return
	}
	s.cancel()
	_ = s.client.Close() // it says that its context has ended
	s.client = nil
}

// connected returns the client, and makes it at the first call: with a user name, clientv3 logs in before it returns one.
func (s *Store) connected(ctx context.Context) (*clientv3.Client, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.client != nil {
		return s.client, nil
	}
	config := s.config
	var cancel context.CancelFunc
	config.Context, cancel = context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, cancel)
	client, err := clientv3.New(config)
	if !stop() && err == nil {
		_ = client.Close()
		err = ctx.Err()
	}
	if err != nil {
		cancel()
		return nil, err
	}
	s.client, s.cancel = client, cancel
	return client, nil
}

// call bounds a call and names the servers in its error.
func (s *Store) call(ctx context.Context, what string, f func(ctx context.Context, c *clientv3.Client) error) error {
	ctx, cancel := context.WithTimeout(clientv3.WithRequireLeader(ctx), s.wait)
	defer cancel()
	c, err := s.connected(ctx)
	if err == nil {
		err = f(ctx, c)
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, rpctypes.ErrLeaseNotFound):
		return subnet.ErrLeaseGone
	case errors.Is(err, rpctypes.ErrNoSpace):
		return fmt.Errorf("%s: etcd %s has no space left: compact and defragment it, then disarm the alarm: %w", what, s.servers, err)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(ctx.Err(), context.DeadlineExceeded):
		return fmt.Errorf("%s: no answer from etcd %s within %s", what, s.servers, s.wait)
	}
	return fmt.Errorf("%s: etcd %s: %w", what, s.servers, err)
}

// txn runs a transaction.
func (s *Store) txn(ctx context.Context, what string, ifs []clientv3.Cmp, then, otherwise []clientv3.Op) (resp *clientv3.TxnResponse, err error) {
	err = s.call(ctx, what, func(ctx context.Context, c *clientv3.Client) error {
		resp, err = c.Txn(ctx).If(ifs...).Then(then...).Else(otherwise...).Commit()
		return err
	})
	return resp, err
}

// PutConfigIfAbsent writes the network configuration if the store has none, and reports whether it did.
func (s *Store) PutConfigIfAbsent(ctx context.Context, text string) (bool, error) {
	key := s.prefix + configName
	resp, err := s.txn(ctx, "write network configuration", []clientv3.Cmp{absent(key)}, []clientv3.Op{clientv3.OpPut(key, text)}, nil)
	return err == nil && resp.Succeeded, err
}

// Grant implements subnet.Store.
func (s *Store) Grant(ctx context.Context, ttl time.Duration) (id subnet.LeaseID, err error) {
	err = s.call(ctx, "grant lease", func(ctx context.Context, c *clientv3.Client) error {
		resp, err := c.Grant(ctx, int64(ttl/time.Second))
		if err == nil {
			id = subnet.LeaseID(resp.ID)
		}
		return err
	})
	return id, err
}

// KeepAlive implements subnet.Store.
func (s *Store) KeepAlive(ctx context.Context, id subnet.LeaseID) (ttl time.Duration, err error) {
	err = s.call(ctx, "renew lease", func(ctx context.Context, c *clientv3.Client) error {
		resp, err := c.KeepAliveOnce(ctx, clientv3.LeaseID(id))
		if err == nil {
			ttl = time.Duration(resp.TTL) * time.Second
		}
		return err
	})
	return ttl, err
}

func absent(key string) clientv3.Cmp { return clientv3.Compare(clientv3.CreateRevision(key), "=", 0) }

// unchanged is the condition of every change. A request that waits for a connection may reach a store that was wiped
// meanwhile and whose revisions are the same by chance; its lease ids are not. Where there is no lease the value must be the same.
func unchanged(key string, old subnet.Entry) []clientv3.Cmp {
	cond := []clientv3.Cmp{
		clientv3.Compare(clientv3.ModRevision(key), "=", old.Revision),
		clientv3.Compare(clientv3.LeaseValue(key), "=", int64(old.LeaseID)),
	}
	if old.LeaseID == 0 {
		cond = append(cond, clientv3.Compare(clientv3.Value(key), "=", old.Value))
	}
	return cond
}

// Create implements subnet.Store. In etcd a comparison over a range holds if it holds for each key in it, and for an
// empty range: so it also covers dual-stack keys that start with the same IPv4 subnet.
func (s *Store) Create(ctx context.Context, r subnet.Record, id subnet.LeaseID) (subnet.Entry, error) {
	key := s.prefix + r.Key()
	first := key
	if !r.Claim {
		first = s.prefix + subnet.Record{Leases: r.Leases[:1]}.Key()
	}
	return s.write(ctx, write{
		what: "create record", record: r, id: id, alone: !r.Claim && slices.ContainsFunc(r.Prefixes(), is6),
		cond: []clientv3.Cmp{absent(first).WithPrefix()}, current: []clientv3.Op{clientv3.OpGet(first, clientv3.WithPrefix(), clientv3.WithLimit(1))},
	})
}

func is6(p netip.Prefix) bool { return p.Addr().Is6() }

// Update implements subnet.Store.
func (s *Store) Update(ctx context.Context, old subnet.Entry, r subnet.Record, id subnet.LeaseID, spent ...subnet.Entry) (subnet.Entry, error) {
	key, next := s.prefix+old.Key, s.prefix+r.Key()
	w := write{what: "update record", record: r, id: id, replaced: append([]subnet.Entry{old}, spent...)}
	w.cond, w.before, w.current = s.replacing(old, spent)
	if next == key {
		e, err := s.write(ctx, w)
		e.Created = old.Created
		return e, err
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
			w.undo = append(w.undo, clientv3.OpPut(s.prefix+e.Key, string(text), clientv3.WithLease(clientv3.LeaseID(e.LeaseID))))
		}
	}
	w.alone = true
	return s.write(ctx, w)
}

// replacing returns the parts of a transaction that replaces an entry: the condition that it and what is spent stand unchanged, what
// deletes that, and what reads all of them.
func (s *Store) replacing(old subnet.Entry, spent []subnet.Entry) (cond []clientv3.Cmp, deletes, reads []clientv3.Op) {
	key := s.prefix + old.Key
	cond, reads = unchanged(key, old), []clientv3.Op{clientv3.OpGet(key)}
	for _, c := range spent {
		key := s.prefix + c.Key
		cond, deletes, reads = append(cond, unchanged(key, c)...), append(deletes, clientv3.OpDelete(key)), append(reads, clientv3.OpGet(key))
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
	// alone says that no other record may have one of the prefixes. No comparison can tell that: they are the end of a key, not its
	// beginning. So the transaction also reads all keys as they are after the write. Of two hosts that write
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

// takeBack undoes a write and returns the conflict with the other record. If it does not come to that, the host finds its record
// beside an older one, and gives the subnet up.
func (s *Store) takeBack(ctx context.Context, w write, e subnet.Entry, other string) error {
	key := s.prefix + e.Key
	then := append([]clientv3.Op{clientv3.OpGet(other), clientv3.OpDelete(key)}, w.undo...)
	resp, err := s.txn(ctx, "take record back", unchanged(key, e), then, []clientv3.Op{clientv3.OpGet(other)})
	if err != nil {
		return err
	}
	return s.conflict(strings.TrimPrefix(other, s.prefix), resp)
}

// conflict tells what stood there, as the last part of a transaction that failed has read it. What stands there as it should, an entry and what
// is spent for it, is not the reason; that one of them does not may be.
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
	return string(kv.Key) == s.prefix+e.Key && kv.ModRevision == e.Revision && kv.Lease == int64(e.LeaseID) && (e.LeaseID != 0 || string(kv.Value) == e.Value)
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
