package main

import (
	"log/slog"
	"path/filepath"
	"sync"
	"testing"

	"flanneld/firewall"
	"flanneld/status"
	"flanneld/subnet"
	"flanneld/subnet/etcdv3"
	"flanneld/systemd"
)

// cloned returns the process of a host that has the identity of another one.
func cloned(t *testing.T) *process {
	t.Helper()
	file := filepath.Join(t.TempDir(), "subnet.env")
	dir, err := subnet.OpenState(t.TempDir(), file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = dir.Close() })
	log := slog.New(slog.DiscardHandler)
	d := &process{log: log, stateDir: dir, status: status.New(status.Options{
		Notifier: systemd.NewNotifier(log), Journal: status.NewJournal(log.Handler()), Log: log,
		Firewall: func() firewall.PolicyStatus { return firewall.PolicyStatus{} },
	})}
	d.state.Identity = "that of another host"
	d.status.Identify(d.state.Identity)
	return d
}

func TestTheStatusOfACloneNamesItsNewIdentity(t *testing.T) {
	d := cloned(t)
	d.renew()
	saved, err := d.stateDir.Load()
	if err != nil {
		t.Fatal(err)
	}
	if got := d.status.Report().Identity; got != saved.Identity || got == "that of another host" {
		t.Errorf("the status says %q, want %q", got, saved.Identity)
	}
}

// The race detector looks on: the socket answers before the store is open.
func TestDrainWhileTheStoreIsOpened(t *testing.T) {
	d := cloned(t)
	store, err := etcdv3.New(etcdv3.Options{Endpoints: []string{"http://127.0.0.1:9"}, Prefix: "/p", Log: d.log})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	if _, err := d.drain(t.Context()); err == nil {
		t.Error("drained without a store")
	}
	var wg sync.WaitGroup
	wg.Go(func() { d.store.Store(store) })
	wg.Go(func() { _ = d.status.Report(); d.status.Identify("x") })
	if _, err := d.drain(t.Context()); err == nil {
		t.Error("drained without a network")
	}
	wg.Wait()
}
