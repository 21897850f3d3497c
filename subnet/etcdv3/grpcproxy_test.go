package etcdv3_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/proxy/grpcproxy"
	"go.uber.org/zap"
	"google.golang.org/grpc"

	"flanneld/need"
	"flanneld/subnet/etcdv3"
)

// startGRPCProxy starts etcd's own proxy before a member, which goes on by itself when the member comes back, whatever
// that holds by then.
func startGRPCProxy(t *testing.T, e *etcd) (url string) {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{"http://" + e.addr}, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	kv, kvDone := grpcproxy.NewKvProxy(c)
	watch, watchDone := grpcproxy.NewWatchProxy(ctx, zap.NewNop(), c)
	lease, leaseDone := grpcproxy.NewLeaseProxy(ctx, c)
	server := grpc.NewServer()
	pb.RegisterKVServer(server, kv)
	pb.RegisterWatchServer(server, watch)
	pb.RegisterLeaseServer(server, lease)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() {
		stop()
		server.Stop()
		_ = c.Close()
		for _, done := range []<-chan struct{}{kvDone, watchDone, leaseDone} {
			<-done
		}
	})
	return "http://" + l.Addr().String()
}

// TestAnotherStoreBehindEtcdsProxyIsNoticed replaces the store behind a proxy, which keeps the watches of its hosts
// open and does not say so: by an empty one, by a backup, and by a backup whose revision has overtaken what the hosts
// have seen.
func TestAnotherStoreBehindEtcdsProxyIsNoticed(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name            string
		empty, overtake bool
	}{{"empty", true, false}, {"a backup", false, false}, {"a backup that overtakes", false, true}} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			e := startEtcd(t, nil)
			e.put("config", netConfig)
			data, backup := filepath.Join(e.dir, "data"), filepath.Join(e.dir, "backup")
			if !tt.empty {
				e.stop()
				if err := os.CopyFS(backup, os.DirFS(data)); err != nil {
					t.Fatal(err)
				}
				e.start()
			}
			url := startGRPCProxy(t, e)
			var hosts []*host
			for n := range 2 {
				s := e.store(url)
				etcdv3.CheckEach(s, 200*time.Millisecond) // once a minute otherwise
				hosts = append(hosts, startHost(t, 1+n, s))
			}
			a, b := hosts[0], hosts[1]
			need.Until(t, "both hold a subnet and see each other", 20*time.Second, func() bool {
				return a.held() && b.held() && a.peers() == 1 && b.peers() == 1
			})
			stop := keepsPeers(t, 1, a, b)
			defer stop()
			subnets := [2]string{a.subnet().String(), b.subnet().String()}
			e.stop()
			if err := os.RemoveAll(data); err != nil {
				t.Fatal(err)
			}
			if !tt.empty {
				if err := os.Rename(backup, data); err != nil {
					t.Fatal(err)
				}
			}
			e.start()
			e.put("config", netConfig)
			for i := 0; tt.overtake && i < 20; i++ {
				e.put("other", "x")
			}
			need.Until(t, "both are registered", 30*time.Second,
				func() bool { return e.inStore(a) && e.inStore(b) && a.held() && b.held() })
			if got := [2]string{a.subnet().String(), b.subnet().String()}; got != subnets {
				t.Errorf("subnets %v, want %v", got, subnets)
			}
		})
	}
}
