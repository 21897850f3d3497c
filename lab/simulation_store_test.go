//go:build simulated

package lab_test

import (
	"context"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"flanneld/subnet"
	"flanneld/subnet/etcdv3"
)

// countingStore counts what a host asks and hears, and has all hosts of this process share one copy of each record. A
// real host has a copy of its own: what is measured here of memory is what a host needs besides.
type countingStore struct {
	*etcdv3.Store
	sim *simulation
}

// recordID names one version of a record in one history of the store.
type recordID struct {
	key      string
	revision int64
}

// shared returns the one copy of an entry.
func (s countingStore) shared(e *subnet.Entry) *subnet.Entry {
	id := recordID{e.Key, e.Revision}
	first, _ := s.sim.records.LoadOrStore(id, e)
	if one := first.(*subnet.Entry); one.Equal(e.Record) && one.Created == e.Created && one.LeaseID == e.LeaseID {
		return one
	}
	s.sim.records.Store(id, e) // another history
	return e
}

func (s countingStore) List(ctx context.Context) (subnet.Snapshot, error) {
	s.sim.asks("lists")
	s.sim.lists <- struct{}{}
	defer func() { <-s.sim.lists }()
	snap, err := s.Store.List(ctx)
	for i := range snap.Entries {
		snap.Entries[i] = s.shared(snap.Entries[i])
	}
	return snap, err
}

func (s countingStore) Config(ctx context.Context) (subnet.Position, []byte, error) {
	s.sim.asks("configurations")
	return s.Store.Config(ctx)
}

func (s countingStore) Watch(ctx context.Context, after subnet.Position, from int64, f func([]subnet.Event)) error {
	s.sim.asks("watches")
	return s.Store.Watch(ctx, after, from, func(events []subnet.Event) {
		s.sim.events.Add(int64(len(events)))
		for i := range events {
			if events[i].Put != nil {
				events[i].Put = s.shared(events[i].Put)
			}
		}
		f(events)
	})
}

func (s countingStore) Grant(ctx context.Context, ttl time.Duration) (subnet.LeaseID, error) {
	s.sim.asks("grants")
	return s.Store.Grant(ctx, ttl)
}

func (s countingStore) Create(ctx context.Context, r subnet.Record, id subnet.LeaseID) (subnet.Entry, error) {
	s.sim.asks("creates")
	at := time.Now()
	e, err := s.Store.Create(ctx, r, id)
	if err == nil {
		s.sim.joined.Store(r.Leases[0].Subnet, at)
	}
	return e, err
}

func (s countingStore) Update(ctx context.Context, old subnet.Entry, r subnet.Record, id subnet.LeaseID,
	claims ...subnet.Entry) (subnet.Entry, error) {
	s.sim.asks("updates")
	return s.Store.Update(ctx, old, r, id, claims...)
}

func (s countingStore) KeepAlive(ctx context.Context, id subnet.LeaseID) (time.Duration, error) {
	s.sim.asks("renewals")
	return s.Store.KeepAlive(ctx, id)
}

// simulationEtcd starts an etcd on the loopback, and a proxy before it if that is asked for.
func simulationEtcd(b *testing.B, c *simulation, proxied bool) {
	dir := b.TempDir()
	c.etcd = "http://127.0.0.1:23790"
	c.url = c.etcd
	start := func() *exec.Cmd {
		return background(b, binaries.Etcd, "--data-dir", filepath.Join(dir, "data"), "--listen-client-urls", c.etcd,
			"--advertise-client-urls", c.etcd,
			"--listen-peer-urls", "http://127.0.0.1:23800", "--initial-advertise-peer-urls", "http://127.0.0.1:23800",
			"--initial-cluster", "default=http://127.0.0.1:23800", "--unsafe-no-fsync", "--log-level", "error")
	}
	etcd := start()
	c.pids = []int{etcd.Process.Pid}
	c.offerConfig()
	if proxied {
		c.url = "http://127.0.0.1:23792"
		proxy := background(b, binaries.Etcd, "grpc-proxy", "start", "--endpoints", c.etcd, "--listen-addr",
			"127.0.0.1:23792")
		c.pids = append(c.pids, proxy.Process.Pid)
		c.via = ", by grpc-proxy"
		return
	}
	again := func(meanwhile func()) {
		_ = etcd.Process.Kill()
		_ = etcd.Wait()
		meanwhile()
		etcd = start()
		c.pids[0] = etcd.Process.Pid
		c.sentBefore, c.begunBefore, c.othersBefore = 0, nil, 0
		c.offerConfig()
	}
	c.crash = func() { again(func() {}) }
	c.wipe = func() { again(func() { _ = os.RemoveAll(filepath.Join(dir, "data")) }) }
}

func background(b *testing.B, args ...string) *exec.Cmd {
	cmd := exec.Command(args[0], args[1:]...) // the proxy tells of every connection: nobody listens
	cmd.Env = append(os.Environ(), "GOMEMLIMIT=3GiB")
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd
}

// store returns a connection to a store by its URL.
func (c *simulation) store(url string) *etcdv3.Store {
	s, err := etcdv3.New(etcdv3.Options{Endpoints: []string{url}, Prefix: "/simulated", Log: slog.New(slog.DiscardHandler),
		Times: etcdv3.Times{Call: c.patience * 5 * time.Second, Quiet: c.slowdown * 10 * time.Second,
			Answer: c.slowdown * 3 * time.Second, Checks: c.slowdown * time.Minute}})
	if err != nil {
		c.b.Fatal(err)
	}
	return s
}

func (c *simulation) offerConfig() {
	s := c.store(c.etcd)
	defer s.Close()
	for c.ctx.Err() == nil {
		if _, err := s.PutConfigIfAbsent(c.ctx, c.config()); err == nil {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
}
