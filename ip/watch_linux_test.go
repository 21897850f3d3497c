package ip_test

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"flanneld/ip"
	"flanneld/ip/iptest"
)

// TestEveryTamperingIsHeardOf watches the real kernel: each command must wake the daemon, and name who did it where
// that is known.
func TestEveryTamperingIsHeardOf(t *testing.T) {
	iptest.Namespace(t)
	iptest.Underlay(t, "eth0", "192.0.2.1/24")
	k := kernel(t)
	var log bytes.Buffer
	r := ip.NewReconciler(k, slog.New(slog.NewTextHandler(&log, nil)))
	if _, err := r.Reconcile(scope, desired(cluster(3)).Snapshot()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	woken := make(chan struct{}, 1)
	wait := iptest.Go(t, func() {
		if err := k.Watch(ctx, func(ev ip.Event) {
			if r.Observe(ev) {
				select {
				case woken <- struct{}{}:
				default:
				}
			}
		}); err != nil {
			t.Error(err)
		}
	})
	defer wait()
	defer cancel()
	awake := func(what string) {
		t.Helper()
		select {
		case <-woken:
		case <-time.After(10 * time.Second):
			t.Fatalf("%s: not heard of", what)
		}
	}
	awake("the start of the watch")
	for _, command := range []string{
		"ip link set flannel.1 down",
		"ip link set flannel.1 mtu 1300",
		"ip link set flannel.1 address 02:00:00:00:00:99",
		"ip link set flannel.1 type vxlan learning",
		"ip link set flannel.1 down\nip link set flannel.1 name other",
		"ip link del flannel.1",
		"ip addr flush dev flannel.1",
		"ip addr add 169.254.7.7/16 dev flannel.1",
		"ip route flush dev flannel.1",
		"ip route flush proto 70",
		"ip route del 10.0.2.0/24",
		"ip route replace 10.0.2.0/24 via 192.0.2.9 dev eth0 proto 70",
		"ip route replace 10.0.2.0/24 via 10.0.2.0 dev flannel.1 onlink proto 70 mtu 600",
		"ip route replace 10.0.2.0/24 via 10.0.2.0 dev flannel.1 onlink proto 70 src 192.0.2.1",
		"ip route replace blackhole 10.0.2.0/24 proto 70",
		"ip route add 10.0.222.0/24 via 192.0.2.9 proto 70",
		"bridge fdb del 02:01:00:00:00:02 dev flannel.1",
		"bridge fdb replace 02:01:00:00:00:02 dev flannel.1 dst 192.0.2.7",
		"bridge fdb replace 02:01:00:00:00:02 dev flannel.1 dst 192.0.0.2 port 9",
		"bridge fdb replace 02:01:00:00:00:02 dev flannel.1 dst 192.0.2.7 dynamic",
		"ip neigh flush dev flannel.1 nud permanent",
		"ip neigh del 10.0.2.0 dev flannel.1",
		"ip neigh replace 10.0.2.0 lladdr 02:01:00:00:00:07 dev flannel.1 nud permanent",
		"ip neigh replace 10.0.2.0 lladdr 02:01:00:00:00:02 dev flannel.1 nud reachable",
	} {
		settle(t, r, woken)
		log.Reset()
		iptest.Run(t, command)
		awake(command)
		if command == "ip link set flannel.1 down\nip link set flannel.1 name other" {
			iptest.Run(t, "ip link del other") // the daemon cannot: it is nobody's it knows
		}
		settle(t, r, woken)
		wantState(t, k, cluster(3))
		if !strings.Contains(log.String(), "drift found") {
			t.Errorf("%s: no drift in the log:\n%s", command, log.String())
		}
	}
}

// settle reconciles until no event contradicts any more: our own are echoed late.
func settle(t *testing.T, r *ip.Reconciler, woken chan struct{}) {
	t.Helper()
	for {
		if _, err := r.Reconcile(scope, desired(cluster(3)).Snapshot()); err != nil && !ip.PeersOnly(err) {
			t.Fatal(err)
		}
		select {
		case <-woken:
		case <-time.After(20 * time.Millisecond):
			return
		}
	}
}

// TestADumpDuringChangesLeadsToNoWrongDelete changes other entries all the time, so that dumps are interrupted. The
// kernel does not say so of all: an FDB entry may be listed twice or not at all, and what is wanted must stand all the
// same.
func TestADumpDuringChangesLeadsToNoWrongDelete(t *testing.T) {
	iptest.Namespace(t)
	iptest.Underlay(t, "eth0", "192.0.2.1/24")
	k := kernel(t)
	want := cluster(2000)
	apply(t, k, want)
	ctx, cancel := context.WithCancel(t.Context())
	other := kernel(t)
	wait := iptest.Go(t, func() {
		extra := cluster(2040)
		for ctx.Err() == nil {
			var ops []ip.Op
			for i := 2000; i < 2040; i++ {
				ops = append(ops, ip.Op{Object: extra.Routes[i]}, ip.Op{Object: extra.Neighs[i]}, ip.Op{Object: extra.FDB[i]})
			}
			_ = other.Apply(ops)
			for i := range ops {
				ops[i].Delete = true
			}
			_ = other.Apply(ops)
		}
	})
	defer wait()
	defer cancel()
	wanted := map[ip.Object]bool{}
	for i := range want.Routes {
		wanted[want.FDB[i]], wanted[want.Neighs[i]], wanted[want.Routes[i]] = true, true, true
	}
	for range 20 {
		got, err := k.Dump(scope)
		if err != nil {
			continue // nothing is known, and nothing is deleted
		}
		for _, op := range ip.Diff(got.Snapshot(), want.Snapshot()) {
			if op.Delete && wanted[op.Object] {
				t.Fatalf("%s, which is wanted", op)
			}
		}
	}
}

// TestWhatChangesAfterNotificationsWereLostIsTold overflows the buffer of notifications, and changes something as soon
// as the watch says that some were lost. The kernel tells nothing on a socket that has overflowed until it was read
// empty.
func TestWhatChangesAfterNotificationsWereLostIsTold(t *testing.T) {
	iptest.Namespace(t)
	iptest.Underlay(t, "eth0", "192.0.2.1/24")
	k := kernel(t)
	k.SetWatchBuffer(32 << 10)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	started, busy, release, lost := make(chan bool, 1), make(chan bool, 1), make(chan bool), make(chan bool, 1)
	wait := iptest.Go(t, func() {
		begun, first := false, true
		err := k.Watch(ctx, func(ev ip.Event) {
			switch l, isLink := ev.Object.(ip.Link); {
			case ev.Object == nil && !begun:
				begun = true
				started <- true
			case ev.Object == nil:
				iptest.Run(t, "ip link add late type bridge")
				lost <- true
			case first:
				first = false
				busy <- true
				<-release
			case isLink && l.Name == "late":
				cancel()
			}
		})
		if err != nil {
			t.Error(err)
		}
	})
	<-started
	iptest.Run(t, "ip link add early type bridge")
	<-busy
	apply(t, k, cluster(1000))
	close(release)
	select {
	case <-lost:
	case <-time.After(20 * time.Second):
		t.Fatal("the buffer has not overflowed")
	}
	select {
	case <-ctx.Done():
	case <-time.After(20 * time.Second):
		cancel()
		t.Error("what has changed afterwards was not told")
	}
	wait()
}
