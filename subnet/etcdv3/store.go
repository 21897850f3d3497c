package etcdv3

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"flanneld/subnet"
)

// Options say how to reach etcd.
type Options struct {
	Endpoints                 []string // URLs
	Prefix                    string   // "/coreos.com/network", taken as it is given; empty: "/"
	CertFile, KeyFile, CAFile string   // TLS, read again when they change; empty: none
	Username, Password        string
	Log                       *slog.Logger
	Times                     Times
}

// Times are how long a Store waits. The zero value of each: the usual time.
type Times struct {
	Call   time.Duration // for the answer to one call
	Quiet  time.Duration // on a connection in use, before it is pinged
	Answer time.Duration // for the answer to a ping, and until a connection is accepted
	Checks time.Duration // between two checks of a watch, on average
}

func (t Times) orUsual() Times {
	return Times{
		Call: cmp.Or(t.Call, requestTime), Quiet: cmp.Or(t.Quiet, keepaliveTime), Answer: cmp.Or(t.Answer, keepaliveWait),
		Checks: cmp.Or(t.Checks, checkPause),
	}
}

const (
	requestTime   = 5 * time.Second // a slow etcd answers within it
	keepaliveTime = 10 * time.Second
	keepaliveWait = 3 * time.Second
	maxRedial     = 1500 * time.Millisecond // a store that comes back is noticed within 5 s
	// handshakeTime is how long a server may take that has accepted a connection, for TLS and the first frames. When
	// thousands of hosts connect at the same moment, all their handshakes go on side by side, and each takes long; a host
	// that gives up and begins anew has etcd do everything again, until it finishes none. A host that is not there is
	// not waited for: the dialer gives up after keepaliveWait, and the kernel if what was sent is not acknowledged for as
	// long. One that acknowledges and says nothing more is.
	handshakeTime = 20 * time.Second
	// window is how many bytes etcd may send before they are looked at. Left to itself gRPC lets it grow to 16 MiB. What
	// a host that is starved does not take in thereby waits in etcd, which keeps one copy of it for all.
	window = 256 << 10
	// maxHeader bounds what a server may say beside its answers, such as the text of an error, in bytes.
	maxHeader = 16 << 10
)

// Store is a subnet.Store. It is made without asking etcd for anything.
type Store struct {
	config clientv3.Config
	prefix string                   // with a slash at the end
	wait   time.Duration            // for one call, while the store answers
	where  atomic.Pointer[[]string] // the endpoints
	legacy string                   // endpoint that is used only while the others accept no connection; empty: none
	log    *slog.Logger
	warned sync.Once     // of an answer of the legacy endpoint
	checks time.Duration // between two checks of a watch, on average

	mu      sync.Mutex // guards all below
	client  *clientv3.Client
	cancel  context.CancelFunc // of the client's context
	login   *login             // under way; nil: none
	limit   time.Duration      // for the next call, if that is more than wait
	witness witness
}

var _ subnet.Store = (*Store)(nil)

// New returns a store. It does not wait for etcd.
func New(o Options) (*Store, error) {
	endpoints, users := withoutUsers(o.Endpoints)
	if o.Endpoints = endpoints; users {
		o.Log.Warn("user names and passwords in the URLs of etcd are ignored: use -etcd-username and FLANNELD_ETCD_PASSWORD",
			"endpoints", endpoints)
	}
	tls, err := newTransport(o)
	if err != nil {
		return nil, err
	}
	times := o.Times.orUsual()
	config := clientv3.Config{
		Username: o.Username, Password: o.Password,
		DialKeepAliveTime: times.Quiet, DialKeepAliveTimeout: times.Answer,
		// etcd ends a connection that is pinged while nothing is asked on it, as to those members that do not serve the
		// watch, and gRPC then pings all members more seldom. The first call on an idle connection pings at once.
		PermitWithoutStream: false,
		// Retrying is the manager's business: here a call costs what it says. Two tries, so that an
		// expired token is renewed and a member that has just died is stepped over.
		MaxUnaryRetries: 2, BackoffWaitBetween: 100 * time.Millisecond,
		DialOptions: append(connecting(o.Endpoints, times),
			grpc.WithChainUnaryInterceptor(unary), grpc.WithChainStreamInterceptor(streamed),
			grpc.WithInitialWindowSize(window), grpc.WithInitialConnWindowSize(window), grpc.WithMaxHeaderListSize(maxHeader),
		),
		Logger: zap.NewNop(),
	}
	if tls != nil {
		config.DialOptions = append(config.DialOptions, grpc.WithTransportCredentials(tls))
	}
	s := &Store{
		config: config, prefix: base(o.Prefix), wait: times.Call, legacy: legacyEndpoint(o.Endpoints), log: o.Log,
		checks: times.Checks,
	}
	s.where.Store(&o.Endpoints)
	return s, nil
}

