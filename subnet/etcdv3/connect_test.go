package etcdv3_test

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"path"
	"strings"
	"sync/atomic"
	"testing"

	"flanneld/need"
	"flanneld/subnet/etcdv3"
)

// silence is a server that accepts connections and says nothing.
func silence(t *testing.T, addr string) (l net.Listener, accepted *atomic.Int64) {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	accepted = &atomic.Int64{}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { _ = c.Close() })
			accepted.Add(1)
		}
	}()
	return l, accepted
}

// logged returns a store and its log.
func logged(t *testing.T, o etcdv3.Options) (*etcdv3.Store, *lines) {
	t.Helper()
	log := &lines{}
	o.Prefix, o.Log = prefix, slog.New(slog.NewTextHandler(log, nil))
	s, err := etcdv3.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s, log
}

func TestAStoreMovesToOtherEndpoints(t *testing.T) {
	t.Parallel()
	l, accepted := silence(t, "127.0.0.1:0")
	s := newStore(t, etcdv3.Options{Endpoints: []string{"http://" + l.Addr().String()}})
	ended := make(chan error, 1)
	go func() { ended <- second(s.List(t.Context())) }()
	need.Until(t, "a call is under way", noticed, func() bool { return accepted.Load() > 0 })
	s.Move([]string{"http://" + startEtcd(t, nil).addr})
	if err := <-ended; err == nil {
		t.Error("the call to the old endpoint was answered")
	}
	if _, err := s.List(t.Context()); err != nil {
		t.Errorf("after the move: %v", err)
	}
}

func TestNobodyWhoDropsTheConnectionWaitsForALoginThatHangs(t *testing.T) {
	t.Parallel()
	l, accepted := silence(t, "127.0.0.1:0")
	s := newStore(t, etcdv3.Options{Endpoints: []string{"http://" + l.Addr().String()}, Username: "flannel",
		Password: "secret"})
	ended := make(chan error, 1)
	go func() { ended <- second(s.List(t.Context())) }()
	need.Until(t, "the login is under way", noticed, func() bool { return accepted.Load() > 0 })
	s.Redial()
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "dropped") {
		t.Errorf("got %v, want the call to end because the connection was dropped", err)
	}
}

// legacy returns an address with the port of old etcds on which nobody else listens.
func legacy() string {
	return fmt.Sprintf("127.%d.%d.%d:4001", rand.IntN(256), rand.IntN(256), 1+rand.IntN(254))
}

func TestTheLegacyPortIsNotUsedWhileEtcdAnswersElsewhere(t *testing.T) {
	t.Parallel()
	e := startEtcd(t, nil)
	l, accepted := silence(t, legacy())
	s, log := logged(t, etcdv3.Options{Endpoints: []string{"http://" + l.Addr().String(), "http://" + e.addr}})
	for range 10 {
		if _, err := s.List(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if n := accepted.Load(); n > 0 {
		t.Errorf("%d connections to the legacy port", n)
	}
	if log.String() != "" {
		t.Errorf("warnings: %s", log)
	}
}

func TestTheLegacyPortIsUsedWithAWarningUntilEtcdIsBackElsewhere(t *testing.T) {
	t.Parallel()
	e := startEtcd(t, nil)
	usual, old := need.Address(t).String(), legacy()
	s, log := logged(t, etcdv3.Options{Endpoints: []string{"http://" + old, "http://" + usual}})
	if _, err := s.List(t.Context()); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Fatalf("got %v, want that nothing listens", err)
	}
	p := newProxyOn(t, old, e.addr)
	for range 3 {
		if _, err := s.List(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if n := strings.Count(log.String(), "any user of this host"); n != 1 {
		t.Errorf("%d warnings, want one:\n%s", n, log)
	}
	p.cut.Store(true)
	q := newProxyOn(t, usual, e.addr)
	need.Until(t, "the other endpoint is used", noticed, func() bool {
		_, err := s.List(t.Context())
		return err == nil && q.answered.Load() > 0
	})
}

func TestTheLegacyPortWithAPasswordNeedsNoWarning(t *testing.T) {
	t.Parallel()
	e := startEtcd(t, nil)
	old := legacy()
	newProxyOn(t, old, e.addr)
	s, log := logged(t, etcdv3.Options{Endpoints: []string{"http://" + old}, Username: "flannel", Password: "secret"})
	if _, err := s.List(t.Context()); err != nil || log.String() != "" {
		t.Errorf("got %v, %s", err, log)
	}
}

func TestAPasswordInAURLIsShownNowhere(t *testing.T) {
	t.Parallel()
	addr := need.Address(t).String()
	s, log := logged(t, etcdv3.Options{Endpoints: []string{"http://joe:pa@ss@" + addr}})
	_, err := s.List(t.Context())
	if err == nil || !strings.Contains(err.Error(), "http://"+addr) {
		t.Errorf("got %v, want an error that names the endpoint", err)
	}
	if all := fmt.Sprint(err, log); strings.Contains(all, "pa@ss") || strings.Contains(all, "joe") {
		t.Errorf("shown: %s", all)
	}
	if !strings.Contains(log.String(), "-etcd-username") {
		t.Errorf("the log does not say where the password belongs: %s", log)
	}
}

// The keys are those of flannel, which joins prefix and name as paths.
func TestThePrefixIsTakenAsItIsGiven(t *testing.T) {
	t.Parallel()
	e := startEtcd(t, nil)
	for _, given := range []string{"/a/network", "a/network", "/a/network2/", "//b//network", "c/../d", "/", "e"} {
		s, err := etcdv3.New(etcdv3.Options{Endpoints: []string{"http://" + e.addr}, Prefix: given,
			Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if _, err := s.PutConfigIfAbsent(t.Context(), netConfig); err != nil {
			t.Fatal(err)
		}
		want := path.Join(given, "config")
		if resp, err := e.client().Get(t.Context(), want); err != nil || len(resp.Kvs) != 1 {
			t.Errorf("prefix %q: no configuration at %q: %v", given, want, err)
		}
		if snap, err := s.List(t.Context()); err != nil || string(snap.Config) != netConfig {
			t.Errorf("prefix %q: got %q, %v", given, snap.Config, err)
		}
	}
}
