package join_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"flanneld/need"
	"flanneld/subnet/etcdv3/authority"
	"flanneld/subnet/etcdv3/join"
	"flanneld/subnet/etcdv3/member"
)

const prefix = "/coreos.com/network"

// store is a secured member with its service, both inside the test.
type store struct {
	t       *testing.T
	folder  authority.Folder
	ca      *authority.Authority
	admin   *join.Admin
	etcd    string // URL
	service string // HOST:PORT
	skew    atomic.Int64
	log     strings.Builder
}

func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func newStore(t *testing.T) *store {
	t.Helper()
	dir := must(os.MkdirTemp("", "join"))(t) // short enough for the path of a socket
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	s := &store{t: t, folder: authority.Folder(filepath.Join(dir, "store"))}
	s.ca = must(authority.Open(s.folder, time.Now()))(t)
	loopback := []netip.Addr{netip.MustParseAddr("127.0.0.1")}
	for name, subject := range map[string]authority.Subject{
		authority.Member: {Name: "member", Server: true, Addresses: loopback}, authority.Root: {Name: "root"},
	} {
		if err := s.ca.Ensure(s.folder, name, subject, time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	listen := need.Address(t)
	s.etcd = "https://" + listen.String()
	m := must(member.Start(t.Context(), member.Options{
		Dir: filepath.Join(dir, "etcd"), Listen: listen, Log: slog.New(slog.DiscardHandler),
		TLS: member.Files{
			CA: s.folder.CAFile(), Cert: s.folder.CertFile(authority.Member), Key: s.folder.KeyFile(authority.Member),
		},
	}))(t)
	t.Cleanup(m.Close)
	s.admin = must(join.NewAdmin([]string{s.etcd}, s.folder, prefix))(t)
	t.Cleanup(func() { _ = s.admin.Close() })
	if err := s.admin.Secure(t.Context(), join.Host{User: join.NewUser(), Member: true}, nil); err != nil {
		t.Fatal(err)
	}
	s.serve()
	return s
}

func (s *store) serve() {
	s.t.Helper()
	l := must(net.Listen("tcp", "127.0.0.1:0"))(s.t)
	s.service = l.Addr().String()
	service := &join.Service{
		Admin: s.admin, Folder: s.folder, Prefix: prefix, Changed: func(context.Context) {},
		Log: slog.New(slog.NewTextHandler(&s.log, nil)),
		Members: func(context.Context, netip.Addr) (endpoints, services []string, err error) {
			return []string{s.etcd}, []string{s.service}, nil
		},
		Now: func() time.Time { return time.Now().Add(time.Duration(s.skew.Load())) },
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- service.Run(ctx, l) }()
	s.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			s.t.Error(err)
		}
	})
}

func (s *store) token() join.Token {
	s.t.Helper()
	t, _, err := s.admin.CreateToken(s.t.Context(), authority.Hash(s.ca.Certificate()), join.Terms{Valid: time.Hour})
	return must(t, err)(s.t)
}

// client is a host that may want to join.
func (s *store) client() join.Client {
	return join.Client{Folder: authority.Folder(s.t.TempDir()), Prefix: prefix, Host: "one", Identity: "id-one"}
}

// etcdAs returns etcd's client with the credentials of a folder; those of name.
func (s *store) etcdAs(f authority.Folder, name string) *clientv3.Client {
	s.t.Helper()
	pool := x509.NewCertPool()
	pool.AddCert(must(f.CACertificate())(s.t))
	pair := must(tls.LoadX509KeyPair(f.CertFile(name), f.KeyFile(name)))(s.t)
	c := must(clientv3.New(clientv3.Config{
		Endpoints: []string{s.etcd}, TLS: &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}},
		Logger: zap.NewNop(), MaxUnaryRetries: 1,
	}))(s.t)
	s.t.Cleanup(func() { _ = c.Close() })
	return c
}

func (s *store) joined() (join.Client, join.Joined) {
	s.t.Helper()
	c := s.client()
	return c, must(c.Join(s.t.Context(), s.token(), []string{s.service}))(s.t)
}