// servers names the endpoints in messages.
func (s *Store) servers() string { return strings.Join(*s.where.Load(), ", ") }

// Move has all that follows go to other endpoints of the same store. They speak TLS if those before did.
func (s *Store) Move(endpoints []string) {
	if slices.Equal(endpoints, *s.where.Load()) {
		return
	}
	s.where.Store(&endpoints)
	s.Redial()
}

// How long a call may take depends on how long the last one took. A store that has too much to do, as many hosts ask at
// the same moment, becomes no faster when they ask again and what it did for them was for nothing.
const (
	perAnswer   = 4 // times what the last answer took
	perSilence  = 2 // times what the last call was given, without an answer
	maxPatience = 8 // times the usual time
)

// patience returns how long the next call may take.
func (s *Store) patience() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return max(s.limit, s.wait)
}

// learn takes in that a call may take so long from now on.
func (s *Store) learn(limit time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.limit = min(limit, maxPatience*s.wait)
}

// call bounds a call and names the servers in its error.
func (s *Store) call(parent context.Context, what string, f func(ctx context.Context, c *clientv3.Client) error) error {
	limit, start := s.patience(), time.Now()
	ctx, cancel := context.WithTimeout(clientv3.WithRequireLeader(parent), limit)
	defer cancel()
	c, err := s.connected(ctx)
	if err == nil {
		err = f(ctx, c)
	}
	switch {
	case err == nil:
		s.learn(perAnswer * time.Since(start))
		s.answered(c)
		return nil
	case errors.Is(err, rpctypes.ErrLeaseNotFound):
		return subnet.ErrLeaseGone
	case errors.Is(err, rpctypes.ErrNoSpace):
		return fmt.Errorf("%s: etcd %s has no space left: compact and defragment it, then disarm the alarm: %w", what,
			s.servers(), err)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(ctx.Err(), context.DeadlineExceeded):
		if parent.Err() == nil {
			s.learn(perSilence * limit)
		}
		return fmt.Errorf("%s: %w from etcd %s within %s", what, errNoAnswer, s.servers(), limit)
	case s.legacy != "" && status.Code(err) == codes.Unavailable:
		s.Redial() // to choose between the endpoints again
	}
	return fmt.Errorf("%s: etcd %s: %w", what, s.servers(), plainly(err))
}

// errNoAnswer is the error of a call that took too long.
var errNoAnswer = errors.New("no answer")

// txn runs a transaction.
func (s *Store) txn(ctx context.Context, what string, ifs []clientv3.Cmp, then,
	otherwise []clientv3.Op) (resp *clientv3.TxnResponse, err error) {
	err = s.call(ctx, what, func(ctx context.Context, c *clientv3.Client) error {
		resp, err = c.Txn(ctx).If(ifs...).Then(then...).Else(otherwise...).Commit()
		return err
	})
	return resp, err
}

// PutConfigIfAbsent writes the network configuration if the store has none, and reports whether it did.
func (s *Store) PutConfigIfAbsent(ctx context.Context, text string) (bool, error) {
	key := s.prefix + configName
	resp, err := s.txn(ctx, "write network configuration", []clientv3.Cmp{absent(key)},
		[]clientv3.Op{clientv3.OpPut(key, text)}, nil)
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

// KeepAlive implements subnet.Store, with a stream of its own: that of clientv3 is opened again without a pause as long
// as it fails.
func (s *Store) KeepAlive(ctx context.Context, id subnet.LeaseID) (ttl time.Duration, err error) {
	err = s.call(ctx, "renew lease", func(ctx context.Context, c *clientv3.Client) error {
		stream, err := pb.NewLeaseClient(c.ActiveConnection()).LeaseKeepAlive(ctx)
		if err != nil {
			return rpctypes.Error(err)
		}
		// What Send says is that the stream has ended; Recv says why.
		_ = stream.Send(&pb.LeaseKeepAliveRequest{ID: int64(id)})
		resp, err := stream.Recv()
		switch {
		case err != nil:
			return rpctypes.Error(err)
		case resp.ID != int64(id):
			return fmt.Errorf("%w: renewal of lease %x instead of %x", errNonsense, resp.ID, id)
		case resp.TTL <= 0:
			return rpctypes.ErrLeaseNotFound
		}
		ttl = time.Duration(resp.TTL) * time.Second
		return nil
	})
	return ttl, err
}

// Members returns the endpoints of the members that vote, sorted, as the store has them.
func (s *Store) Members(ctx context.Context) (endpoints []string, err error) {
	err = s.call(ctx, "list members", func(ctx context.Context, c *clientv3.Client) error {
		resp, err := c.MemberList(ctx)
		if err != nil {
			return err
		}
		for _, m := range resp.Members {
			if !m.IsLearner {
				endpoints = append(endpoints, m.ClientURLs...)
			}
		}
		return nil
	})
	slices.Sort(endpoints)
	return endpoints, err
}
