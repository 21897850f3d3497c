package etcdv3_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"

	"flanneld/need"
	"flanneld/subnet"
	"flanneld/subnet/etcdv3"
)

// noticed is how soon after the return of the store a host must have settled.
const noticed = 5 * time.Second

// pair returns two hosts that hold subnets and see each other, the first one by way of a proxy.
func pair(t *testing.T, e *etcd) (a, b *host, p *proxy) {
	t.Helper()
	e.put("config", netConfig)
	p = newProxy(t, e.addr)
	a, b = startHost(t, 1, e.store(p.url())), startHost(t, 2, e.store())
	need.Until(t, "both hold a subnet and see each other", noticed,
		func() bool { return a.held() && b.held() && a.peers() == 1 && b.peers() == 1 })
	return a, b, p
}

// keepsPeers fails the test if one of the hosts has fewer peers at any time until the returned function is called.
func keepsPeers(t *testing.T, n int, hosts ...*host) (stop func()) {
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-done:
				return
			case <-time.After(time.Millisecond):
			}
			for i, h := range hosts {
				if got := h.peers(); got < n {
					t.Errorf("host %d has %d peers, want %d all the time", i, got, n)
					return
				}
			}
		}
	}()
	return func() {
		close(done)
		<-ended
	}
}

func TestAnOwnKeyThatIsDeletedIsBackBeforeAPeerForgetsTheHost(t *testing.T) {
	t.Parallel()
	e := startEtcd(t, nil)
	a, b, _ := pair(t, e)
	want := a.subnet()
	for quick, round := 0, 0; quick < 3; round++ {
		if round == 30 {
			t.Fatalf("in %d of %d rounds the record was back within half a second", quick, round)
		}
		start := time.Now()
		e.remove(a.key())
		need.Until(t, "the record is back", noticed, func() bool { return e.inStore(a) })
		if a.subnet() != want {
			t.Fatalf("subnet %s, want %s", a.subnet(), want)
		}
		if time.Since(start) > 500*time.Millisecond { // on a machine with much else to do
			need.Until(t, "the peer is back", noticed, func() bool { return b.peers() == 1 })
			continue
		}
		for quick++; time.Since(start) < time.Second; time.Sleep(time.Millisecond) { // peers linger for 0.8 s
			if b.peers() != 1 {
				t.Fatalf("the peer is gone %s after its record was deleted", time.Since(start))
			}
		}
	}
	kv := e.get(a.key()).Kvs[0]
	if _, err := e.client().Revoke(t.Context(), clientv3.LeaseID(kv.Lease)); err != nil {
		t.Fatal(err)
	}
	need.Until(t, "the record is back under a new lease", noticed, func() bool { return e.inStore(a) })
}

// listed counts the lists of a store.
type listed struct {
	subnet.Store
	lists atomic.Int32
}

func (l *listed) List(ctx context.Context) (subnet.Snapshot, error) {
	l.lists.Add(1)
	return l.Store.List(ctx)
}

// TestAfterABreakNobodyListsAgain counts the lists of a host whose connection breaks: while the store changes, and once
// more when nothing has happened since a compaction.
func TestAfterABreakNobodyListsAgain(t *testing.T) {
	t.Parallel()
	e := startEtcd(t, nil)
	e.put("config", netConfig)
	p := newProxy(t, e.addr)
	store := &listed{Store: e.store(p.url())}
	a, b := startHost(t, 1, store), startHost(t, 2, e.store())
	need.Until(t, "both hold a subnet and see each other", noticed,
		func() bool { return a.held() && b.held() && a.peers() == 1 && b.peers() == 1 })
	stop := keepsPeers(t, 1, a, b)
	defer stop()
	cutOff := func(meanwhile func()) {
		p.cut.Store(true)
		need.Until(t, "the host notices", 15*time.Second, func() bool { return !a.keeper.Status().StoreSince.IsZero() })
		meanwhile()
		p.cut.Store(false)
	}
	c := startHost(t, 3, e.store())
	need.Until(t, "all see all", noticed,
		func() bool { return c.held() && a.peers() == 2 && b.peers() == 2 && c.peers() == 2 })
	before := store.lists.Load()
	cutOff(func() {
		e.fill(3)
		e.remove("subnets/10.100.0.0-24")
	})
	need.Until(t, "the host sees what it has missed", noticed, func() bool { return a.held() && a.peers() == 4 })
	if n := store.lists.Load() - before; n != 0 {
		t.Errorf("%d lists after a break: %s", n, a.log)
	}
	wrote, err := e.client().Put(t.Context(), prefix+"/"+b.key(), string(e.get(b.key()).Kvs[0].Value),
		clientv3.WithIgnoreLease())
	if err != nil {
		t.Fatal(err)
	}
	need.Until(t, "the host hears of the write", noticed,
		func() bool { return a.keeper.Position().Revision >= wrote.Header.Revision })
	e.compact()
	before = store.lists.Load()
	cutOff(func() {})
	need.Until(t, "the host goes on", noticed, a.held)
	if n := store.lists.Load() - before; n != 0 {
		t.Errorf("%d lists after a break behind a compaction", n)
	}
	if a.peers() != 4 || b.peers() != 4 {
		t.Errorf("%d and %d peers", a.peers(), b.peers())
	}
}

