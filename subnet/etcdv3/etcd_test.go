package etcdv3_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"

	"flanneld/need"
	"flanneld/subnet"
	"flanneld/subnet/etcdv3"
	"flanneld/subnet/subnettest"
)

const prefix = "/coreos.com/network"

// etcd is a real member inside the test, which stops with it.
type etcd struct {
	t      *testing.T
	dir    string
	addr   string // for clients
	change func(*embed.Config)
	server *embed.Etcd
	admin  *clientv3.Client
}

// startEtcd returns a member that serves. change adapts its configuration; it may be nil.
func startEtcd(t *testing.T, change func(*embed.Config)) *etcd {
	t.Helper()
	e := &etcd{t: t, dir: shortDir(t), addr: need.Address(t).String(), change: change}
	e.start()
	t.Cleanup(e.stop)
	return e
}

// shortDir returns a folder in which the path of a socket is short enough for the kernel.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "etcd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func (e *etcd) start() {
	e.t.Helper()
	c := embed.NewConfig()
	c.Name, c.Dir = "test", filepath.Join(e.dir, "data")
	c.ListenClientUrls = []url.URL{{Scheme: "http", Host: e.addr}}
	c.ListenClientHttpUrls = []url.URL{{Scheme: "unix", Path: filepath.Join(e.dir, "http")}}
	peer := url.URL{Scheme: "unix", Path: filepath.Join(e.dir, "peer")}
	c.ListenPeerUrls, c.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	c.UnsafeNoFsync = true
	c.TickMs, c.ElectionMs = 10, 100
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	if e.change != nil {
		e.change(c)
	}
	c.AdvertiseClientUrls = c.ListenClientUrls
	c.InitialCluster = c.InitialClusterFromName(c.Name)
	server, err := embed.StartEtcd(c)
	if err != nil {
		e.t.Fatal(err)
	}
	e.server = server
	select {
	case <-server.Server.ReadyNotify():
	case <-time.After(20 * time.Second):
		e.t.Fatal("etcd does not serve")
	}
}

// stop is idempotent.
func (e *etcd) stop() {
	if e.admin != nil {
		_ = e.admin.Close()
	}
	if e.server != nil {
		e.server.Server.HardStop()
		e.server.Close()
	}
	e.admin, e.server = nil, nil
}

// wipe replaces the member by one without data, on the same address and with the same flags.
func (e *etcd) wipe() {
	e.t.Helper()
	e.stop()
	if err := os.RemoveAll(filepath.Join(e.dir, "data")); err != nil {
		e.t.Fatal(err)
	}
	e.start()
}

// client returns the operator's client, which has all rights.
func (e *etcd) client() *clientv3.Client {
	e.t.Helper()
	if e.admin != nil {
		return e.admin
	}
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{"http://" + e.addr}, Logger: zap.NewNop()})
	if err != nil {
		e.t.Fatal(err)
	}
	e.admin = c
	return c
}

func (e *etcd) put(key, value string) {
	e.t.Helper()
	if _, err := e.client().Put(e.t.Context(), prefix+"/"+key, value); err != nil {
		e.t.Fatal(err)
	}
}

func (e *etcd) remove(key string) {
	e.t.Helper()
	if _, err := e.client().Delete(e.t.Context(), prefix+"/"+key); err != nil {
		e.t.Fatal(err)
	}
}

func (e *etcd) get(key string) *clientv3.GetResponse {
	e.t.Helper()
	resp, err := e.client().Get(e.t.Context(), prefix+"/"+key)
	if err != nil {
		e.t.Fatal(err)
	}
	return resp
}

func (e *etcd) compact() {
	e.t.Helper()
	resp := e.get("config")
	if _, err := e.client().Compact(e.t.Context(), resp.Header.Revision); err != nil {
		e.t.Fatal(err)
	}
}

// store returns a store on the member, or on something that stands before it.
func (e *etcd) store(endpoints ...string) *etcdv3.Store {
	e.t.Helper()
	if len(endpoints) == 0 {
		endpoints = []string{"http://" + e.addr}
	}
	return newStore(e.t, etcdv3.Options{Endpoints: endpoints})
}

