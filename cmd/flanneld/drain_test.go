package main

import (
	"log/slog"
	"sync"
	"testing"

	"flanneld/firewall"
	"flanneld/status"
	"flanneld/subnet/etcdv3"
	"flanneld/systemd"
)

// The race detector looks on: the socket answers before the store is open.
func TestDrainWhileTheStoreIsOpened(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	d := &daemon{log: log, status: status.New(status.Options{
		Notifier: systemd.NewNotifier(log), Journal: status.NewJournal(log.Handler()), Log: log,
		Firewall: func() firewall.PolicyStatus { return firewall.PolicyStatus{} },
	})}
	store, err := etcdv3.New(etcdv3.Options{Endpoints: []string{"http://127.0.0.1:9"}, Prefix: "/p", Log: log})
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
