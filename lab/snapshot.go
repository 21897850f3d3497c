package lab

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/snapshot"
	restore "go.etcd.io/etcd/etcdutl/v3/snapshot"
	"go.uber.org/zap"
	"google.golang.org/grpc"
)

// Snapshot saves a snapshot of a store to a file, as "etcdctl snapshot save" does. endpoint is HOST:PORT as seen from
// the namespace.
func (n *Namespace) Snapshot(ctx context.Context, endpoint, file string) error {
	dial := func(ctx context.Context, _ string) (net.Conn, error) { return n.Dial(ctx, "tcp", endpoint) }
	config := clientv3.Config{Endpoints: []string{"http://" + endpoint},
		DialOptions: []grpc.DialOption{grpc.WithContextDialer(dial)}, Logger: zap.NewNop()}
	if _, err := snapshot.SaveWithVersion(ctx, zap.NewNop(), config, file); err != nil {
		return fmt.Errorf("save snapshot of %s: %w", endpoint, err)
	}
	return nil
}

// Snapshot saves a snapshot of the store to a file.
func (e *Etcd) Snapshot(ctx context.Context, file string) error {
	return e.Namespace.Snapshot(ctx, netip.AddrPortFrom(e.addrs()[0], 2379).String(), file)
}

// RestoreOptions say how a snapshot becomes a store.
type RestoreOptions struct {
	// BumpRevision lets the store go on at a later revision, and compacts all before, as etcd's own advice for stores that
	// are watched is ("etcdutl snapshot restore --bump-revision --mark-compacted"); 0: the revision of the snapshot.
	BumpRevision uint64
}

// Restore ends the store without a warning, replaces its data by those of a snapshot, and starts it again.
func (e *Etcd) Restore(ctx context.Context, file string, o RestoreOptions) error {
	e.Kill()
	data := filepath.Join(e.dir, "data")
	if err := os.RemoveAll(data); err != nil {
		return fmt.Errorf("restore etcd: %w", err)
	}
	const peer = "http://localhost:2380" // etcd's default
	err := restore.NewV3(zap.NewNop()).Restore(restore.RestoreConfig{
		SnapshotPath: file, Name: e.name, OutputDataDir: data, PeerURLs: []string{peer}, InitialCluster: e.name + "=" + peer,
		InitialClusterToken: "etcd-cluster", RevisionBump: o.BumpRevision, MarkCompacted: o.BumpRevision > 0,
	})
	if err != nil {
		return fmt.Errorf("restore etcd: %w", err)
	}
	return e.Start(ctx)
}
