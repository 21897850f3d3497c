package lab_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"

	"flanneld/api"
	"flanneld/lab"
)

// stateOnSmallDisk puts a host's state on a file system of its own. etcd takes 128 MB for the first two segments of its
// log.
func (c *cluster) stateOnSmallDisk(h *lab.Host) {
	c.t.Helper()
	c.ok(os.MkdirAll(h.StateDir(), 0o700))
	c.ok(syscall.Mount("tmpfs", h.StateDir(), "tmpfs", 0, "size=176m,mode=700"))
	c.t.Cleanup(func() { _ = syscall.Unmount(h.StateDir(), syscall.MNT_DETACH) })
}

// fill takes all space of the file system with a host's state.
func (c *cluster) fill(h *lab.Host) (file string) {
	c.t.Helper()
	file = filepath.Join(h.StateDir(), "of-another-program")
	f := must[*os.File](c.t)(os.Create(file))
	defer f.Close()
	for b := make([]byte, 1<<20); ; {
		if _, err := f.Write(b); errors.Is(err, syscall.ENOSPC) {
			return file
		} else if err != nil {
			c.t.Fatal(err)
		}
	}
}

// write writes to an embedded store until that takes no more.
func (c *cluster) write(h *lab.Host, d *lab.Daemon) error {
	dial := func(ctx context.Context, addr string) (net.Conn, error) { return h.Dial(ctx, "tcp", addr) }
	client, err := clientv3.New(clientv3.Config{
		Endpoints: []string{netip.AddrPortFrom(h.Addr, 2379).String()}, Logger: zap.NewNop(),
		DialOptions: []grpc.DialOption{grpc.WithContextDialer(dial)},
	})
	if err != nil {
		return err
	}
	defer client.Close()
	for i := 0; c.state(d, api.StateDegraded, "its disk is full") != nil; i++ {
		if c.ctx.Err() != nil {
			return fmt.Errorf("the embedded etcd goes on with a full disk: %w",
				c.state(d, api.StateDegraded, "its disk is full"))
		}
		ctx, cancel := context.WithTimeout(c.ctx, 2*time.Second)
		_, _ = client.Put(ctx, fmt.Sprintf("/elsewhere/%d", i), strings.Repeat("x", 500_000)) // fails once the disk is full
		cancel()
	}
	return nil
}

// A disk that becomes full while all runs ends nothing: the host with the embedded store is degraded and says what to
// do, packets flow, and once there is space again all is as before.
func TestADiskThatBecomesFullLeavesTheHostDegradedUntilThereIsSpace(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
	defer cancel()
	c.ctx = ctx
	hosts := c.hosts(2)
	c.stateOnSmallDisk(hosts[0])
	daemons, before := c.embedded(hosts)
	pods := c.pods(hosts...)
	c.reaches(pods[0].Namespace, pods[1], lab.PingOptions{})
	pings := c.pinged(pods[0], pods[1])

	file := c.fill(hosts[0])
	c.ok(c.write(hosts[0], daemons[0]))
	if code, _, err := daemons[0].Get(c.ctx, "/readyz"); err != nil || code != 200 {
		t.Errorf("/readyz answers %d on a full disk: %v", code, err)
	}
	c.ok(os.Remove(file))
	for _, d := range daemons {
		c.wantState(d, api.StateReady, "")
	}
	c.nothingLost("a full disk", pings)
	for i, h := range hosts {
		if got := c.subnets(h); got[0] != before[i][0] {
			t.Errorf("%s has %s, before %s", h.Name(), got, before[i])
		}
	}
}