func newStore(t *testing.T, o etcdv3.Options) *etcdv3.Store {
	t.Helper()
	o.Prefix, o.Log = prefix, slog.New(slog.DiscardHandler)
	s, err := etcdv3.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// requests returns how many requests the members of this process have seen so far, by etcd's own count. The operator's
// are among them, and those of tests that run beside this one: a test that counts is not parallel.
func (e *etcd) requests() (sum int, by map[string]int) {
	e.t.Helper()
	h := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(e.dir, "http"))
	}, DisableKeepAlives: true}}
	resp, err := h.Get("http://etcd/metrics")
	if err != nil {
		e.t.Fatal(err)
	}
	defer resp.Body.Close()
	by = map[string]int{}
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		name, value, ok := strings.Cut(lines.Text(), "} ")
		if !ok || !strings.HasPrefix(name, "grpc_server_started_total{") {
			continue
		}
		n, err := strconv.ParseFloat(value, 64)
		if err != nil {
			e.t.Fatal(err)
		}
		_, method, _ := strings.Cut(name, `grpc_method="`)
		method, _, _ = strings.Cut(method, `"`)
		by[method] += int(n)
		sum += int(n)
	}
	return sum, by
}

// proxy stands between a host and etcd, and can be cut off or slow.
type proxy struct {
	listener net.Listener
	target   string
	cut      atomic.Bool
	delay    atomic.Int64 // nanoseconds, of each piece that etcd sends
	answered atomic.Int64 // bytes that etcd has sent
	accepted atomic.Int64 // connections
}

// newProxy starts one in front of an address.
func newProxy(t *testing.T, target string) *proxy {
	t.Helper()
	return newProxyOn(t, "127.0.0.1:0", target)
}

// newProxyOn is newProxy that listens on an address.
func newProxyOn(t *testing.T, listen, target string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", listen)
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: l, target: target}
	t.Cleanup(func() { _ = l.Close() })
	go p.serve()
	return p
}

func (p *proxy) url() string { return "http://" + p.listener.Addr().String() }

func (p *proxy) serve() {
	for {
		in, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.accepted.Add(1)
		if p.cut.Load() {
			_ = in.Close()
			continue
		}
		out, err := net.Dial("tcp", p.target)
		if err != nil {
			_ = in.Close()
			continue
		}
		go p.copy(out, in, false)
		go p.copy(in, out, true)
	}
}

// copy carries one direction until the proxy is cut off.
func (p *proxy) copy(to, from net.Conn, answers bool) {
	defer to.Close()
	defer from.Close()
	buf := make([]byte, 64<<10)
	for {
		_ = from.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		n, err := from.Read(buf)
		if p.cut.Load() {
			return
		}
		if n > 0 {
			if answers {
				p.answered.Add(int64(n))
			}
			if d := time.Duration(p.delay.Load()); answers && d > 0 {
				time.Sleep(d)
			}
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
	}
}

func TestTheStoreOnEtcdKeepsTheContract(t *testing.T) {
	e := startEtcd(t, nil)
	var tests atomic.Int64
	subnettest.Contract(t, func(t *testing.T) subnettest.Subject {
		p := fmt.Sprintf("%s/%d", prefix, tests.Add(1))
		s, err := etcdv3.New(etcdv3.Options{Endpoints: []string{"http://" + e.addr}, Prefix: p,
			Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		key := func(name string) string { return strings.TrimPrefix(p, prefix+"/") + "/" + name }
		return subnettest.Subject{
			Store: s, Remove: func(name string) { e.remove(key(name)) }, Compact: e.compact,
			PutBad: func(name string) { e.put(key(name), "rubbish") },
			SetConfig: func(text []byte) {
				if text == nil {
					e.remove(key("config"))
					return
				}
				e.put(key("config"), string(text))
			},
		}
	})
}

var _ subnet.Store = (*etcdv3.Store)(nil)

// armNoSpace has the member behave as if its quota were used up.
func armNoSpace(t *testing.T, e *etcd) {
	t.Helper()
	_, err := pb.NewMaintenanceClient(e.client().ActiveConnection()).Alarm(t.Context(), &pb.AlarmRequest{
		Action: pb.AlarmRequest_ACTIVATE, MemberID: uint64(e.server.Server.MemberID()), Alarm: pb.AlarmType_NOSPACE,
	})
	if err != nil {
		t.Fatal(err)
	}
}
