package etcdv3

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
)

// errReplaced ends a login whose connection was dropped or closed meanwhile.
var errReplaced = errors.New("the connection was dropped")

// login is one attempt to get a client. With a user name, clientv3 logs in before it returns one, which takes as long
// as etcd does.
type login struct {
	done   chan struct{} // closed when the fields below are set
	cancel context.CancelFunc
	client *clientv3.Client
	err    error
}

// connected returns the client, and makes it at the first call. All calls wait for the same login, and nobody who only
// wants to drop the connection waits for it.
func (s *Store) connected(ctx context.Context) (*clientv3.Client, error) {
	s.mu.Lock()
	if s.client != nil {
		defer s.mu.Unlock()
		return s.client, nil
	}
	if s.login == nil {
		base, cancel := context.WithCancel(clientv3.WithRequireLeader(context.Background()))
		s.login = &login{done: make(chan struct{}), cancel: cancel}
		go s.connect(base, s.login)
	}
	l := s.login
	s.mu.Unlock()
	select {
	case <-l.done:
		return l.client, l.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// connect makes the client of a login, whose context is that of the client.
func (s *Store) connect(ctx context.Context, l *login) {
	late := time.AfterFunc(max(s.patience(), handshakeTime), l.cancel)
	client, err := s.dial(ctx)
	if !late.Stop() && err != nil {
		err = context.DeadlineExceeded
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	defer close(l.done)
	current := s.login == l
	if current {
		s.login = nil
	}
	if current && err == nil && ctx.Err() == nil {
		s.client, s.cancel, l.client = client, l.cancel, client
		return
	}
	l.cancel()
	if err == nil {
		_ = client.Close()
	}
	if l.err = err; !current || err == nil {
		l.err = errReplaced
	}
}

// dial returns a client of the endpoints to use now.
func (s *Store) dial(ctx context.Context) (*clientv3.Client, error) {
	config := s.config
	config.Endpoints = *s.where.Load()
	config.Context = ctx
	if s.legacy != "" {
		var err error
		if config.Endpoints, err = s.preferred(ctx); err != nil {
			return nil, err
		}
	}
	return clientv3.New(config)
}

// Close ends all calls.
func (s *Store) Close() error { return s.drop() }

// Redial drops the connection, and with it all that is under way; the next call makes a new one. Without it, calls over
// a connection from an address that this host no longer has wait until TCP gives up.
func (s *Store) Redial() { _ = s.drop() }

// drop never waits for etcd.
func (s *Store) drop() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.login != nil {
		s.login.cancel()
		s.login = nil
	}
	if s.client == nil {
		return nil
	}
	s.cancel()
	err := s.client.Close()
	s.client = nil
	if errors.Is(err, context.Canceled) { // by ourselves
		err = nil
	}
	return err
}

// legacyPort is that of etcd before version 2. Like the endpoints of flannel, ours begin with it by default.
const legacyPort = "4001"

// legacyEndpoint returns the endpoint at which any user of this host can pose as etcd, if there are others beside it:
// nothing listens there on the hosts of today, and a port above 1023 is for everybody.
func legacyEndpoint(endpoints []string) string {
	i := slices.IndexFunc(endpoints, isLegacy)
	if i < 0 || !slices.ContainsFunc(endpoints, func(e string) bool { return !isLegacy(e) }) {
		return ""
	}
	return endpoints[i]
}

func isLegacy(endpoint string) bool {
	u, err := url.Parse(endpoint)
	if err != nil || u.Scheme != "http" || u.Port() != legacyPort {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
}

// probeTime is how long an endpoint may take to accept a connection before the legacy one counts.
const probeTime = time.Second

// preferred returns the endpoints without the legacy one if one of them accepts a connection, else the legacy one if
// that does.
func (s *Store) preferred(ctx context.Context) ([]string, error) {
	others := slices.DeleteFunc(slices.Clone(*s.where.Load()), isLegacy)
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	answers := make(chan error, len(others))
	for _, e := range others {
		go func() { answers <- accepts(ctx, e) }()
	}
	var err error
	for range others {
		if err = <-answers; err == nil {
			return others, nil
		}
	}
	if accepts(context.WithoutCancel(ctx), s.legacy) == nil {
		return []string{s.legacy}, nil
	}
	return nil, err
}

// connecting says how connections are made: within Answer to a host that is there, and handshakeTime for the rest. A
// proxy that the environment names is gRPC's business, and has Answer for all.
func connecting(endpoints []string, t Times) []grpc.DialOption {
	params := grpc.ConnectParams{
		Backoff: backoff.Config{BaseDelay: 200 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2,
			MaxDelay: maxRedial},
		MinConnectTimeout: t.Answer,
	}
	if slices.ContainsFunc(endpoints, behindProxy) {
		return []grpc.DialOption{grpc.WithConnectParams(params)}
	}
	params.MinConnectTimeout = max(handshakeTime, t.Answer)
	return []grpc.DialOption{grpc.WithConnectParams(params), grpc.WithContextDialer(dialer(t.Answer))}
}

// behindProxy reports whether the environment names a proxy for an endpoint. Like gRPC it looks at HTTPS_PROXY and
// NO_PROXY, whatever the scheme of the endpoint.
func behindProxy(endpoint string) bool {
	proxy, err := http.ProxyFromEnvironment(&http.Request{URL: &url.URL{Scheme: "https", Host: hostOf(endpoint)}})
	return err != nil || proxy != nil
}

// dialer connects to an address as clientv3 gives it to gRPC, within a time: the kernel sends a SYN again ever more
// rarely, so that a new attempt is faster. The kernel probes an idle connection as seldom as with gRPC's own dialer:
// one to a member that does not serve the watch would break with the first probe that is lost.
func dialer(within time.Duration) func(context.Context, string) (net.Conn, error) {
	d := net.Dialer{Timeout: within, KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: -1, Interval: -1, Count: -1}}
	return func(ctx context.Context, address string) (net.Conn, error) {
		if file, ok := strings.CutPrefix(address, "unix:"); ok {
			return d.DialContext(ctx, "unix", strings.TrimPrefix(file, "//"))
		}
		return d.DialContext(ctx, "tcp", address)
	}
}

// accepts says why an endpoint does not accept a connection; nil: it does.
func accepts(ctx context.Context, endpoint string) error {
	address := hostOf(endpoint)
	if scheme, file, _ := strings.Cut(endpoint, "://"); scheme == "unix" || scheme == "unixs" {
		address = "unix:" + file
	}
	c, err := dialer(probeTime)(ctx, address)
	if err != nil {
		return err
	}
	return c.Close()
}

// answered is called after each call that was answered, and gives the one warning about who may have answered.
func (s *Store) answered(c *clientv3.Client) {
	if s.config.Username != "" || !slices.ContainsFunc(c.Endpoints(), isLegacy) {
		return
	}
	s.warned.Do(func() {
		s.log.Warn("etcd answers on port "+legacyPort+
			" without TLS and without a password: any user of this host can listen there and decide "+
			"where packets go; name the endpoint of your etcd with -etcd-endpoints, best with https://",
			"endpoints", c.Endpoints())
	})
}

// base returns what all keys begin with: path.Join(prefix, name) is the key, as in flannel. The empty prefix is "/".
func base(prefix string) string {
	const name = "x"
	return strings.TrimSuffix(path.Join(cmp.Or(prefix, "/"), name), name)
}

// withoutUsers drops users and passwords from URLs; etcd's client does not look at them, and its messages show them.
func withoutUsers(endpoints []string) (out []string, found bool) {
	for _, e := range endpoints {
		scheme, rest, ok := strings.Cut(e, "://")
		if at := strings.LastIndexByte(rest, '@'); ok && at >= 0 && (scheme == "http" || scheme == "https") {
			e, found = fmt.Sprint(scheme, "://", rest[at+1:]), true
		}
		out = append(out, e)
	}
	return out, found
}