// TestAStartBehindACompactionCostsOneList starts a host on a store in which everything before the present revision is
// compacted, and that is later than the newest record: the store cannot tell again what happened since.
func TestAStartBehindACompactionCostsOneList(t *testing.T) {
	e := startEtcd(t, nil)
	a, _, _ := pair(t, e)
	_, quiet := e.requests()
	e.put("config", netConfig)
	// A watch that has told of a change has caught up: the compaction does not end it.
	need.Until(t, "both hosts read the configuration that has changed", noticed, func() bool {
		_, by := e.requests()
		return by["Range"]-quiet["Range"] == 2
	})
	e.put("other", "x")
	e.compact()
	_, before := e.requests()
	c := startHost(t, 3, e.store())
	need.Until(t, "the host holds a subnet and is seen", noticed,
		func() bool { return c.held() && c.peers() == 2 && a.peers() == 2 })
	if _, by := e.requests(); by["Range"]-before["Range"] != 1 || by["Watch"]-before["Watch"] > 2 {
		t.Errorf("requests before %v, after %v", before, by)
	}
}

func TestCompactionWhileCutOffIsFollowed(t *testing.T) {
	t.Parallel()
	e := startEtcd(t, nil)
	a, b, p := pair(t, e)
	stop := keepsPeers(t, 1, a, b)
	defer stop()
	p.cut.Store(true)
	need.Until(t, "the host notices", 15*time.Second, func() bool { return !a.keeper.Status().StoreSince.IsZero() })
	e.fill(3)
	e.remove("subnets/10.100.0.0-24")
	e.compact()
	p.cut.Store(false)
	need.Until(t, "the host sees what it has missed", noticed, func() bool { return a.held() && a.peers() == 3 })
	a.wantLines("store unreachable", 1)
	a.wantLines("store reachable again", 1)
}

func TestAWipedStoreIsFilledAgainAndNoPeerIsForgotten(t *testing.T) {
	t.Parallel()
	e := startEtcd(t, nil)
	a, b, _ := pair(t, e)
	stop := keepsPeers(t, 1, a, b)
	defer stop()
	subnets := [2]string{a.subnet().String(), b.subnet().String()}
	e.fill(20) // so that the new store starts far below
	e.wipe()
	e.put("config", netConfig)
	need.Until(t, "both have registered again", noticed,
		func() bool { return e.inStore(a) && e.inStore(b) && a.held() && b.held() })
	if got := [2]string{a.subnet().String(), b.subnet().String()}; got != subnets {
		t.Errorf("subnets %v, want %v", got, subnets)
	}
}

func TestARestoredStoreIsFilledAgainAndNoPeerIsForgotten(t *testing.T) {
	t.Parallel()
	e := startEtcd(t, nil)
	e.put("config", netConfig)
	a := startHost(t, 1, e.store())
	need.Until(t, "the first host holds a subnet", noticed, a.held)
	data, backup := filepath.Join(e.dir, "data"), filepath.Join(e.dir, "backup")
	e.stop()
	if err := os.CopyFS(backup, os.DirFS(data)); err != nil {
		t.Fatal(err)
	}
	e.start()
	b := startHost(t, 2, e.store())
	need.Until(t, "both see each other", noticed,
		func() bool { return a.held() && b.held() && a.peers() == 1 && b.peers() == 1 })
	stop := keepsPeers(t, 1, a, b)
	defer stop()
	subnets := [2]string{a.subnet().String(), b.subnet().String()}
	e.fill(20)
	e.stop()
	if err := os.RemoveAll(data); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(backup, data); err != nil {
		t.Fatal(err)
	}
	e.start()
	need.Until(t, "both are registered", noticed,
		func() bool { return e.inStore(a) && e.inStore(b) && a.held() && b.held() })
	if got := [2]string{a.subnet().String(), b.subnet().String()}; got != subnets {
		t.Errorf("subnets %v, want %v", got, subnets)
	}
}

