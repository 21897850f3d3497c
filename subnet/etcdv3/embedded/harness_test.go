package embedded_test

import (
	"context"
	"log/slog"
	"os"
	"sync"
	"testing"
	"time"

	"flanneld/need"
	"flanneld/subnet/etcdv3"
	"flanneld/subnet/etcdv3/authority"
	"flanneld/subnet/etcdv3/embedded"
	"flanneld/subnet/etcdv3/join"
	"flanneld/subnet/etcdv3/member"
	"flanneld/trigger"
)

// TestMain also runs the etcd of members.
func TestMain(m *testing.M) {
	if member.IsChild(os.Args) {
		os.Exit(member.Main(os.Args))
	}
	os.Exit(m.Run())
}

const prefix = "/coreos.com/network"

// first is the first host of a cluster, or another member: what a daemon runs, without the rest of it.
type first struct {
	*embedded.Member
	t    *testing.T
	o    embedded.Options
	stop func()

	quota int64 // of etcd

	mu  sync.Mutex
	why error // guarded by mu: why etcd does not serve
}

func newFirst(t *testing.T, how ...member.Options) *first {
	t.Helper()
	f := newHost(t, "first")
	for _, o := range how {
		f.quota = o.Quota
	}
	f.start()
	return f
}

// newHost returns one that does not run yet.
func newHost(t *testing.T, name string) *first {
	t.Helper()
	dir, err := os.MkdirTemp("", "store") // short enough for the path of a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	f := &first{t: t, stop: func() {}, o: embedded.Options{
		StateDir: dir, Prefix: prefix, Listen: need.Address(t), Port: need.Address(t).Port(), Host: name,
		Identity: "id-" + name,
		Log:      slog.New(slog.DiscardHandler),
	}}
	t.Cleanup(func() { f.stop() })
	return f
}

// start returns when the member serves and its rights are set up.
func (f *first) start() {
	f.t.Helper()
	secured := f.launch()
	select {
	case <-secured:
	case <-time.After(time.Minute):
		f.t.Fatalf("%s does not serve: %v", f.o.Host, f.reason())
	}
}

// launch starts the member. What it returns is set whenever the member serves and its rights are set up.
func (f *first) launch() (secured trigger.Trigger) {
	f.t.Helper()
	m, err := embedded.NewMember(f.o)
	if err != nil {
		f.t.Fatal(err)
	}
	f.Member = m
	o := m.Etcd()
	o.Quota = f.quota
	ctx, cancel := context.WithCancel(context.Background())
	secured, served := trigger.New(), trigger.New()
	var running sync.WaitGroup
	running.Go(func() {
		member.Run(ctx, o, func(err error) {
			f.mu.Lock()
			f.why = err
			f.mu.Unlock()
			if err == nil {
				served.Set()
			}
		})
	})
	running.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-served:
				m.Secure(ctx)
				secured.Set()
			}
		}
	})
	running.Go(func() { m.Run(ctx, nobody{}) })
	f.stop = sync.OnceFunc(func() {
		cancel()
		running.Wait()
		_ = m.Close()
	})
	return secured
}

// reason returns why etcd does not serve.
func (f *first) reason() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.why
}

// joiner returns a host that joins with a new token.
func (f *first) joiner(name string) embedded.Joiner {
	f.t.Helper()
	return f.joinerWith(name, join.Terms{Valid: time.Hour})
}

// store returns the store as a daemon with the credentials of a folder has it.
func (f *first) store(folder authority.Folder) *etcdv3.Store {
	f.t.Helper()
	j, ok := join.Load(folder)
	if !ok {
		f.t.Fatalf("no credentials in %s", folder)
	}
	s, err := etcdv3.New(etcdv3.Options{
		Endpoints: j.Endpoints, Prefix: prefix, CAFile: folder.CAFile(), CertFile: folder.CertFile(authority.Host),
		KeyFile: folder.KeyFile(authority.Host), Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { _ = s.Close() })
	return s
}