func TestAHostThatHasJoinedCanDoWhatADaemonDoesAndNothingElse(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	c, j := s.joined()
	if got, ok := join.Load(c.Folder); !ok || got.User != j.User || got.Endpoints[0] != s.etcd {
		t.Errorf("kept %+v, %v", got, ok)
	}
	if !join.HasJoined(c.Folder, authority.Hash(s.ca.Certificate())) {
		t.Error("the host does not know that it has joined")
	}
	etcd, ctx := s.etcdAs(c.Folder, authority.Host), t.Context()
	for what, test := range map[string]struct {
		try     func() error
		allowed bool
	}{
		"reads the configuration": {func() error { _, err := etcd.Get(ctx, prefix+"/config"); return err }, true},
		"watches the network": {func() error {
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			resp := <-etcd.Watch(ctx, prefix+"/", clientv3.WithPrefix(), clientv3.WithCreatedNotify())
			return resp.Err()
		}, true},
		"writes a record": {func() error { _, err := etcd.Put(ctx, prefix+"/subnets/10.5.1.0-24", "{}"); return err }, true},
		"writes a claim":  {func() error { _, err := etcd.Put(ctx, prefix+"/claims/10.5.1.0-24", "{}"); return err }, true},

		"writes the configuration": {func() error { _, err := etcd.Put(ctx, prefix+"/config", "{}"); return err }, false},
		"writes elsewhere":         {func() error { _, err := etcd.Put(ctx, "/other", "{}"); return err }, false},
		"reads tokens": {func() error {
			_, err := etcd.Get(ctx, "flanneld/", clientv3.WithPrefix())
			return err
		}, false},
		"reads everything": {func() error {
			_, err := etcd.Get(ctx, "\x00", clientv3.WithFromKey())
			return err
		}, false},
		"makes a token": {func() error { _, err := etcd.Put(ctx, "flanneld/tokens/aaaaaaaa", "{}"); return err }, false},
		"makes a user":  {func() error { _, err := etcd.UserAdd(ctx, "x", "y"); return err }, false},
		"takes the role of root": {func() error {
			_, err := etcd.UserGrantRole(ctx, j.User, "root")
			return err
		}, false},
		"turns the rights off": {func() error { _, err := etcd.AuthDisable(ctx); return err }, false},
		"adds a member": {func() error {
			_, err := etcd.MemberAdd(ctx, []string{"https://127.0.0.1:1"})
			return err
		}, false},
		"takes a snapshot": {func() error {
			r, err := etcd.Snapshot(ctx)
			if err == nil {
				_, err = r.Read(make([]byte, 1))
			}
			return err
		}, false},
	} {
		if err := test.try(); (err == nil) != test.allowed {
			t.Errorf("a host %s: error is %v", what, err)
		}
	}
}

func TestATokenIsRefusedWithTheReason(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	revoked := s.token()
	if err := s.admin.RevokeToken(t.Context(), revoked.ID); err != nil {
		t.Fatal(err)
	}
	good := s.token()
	wrong := join.NewToken(good.CA)
	guessed := wrong
	guessed.ID = good.ID
	other := join.NewToken([32]byte{1})
	for name, test := range map[string]struct {
		token join.Token
		later time.Duration
		want  error
	}{
		"one of another store":      {wrong, 0, join.ErrUnknown},
		"another secret":            {guessed, 0, join.ErrUnknown},
		"another secret, too late":  {guessed, 2 * time.Hour, join.ErrUnknown},
		"a revoked one":             {revoked, 0, join.ErrRevoked},
		"an expired one":            {good, 2 * time.Hour, join.ErrExpired},
		"one of another authority":  {other, 0, join.ErrAuthority},
		"the good one, before that": {good, 0, nil},
	} {
		s.skew.Store(int64(test.later))
		c := s.client()
		_, err := c.Join(t.Context(), test.token, []string{s.service})
		if !errors.Is(err, test.want) || (err == nil) != (test.want == nil) {
			t.Errorf("%s: error is %v, want %v", name, err, test.want)
		}
		if _, joined := join.Load(c.Folder); joined != (test.want == nil) {
			t.Errorf("%s: joined is %v", name, joined)
		}
		if text := test.token.Reveal(); strings.Contains(fmt.Sprint(err, s.log.String()), strings.Split(text, ".")[2]) {
			t.Errorf("%s: the secret is in %v or the log", name, err)
		}
	}
}

