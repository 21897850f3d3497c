package lab_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"

	"flanneld/lab"
)

// secured starts a cluster whose first host holds a secured store. args are how each daemon is started again.
func (c *cluster) secured(hosts []*lab.Host) (daemons []*lab.Daemon, args [][]string, subnets [][]netip.Prefix) {
	c.t.Helper()
	for i, h := range hosts {
		how := []string{"-etcd-embedded", "-etcd-embedded-listen", netip.AddrPortFrom(h.Addr, 2379).String(),
			"-network-config", vxlanConfig}
		if i > 0 {
			how = []string{"-join", c.token(hosts[0])}
		}
		d := must[*lab.Daemon](c.t)(h.Flanneld(how...))
		c.ok(d.Ready(c.ctx))
		daemons, args, subnets = append(daemons, d), append(args, how), append(subnets, c.subnets(h))
		if i == 0 { // tokens can be made once the rights are on
			c.await(func() error {
				if out, code := c.ctl(h, "hosts", "list"); code != 0 {
					return fmt.Errorf("hosts list: %s", out)
				}
				return nil
			})
		}
	}
	return daemons, args, subnets
}

// root returns a client of a secured store that has all rights, as etcdctl has on the first host.
func (c *cluster) root(first *lab.Host) *clientv3.Client {
	c.t.Helper()
	file := func(name string) string { return filepath.Join(first.StateDir(), "store", name) }
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(must[[]byte](c.t)(os.ReadFile(file("ca.pem"))))
	pair := must[tls.Certificate](c.t)(tls.LoadX509KeyPair(file("root.pem"), file("root.key")))
	dial := func(ctx context.Context, addr string) (net.Conn, error) { return first.Dial(ctx, "tcp", addr) }
	client := must[*clientv3.Client](c.t)(clientv3.New(clientv3.Config{
		Endpoints: []string{"https://" + netip.AddrPortFrom(first.Addr, 2379).String()}, Logger: zap.NewNop(),
		TLS:         &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS13},
		DialOptions: []grpc.DialOption{grpc.WithContextDialer(dial)},
	}))
	c.t.Cleanup(func() { _ = client.Close() })
	return client
}

// TestAMoveFromASecuredStoreBySnapshotKeepsEverySubnet does what docs/embedded-etcd.md says: the rights are turned off
// before the snapshot is taken.
func TestAMoveFromASecuredStoreBySnapshotKeepsEverySubnet(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	hosts := c.hosts(2)
	daemons, _, before := c.secured(hosts)
	root := c.root(hosts[0])
	_ = must[*clientv3.AuthDisableResponse](t)(root.AuthDisable(c.ctx))
	file := filepath.Join(c.Dir(), "flannel.snapshot")
	from := must[io.ReadCloser](t)(root.Snapshot(c.ctx))
	to := must[*os.File](t)(os.Create(file))
	_ = must[int64](t)(io.Copy(to, from))
	c.ok(to.Close())
	c.ok(from.Close())
	e := c.etcd("")
	c.ok(e.Restore(c.ctx, file, lab.RestoreOptions{BumpRevision: 1_000_000}))
	c.moved(hosts, daemons, before, e)
}

func TestAMoveFromASecuredStoreByConfigurationAloneKeepsEverySubnet(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	hosts := c.hosts(2)
	daemons, _, before := c.secured(hosts)
	c.moved(hosts, daemons, before, c.etcd(vxlanConfig))
}
