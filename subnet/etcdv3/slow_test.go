package etcdv3_test

import (
	"strings"
	"testing"
	"time"

	"flanneld/need"
	"flanneld/subnet/etcdv3"
)

// A store that answers after the time that a call has is given more, up to a bound. Otherwise a host that asks a
// store with too much to do would ask for ever, and be one of those that keep it busy.
func TestAStoreThatAnswersLateIsGivenMoreTime(t *testing.T) {
	t.Parallel()
	e := startEtcd(t, nil)
	e.put("subnets/10.5.34.0-24", `{"PublicIP":"192.0.2.1","BackendType":"host-gw"}`)
	p := newProxy(t, e.addr)
	s := newStore(t, etcdv3.Options{Endpoints: []string{p.url()}, Times: etcdv3.Times{Call: 200 * time.Millisecond,
		Quiet: time.Hour, Answer: time.Hour}})
	need.Until(t, "the store is connected", noticed, func() bool {
		_, _, err := s.Config(t.Context())
		return err == nil
	})
	p.delay.Store(int64(500 * time.Millisecond))
	for try := 1; ; try++ {
		snap, err := s.List(t.Context())
		switch {
		case err == nil && len(snap.Entries) != 1:
			t.Fatalf("records %v listed, want one", snap.Entries)
		case err == nil && try == 1:
			t.Fatal("the store is not late: the test shows nothing")
		case err == nil:
			return
		case !strings.Contains(err.Error(), "no answer") || try == 6:
			t.Fatalf("list %d: %v", try, err)
		}
	}
}

// A store that has answered late is not asked for smaller pages: each costs it a look at all keys, and so the hosts of
// a large cluster whose requests had timed out kept it busy for minutes.
func TestAStoreThatHasAnsweredLateIsListedWithOneRequest(t *testing.T) { // counts, and so beside no other test
	e := startEtcd(t, nil)
	e.fill(200)
	p := newProxy(t, e.addr)
	const call = 100 * time.Millisecond
	s := newStore(t, etcdv3.Options{Endpoints: []string{p.url()}, Times: etcdv3.Times{Call: call,
		Quiet: time.Hour, Answer: time.Hour}})
	p.delay.Store(int64(16 * call)) // longer than it may take ever
	for range 5 {
		if _, err := s.List(t.Context()); err == nil {
			t.Fatal("the store is not late: the test shows nothing")
		}
	}
	p.delay.Store(0)
	need.Until(t, "the records are listed", noticed, func() bool {
		_, before := e.requests()
		snap, err := s.List(t.Context())
		_, after := e.requests()
		if n := after["Range"] - before["Range"]; n > 1 || err == nil && len(snap.Entries) != 200 {
			t.Errorf("%d records listed with %d requests, %v, want 200 with one", len(snap.Entries), n, err)
		}
		return err == nil
	})
}

// A store that is slow with TLS, as thousands of hosts connect to it at the same moment, is waited for: hosts that gave
// up would have it begin anew, and it would finish no handshake.
func TestAStoreThatIsSlowWithTLSIsConnectedToOnce(t *testing.T) {
	t.Parallel()
	e, o := etcdWithTLS(t, t.TempDir())
	p := newProxy(t, e.addr)
	p.delay.Store(int64(300 * time.Millisecond))
	o.Endpoints = []string{"https://" + strings.TrimPrefix(p.url(), "http://")}
	o.Times = etcdv3.Times{Call: 300 * time.Millisecond, Quiet: time.Hour, Answer: 200 * time.Millisecond}
	s := newStore(t, o)
	need.Until(t, "the store answers", noticed, func() bool {
		_, _, err := s.Config(t.Context())
		return err == nil
	})
	if n := p.accepted.Load(); n != 1 {
		t.Errorf("%d connections were made, want one", n)
	}
}