func TestASlowStoreIsWaitedFor(t *testing.T) {
	e := startEtcd(t, nil)
	e.put("config", netConfig)
	p := newProxy(t, e.addr)
	p.delay.Store(int64(time.Second))
	before, _ := e.requests()
	a := startHost(t, 1, e.store(p.url()))
	need.Until(t, "the host holds a subnet", 30*time.Second, a.held)
	if after, by := e.requests(); after-before > 5 {
		t.Errorf("%d requests: %v", after-before, by)
	}
	a.wantLines("store unreachable", 0)
}

func TestAStoreWithoutSpaceIsAskedRarelyAndNamed(t *testing.T) {
	e := startEtcd(t, nil)
	a, _, _ := pair(t, e)
	armNoSpace(t, e)
	before, _ := e.requests()
	c := startHost(t, 3, e.store())
	need.Until(t, "the reason is shown", noticed,
		func() bool { return strings.Contains(c.keeper.Status().Waiting, "no space left") })
	time.Sleep(4 * time.Second)
	if after, by := e.requests(); after-before > 15 {
		t.Errorf("%d requests within seconds: %v", after-before, by)
	}
	c.wantLines("no space left", 1)
	if !a.held() {
		t.Error("the others do not go on")
	}
	if _, err := e.client().AlarmDisarm(t.Context(), &clientv3.AlarmMember{}); err != nil {
		t.Fatal(err)
	}
	need.Until(t, "the host holds a subnet", noticed, c.held)
}

func TestADeadAndASilentEndpointAreSteppedOver(t *testing.T) {
	t.Parallel()
	e := startEtcd(t, nil)
	e.put("config", netConfig)
	dead, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = dead.Close()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	a := startHost(t, 1, e.store("http://"+dead.Addr().String(), "http://"+silent.Addr().String(), "http://"+e.addr))
	need.Until(t, "the host holds a subnet", 15*time.Second, a.held)
}

func TestAnExpiredTokenIsRenewed(t *testing.T) {
	t.Parallel()
	e := startEtcd(t, func(c *embed.Config) { c.AuthTokenTTL = 1 })
	e.put("config", netConfig)
	c := e.client()
	for _, err := range []error{
		second(c.RoleAdd(t.Context(), "root")), second(c.UserAdd(t.Context(), "root", "secret")),
		second(c.UserGrantRole(t.Context(), "root", "root")),
		second(c.RoleAdd(t.Context(), "flannel")), second(c.UserAdd(t.Context(), "flannel", "pass")),
		second(c.UserGrantRole(t.Context(), "flannel", "flannel")),
		second(c.RoleGrantPermission(t.Context(), "flannel", prefix+"/", clientv3.GetPrefixRangeEnd(prefix+"/"),
			clientv3.PermissionType(clientv3.PermReadWrite))),
		second(c.AuthEnable(t.Context())),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	s := newStore(t, etcdv3.Options{Endpoints: []string{"http://" + e.addr}, Username: "flannel", Password: "pass"})
	h := startHost(t, 1, s)
	need.Until(t, "the host holds a subnet", noticed, h.held)
	wrong := newStore(t, etcdv3.Options{Endpoints: []string{"http://" + e.addr}, Username: "flannel", Password: "wrong"})
	if _, err := wrong.List(t.Context()); err == nil {
		t.Error("a wrong password is accepted")
	}
	time.Sleep(2500 * time.Millisecond)
	snap, err := s.List(t.Context())
	if err != nil || len(snap.Entries) != 1 {
		t.Fatalf("with an expired token: %+v, %v", snap, err)
	}
	if err := s.Delete(t.Context(), *snap.Entries[0]); err != nil {
		t.Fatal(err)
	}
	need.Until(t, "the host has taken its key again", noticed, func() bool {
		snap, err := s.List(t.Context())
		return err == nil && len(snap.Entries) == 1 && h.held()
	})
}

func second[T any](_ T, err error) error { return err }
