package etcdv3_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"flanneld/need"
	"flanneld/subnet"
	"flanneld/subnet/keeper"
)

const netConfig = `{"Network":"10.0.0.0/8","SubnetLen":24,"Backend":{"Type":"vxlan"}}`

// lines is a log that tests may read while it is written.
type lines struct {
	mu  sync.Mutex // guards all below
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// host is one manager that runs over etcd until the test ends.
type host struct {
	t      *testing.T
	keeper *keeper.Keeper
	log    *lines
	quit   func() // may be called twice
}

func startHost(t *testing.T, n int, store subnet.Store) *host {
	t.Helper()
	return restartHost(t, n, store, subnet.State{})
}

// restartHost starts a host with what its last run has left.
func restartHost(t *testing.T, n int, store subnet.Store, last subnet.State) *host {
	t.Helper()
	h := &host{t: t, log: &lines{}}
	log, check := slog.New(slog.NewTextHandler(h.log, nil)), func(subnet.Config) error { return nil }
	ctx, stop := context.WithCancel(t.Context())
	network, err := keeper.WaitConfig(ctx, store, keeper.ConfigOptions{
		Prefix: prefix, Check: check, State: last, Log: log,
	})
	if err != nil {
		t.Fatal(err)
	}
	h.keeper = keeper.New(store, network, keeper.Options{
		Identity: fmt.Sprint("id", n), Host: fmt.Sprint("host", n), Prefix: prefix, TTL: time.Hour, RenewMargin: time.Minute,
		PeerGrace: 10 * time.Minute, OnLost: subnet.LostMove, Log: log,
		Valid: func(subnet.Lease) error { return nil }, Check: check, State: last,
		Attrs: func(netip.Prefix) subnet.Attrs {
			return subnet.Attrs{PublicIP: netip.AddrFrom4([4]byte{192, 0, byte(n >> 8), byte(n)}), BackendType: "vxlan",
				BackendData: `{"VNI":1}`}
		},
	})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := h.keeper.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	h.quit = func() {
		stop()
		<-ended
	}
	t.Cleanup(h.quit)
	return h
}

// state is what the daemon writes to its state folder.
func (h *host) state() subnet.State {
	v := h.keeper.View()
	return subnet.State{Identity: v.Own.Identity, Network: prefix, Config: v.Text, Own: v.Own, Until: v.Until,
		Memory: h.keeper.Memory()}
}

func (h *host) held() bool { return h.keeper.Status().Held && h.keeper.Status().StoreSince.IsZero() }

func (h *host) subnet() netip.Prefix {
	if v := h.keeper.View(); len(v.Self) > 0 {
		return v.Self[0].Subnet
	}
	return netip.Prefix{}
}

func (h *host) key() string { return subnet.SubnetsFolder + subnet.Key([]netip.Prefix{h.subnet()}) }

func (h *host) peers() int { return h.keeper.View().Peers.Len() }

func (h *host) wantLines(text string, n int) {
	h.t.Helper()
	if got := strings.Count(h.log.String(), text); got != n {
		h.t.Errorf("%q stands %d times in the log, want %d:\n%s", text, got, n, h.log)
	}
}

// inStore reports whether the record of the host is in etcd.
func (e *etcd) inStore(h *host) bool {
	kvs := e.get(h.key()).Kvs
	return len(kvs) == 1 && bytes.Contains(kvs[0].Value, []byte(`"Host":"`))
}

// fill writes the records of n hosts of flannel.
func (e *etcd) fill(n int) {
	e.t.Helper()
	for i := range n {
		e.put(fmt.Sprintf("subnets/10.%d.%d.0-24", 100+i/256, i%256),
			fmt.Sprintf(`{"PublicIP":"198.18.%d.%d","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1}}`, i/250, 1+
				i%250))
	}
}

func TestAStartCostsFiveRequestsAndOneForEachThousandLeases(t *testing.T) {
	e := startEtcd(t, nil)
	e.put("config", netConfig)
	filled := 0
	for _, leases := range []int{0, 100, 1000, 2500} {
		e.fill(leases)
		filled = max(filled, leases)
		before, was := e.requests()
		h := startHost(t, 1+leases, e.store())
		need.Until(t, "the host holds a subnet", 5*time.Second, h.held)
		need.Until(t, "the host sees all peers", 5*time.Second, func() bool { return h.peers() >= filled })
		after, is := e.requests()
		if cost, most := after-before, 5+leases/1000; cost > most {
			t.Errorf("a start among %d leases cost %d requests, want at most %d: %v, before %v", leases, cost, most, is, was)
		} else {
			t.Logf("a start among %d leases cost %d requests", leases, cost)
		}
	}
}

// TestARestartReadsNoRecordThatItKnows counts what etcd is asked: the configuration, a watch, and a renewal. It knows
// what has changed meanwhile, also after the loss of a peer, and notices another store.
func TestARestartReadsNoRecordThatItKnows(t *testing.T) {
	e := startEtcd(t, nil)
	e.put("config", netConfig)
	const leases = 2500
	e.fill(leases)
	h := startHost(t, 1, e.store())
	other := startHost(t, 2, e.store())
	need.Until(t, "the hosts see all peers", noticed,
		func() bool { return h.held() && other.held() && h.peers() == leases+1 })
	last, was := h.state(), h.subnet()
	h.quit()
	e.put("subnets/10.200.0.0-24", `{"PublicIP":"198.19.0.1","BackendType":"vxlan","BackendData":{"VNI":1}}`)
	e.remove("subnets/10.100.7.0-24")
	_, before := e.requests()
	h = restartHost(t, 1, e.store(), last)
	need.Until(t, "the host sees what it has missed", noticed, func() bool {
		_, gone := h.keeper.View().Peers.Find(netip.MustParsePrefix("10.100.7.0/24"))
		_, there := h.keeper.View().Peers.Find(netip.MustParsePrefix("10.200.0.0/24"))
		return h.held() && !gone && there
	})
	_, by := e.requests()
	for request, most := range map[string]int{"Range": 1, "Watch": 1, "Txn": 0, "LeaseGrant": 0} {
		if got := by[request] - before[request]; got > most {
			t.Errorf("%d requests %s, want at most %d", got, request, most)
		}
	}
	if h.subnet() != was || h.peers() != leases+1 {
		t.Errorf("subnet %s, want %s; %d peers", h.subnet(), was, h.peers())
	}
	last = h.state()
	h.quit()
	e.wipe()
	e.put("config", netConfig)
	e.fill(leases + 100) // beyond the revision that the host has seen
	_, before = e.requests()
	h = restartHost(t, 1, e.store(), last)
	need.Until(t, "the host has listed the other store", noticed,
		func() bool { return h.held() && e.inStore(h) && h.peers() >= leases+100 })
	if _, by = e.requests(); by["Range"]-before["Range"] < leases/1000 {
		t.Errorf("requests before %v, after %v, want a list", before, by)
	}
}

func TestARenewalCostsOneRequestAndWakesNobody(t *testing.T) {
	e := startEtcd(t, nil)
	e.put("config", netConfig)
	a, b := startHost(t, 1, e.store()), startHost(t, 2, e.store())
	need.Until(t, "both hold a subnet and see each other", 5*time.Second,
		func() bool { return a.held() && b.held() && a.peers() == 1 && b.peers() == 1 })
	for drained := false; !drained; {
		select {
		case <-b.keeper.Changed():
		case <-time.After(300 * time.Millisecond):
			drained = true
		}
	}
	kv := e.get(a.key()).Kvs[0]
	before, _ := e.requests()
	if _, err := e.store().KeepAlive(t.Context(), subnet.LeaseID(kv.Lease)); err != nil {
		t.Fatal(err)
	}
	select {
	case <-b.keeper.Changed():
		t.Error("another host's renewal woke this one")
	case <-time.After(300 * time.Millisecond):
	}
	if after, by := e.requests(); after-before != 1 {
		t.Errorf("cost %d requests: %v", after-before, by)
	}
	if now := e.get(a.key()).Kvs[0]; now.ModRevision != kv.ModRevision {
		t.Error("the renewal touched the key")
	}
}

func TestAHundredHostsThatStartAtOnceOnAnEmptyStoreCostEightRequestsEach(t *testing.T) {
	const n = 100
	e := startEtcd(t, nil)
	e.put("config", `{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}`)
	before, _ := e.requests()
	var hosts []*host
	for i := range n {
		hosts = append(hosts, startHost(t, 1+i, e.store()))
	}
	seen := map[netip.Prefix]bool{}
	for _, h := range hosts {
		need.Until(t, "all hold a subnet", 30*time.Second, h.held)
		seen[h.subnet()] = true
	}
	after, by := e.requests()
	t.Logf("%d hosts cost %d requests: %v", n, after-before, by)
	if after-before > 8*n {
		t.Errorf("%d hosts cost %d requests, want at most %d: %v", n, after-before, 8*n, by)
	}
	if len(seen) != n {
		t.Errorf("%d different subnets, want %d", len(seen), n)
	}
	for _, h := range hosts {
		need.Until(t, "all see all", 10*time.Second, func() bool { return h.peers() == n-1 })
	}
}