// Whoever has the certificate of a host can pose as a host, not as a member: the secret of a token is not sent to it.
func TestAHostCannotPoseAsAMember(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	c, _ := s.joined()
	pair := must(tls.LoadX509KeyPair(c.Folder.CertFile(authority.Host), c.Folder.KeyFile(authority.Host)))(t)
	pair.Certificate = append(pair.Certificate, s.ca.Certificate().Raw)
	l := must(tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair}}))(t)
	defer l.Close()
	sent := make(chan int, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		n, _ := conn.Read(make([]byte, 1))
		sent <- n
	}()
	_, err := s.client().Join(t.Context(), s.token(), []string{l.Addr().String()})
	if err == nil || !strings.Contains(err.Error(), "usage") {
		t.Errorf("error is %v, want one about the usage of the certificate", err)
	}
	if n := <-sent; n > 0 {
		t.Error("something was sent")
	}
}

func TestACertificateIsRenewedUntilItsHostIsRemoved(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	c, j := s.joined()
	etcd := s.etcdAs(c.Folder, authority.Host)
	record := prefix + "/subnets/10.5.1.0-24"
	if _, err := etcd.Put(t.Context(), record, `{"ID":"id-one"}`); err != nil {
		t.Fatal(err)
	}
	before := must(c.Folder.Certificate(authority.Host))(t)
	renewed := must(c.Renew(t.Context(), j))(t)
	after := must(c.Folder.Certificate(authority.Host))(t)
	if renewed.User != j.User || renewed.Token != j.Token || after.SerialNumber.Cmp(before.SerialNumber) == 0 ||
		after.Subject.CommonName != j.User {
		t.Errorf("renewed as %+v, was %+v", renewed, j)
	}

	hosts := must(s.admin.Hosts(t.Context()))(t)
	h, found, err := s.admin.Host(t.Context(), j.User)
	if err != nil || !found || len(hosts) != 2 || h.Name != "one" || h.Address != "127.0.0.1" {
		t.Fatalf("hosts are %+v, the host %+v, %v", hosts, h, err)
	}
	if err := s.admin.RemoveHost(t.Context(), h); err != nil {
		t.Fatal(err)
	}
	if _, err := etcd.Get(t.Context(), prefix+"/config"); err == nil {
		t.Error("a host that was removed still reads")
	}
	if resp := must(s.etcdAs(s.folder, authority.Root).Get(t.Context(), record))(t); len(resp.Kvs) > 0 {
		t.Error("the record of the host is still there")
	}
	if _, err := c.Renew(t.Context(), j); !errors.Is(err, join.ErrRemoved) {
		t.Errorf("a host that was removed renews: %v", err)
	}
	again := must(c.Join(t.Context(), s.token(), []string{s.service}))(t)
	if again.User == j.User {
		t.Error("a host that joins again is the same user")
	}
	if _, err := s.etcdAs(c.Folder, authority.Host).Get(t.Context(), prefix+"/config"); err != nil {
		t.Errorf("a host that has joined again: %v", err)
	}
}

func TestAStoreIsForOneNetwork(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	c := s.client()
	c.Prefix = "/other"
	if _, err := c.Join(t.Context(), s.token(), []string{s.service}); !errors.Is(err, join.ErrPrefix) {
		t.Errorf("a host of another network: %v", err)
	}
	admin := must(join.NewAdmin([]string{s.etcd}, s.folder, "/other"))(t)
	defer admin.Close()
	if err := admin.Secure(t.Context(), join.Host{User: join.NewUser()}, nil); !errors.Is(err, join.ErrPrefix) {
		t.Errorf("a member of another network: %v", err)
	}
}

// A service that does not answer is stepped over.
func TestTheNextMemberIsAsked(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	if _, err := s.client().Join(t.Context(), s.token(), []string{need.Address(t).String(), s.service}); err != nil {
		t.Error(err)
	}
}

// TestChangesOfUsersRefuseNoOtherCall has hosts added and removed while others are listed.
func TestChangesOfUsersRefuseNoOtherCall(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	ctx, cancel := context.WithCancel(t.Context())
	var changing sync.WaitGroup
	changing.Go(func() {
		for ctx.Err() == nil {
			h := join.Host{User: join.NewUser()}
			if err := errors.Join(s.admin.AddHost(ctx, h), s.admin.RemoveHost(ctx, h)); err != nil && ctx.Err() == nil {
				t.Error(err)
				return
			}
		}
	})
	var listing sync.WaitGroup
	for range 20 {
		listing.Go(func() {
			for range 100 {
				if _, err := s.admin.Hosts(ctx); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	listing.Wait()
	cancel()
	changing.Wait()
}
