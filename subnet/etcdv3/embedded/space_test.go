package embedded_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"testing"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"flanneld/subnet/etcdv3/authority"
	"flanneld/subnet/etcdv3/embedded"
	"flanneld/subnet/etcdv3/join"
	"flanneld/subnet/etcdv3/member"
)

// root is a client with all rights.
func (f *first) root() *clientv3.Client {
	f.t.Helper()
	folder := embedded.Folder(f.o.StateDir)
	pair, err := tls.LoadX509KeyPair(folder.CertFile(authority.Root), folder.KeyFile(authority.Root))
	ca, e := folder.CACertificate()
	if err := errors.Join(err, e); err != nil {
		f.t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(ca)
	c, err := clientv3.New(clientv3.Config{
		Endpoints: []string{"https://" + f.o.Listen.String()}, Logger: zap.NewNop(),
		TLS: &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS13},
	})
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { _ = c.Close() })
	return c
}

// fill writes values until the store takes no more: all to one key, or each to its own.
func fill(t *testing.T, c *clientv3.Client, key func(i int) string) {
	t.Helper()
	value := strings.Repeat("x", 256<<10)
	for i := range 1000 {
		if _, err := c.Put(t.Context(), key(i), value); errors.Is(err, rpctypes.ErrNoSpace) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
	}
	t.Fatal("the store has no quota")
}

func TestAStoreThatIsFullOfHistoryTakesChangesAgain(t *testing.T) {
	t.Parallel()
	f := newFirst(t, member.Options{Quota: 8 << 20})
	c := f.root()
	fill(t, c, func(int) string { return "history" })
	if _, err := c.Put(t.Context(), "small", ""); !errors.Is(err, rpctypes.ErrNoSpace) {
		t.Fatalf("a write to a full store: %v", err)
	}
	if err := f.Maintain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Put(t.Context(), "small", ""); err != nil {
		t.Errorf("the store was maintained, and refuses a write: %v", err)
	}
	status, err := c.Status(t.Context(), c.Endpoints()[0])
	if err != nil || status.DbSize > 2<<20 {
		t.Errorf("the file still has %d bytes, %v", status.DbSize, err)
	}
	if err := f.Maintain(t.Context()); err != nil { // nothing to do
		t.Error(err)
	}
}

func TestAStoreThatIsFullOfDataSaysSoAndKeepsThem(t *testing.T) {
	t.Parallel()
	f := newFirst(t, member.Options{Quota: 8 << 20})
	c := f.root()
	fill(t, c, func(i int) string { return fmt.Sprint("data", i) })
	count := func() int64 {
		resp, err := c.Get(context.Background(), "data", clientv3.WithPrefix(), clientv3.WithCountOnly())
		if err != nil {
			t.Fatal(err)
		}
		return resp.Count
	}
	before := count()
	if err := f.Maintain(t.Context()); err == nil || !strings.Contains(err.Error(), "delete it with etcdctl") {
		t.Errorf("a store that is full of data: %v", err)
	}
	if got := count(); got != before || got == 0 {
		t.Errorf("%d values are left of %d", got, before)
	}
	if _, err := c.Delete(t.Context(), "data", clientv3.WithPrefix()); err != nil {
		t.Fatal(err)
	}
	if err := f.Maintain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Put(t.Context(), "small", ""); err != nil {
		t.Errorf("there is room, and the store refuses a write: %v", err)
	}
}

func TestOnlyAFileThatIsMostlyUnusedIsWrittenAnew(t *testing.T) {
	for _, tt := range []struct {
		size, used int64 // MiB
		want       bool
	}{
		{1, 1, false}, {60, 1, false}, {100, 80, false}, {100, 30, true}, {400, 300, false}, {400, 150, true},
	} {
		if got := embedded.WorthDefragment(join.Space{Size: tt.size << 20, Used: tt.used << 20}); got != tt.want {
			t.Errorf("%d of %d MiB in use: defragmented is %v", tt.used, tt.size, got)
		}
	}
}
