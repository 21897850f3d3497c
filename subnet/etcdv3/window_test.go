package etcdv3_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"flanneld/need"
	"flanneld/subnet"
)

// TestAHostThatDoesNotListenIsNotSentEverything has a host look away while etcd has 20 MB for it: they must wait in
// etcd, which has one copy for all hosts, and not in the memory of the host. Nothing of it is lost.
func TestAHostThatDoesNotListenIsNotSentEverything(t *testing.T) {
	const changes, most = 300, 1 << 20
	e := startEtcd(t, nil)
	value := strings.Repeat("x", 64<<10)
	change := func() {
		for i := range changes {
			e.put(fmt.Sprint("subnets/", i), value)
		}
	}
	change()
	p := newProxy(t, e.addr)
	s := e.store(p.url())
	snap, err := s.List(t.Context()) // so much at once that gRPC, left to itself, would be generous from now on
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	opened, look, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	var heard atomic.Int64
	go func() {
		ended <- s.Watch(ctx, snap.Position, 0, func(events []subnet.Event) {
			for _, ev := range events {
				if ev.IsChange() {
					heard.Add(1)
				}
			}
			if len(events) > 0 && !events[0].IsChange() {
				close(opened)
				<-look
			}
		})
	}()
	<-opened
	before := p.answered.Load()
	change()
	sent := int64(0)
	for quiet := time.Now(); time.Since(quiet) < 300*time.Millisecond; time.Sleep(10 * time.Millisecond) {
		if n := p.answered.Load() - before; n != sent {
			sent, quiet = n, time.Now()
		}
	}
	if sent == 0 || sent > most {
		t.Errorf("%d bytes were sent to a host that does not listen, want at most %d", sent, most)
	}
	close(look)
	need.Until(t, "the host hears everything", time.Minute, func() bool { return heard.Load() == changes })
	cancel()
	if err := <-ended; err == nil {
		t.Error("the watch ended without an error")
	}
}
