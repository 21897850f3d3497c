package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"flanneld/api"
	"flanneld/subnet"
	"flanneld/subnet/etcdv3"
)

// moved is a network that moves to another backend.
type moved interface {
	// List returns the network configuration, and all records.
	List(context.Context) (subnet.Snapshot, error)
	// Records returns all records. It may be called often.
	Records(context.Context) ([]*subnet.Entry, error)
	// PutConfig puts a network configuration in place of another one.
	PutConfig(ctx context.Context, before []byte, text string) error
}

// moved has f move the network, with its configuration in etcd or in a file.
func (a *app) moved(ctx context.Context, f func(moved) error) error {
	if s, err := ask[api.Status](ctx, a, api.PathStatus); err == nil && !a.storeSet && s.Daemon != nil &&
		s.Daemon.ConfigFile != "" {
		access, err := a.access(ctx)
		if err != nil {
			return err
		}
		return f(filed{a, s.Daemon.ConfigFile, access.Kubernetes})
	}
	return a.withStore(ctx, func(s *etcdv3.Store) error {
		var watches sync.WaitGroup
		defer watches.Wait()
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		return f(&stored{Store: s, ctx: ctx, watches: &watches})
	})
}

// stored is a network in etcd. Its records are listed once and then watched: in a large cluster a list is megabytes.
type stored struct {
	*etcdv3.Store
	ctx     context.Context // of watches
	watches *sync.WaitGroup

	mu    sync.Mutex               // guards all below
	known map[string]*subnet.Entry // by key; nil: they have to be listed
}

// Records implements moved.
func (s *stored) Records(ctx context.Context) ([]*subnet.Entry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known == nil {
		snap, err := s.List(ctx)
		if err != nil {
			return nil, err
		}
		s.known = map[string]*subnet.Entry{}
		for _, e := range snap.Entries {
			s.known[e.Key] = e
		}
		s.watches.Go(func() {
			_ = s.Watch(s.ctx, snap.Position, 0, s.apply) // whatever has ended it, the next list tells
			s.mu.Lock()
			defer s.mu.Unlock()
			s.known = nil
		})
	}
	var out []*subnet.Entry
	for _, key := range slices.Sorted(maps.Keys(s.known)) {
		out = append(out, s.known[key])
	}
	return out, nil
}

func (s *stored) apply(events []subnet.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, ev := range events {
		switch {
		case ev.Put != nil:
			s.known[ev.Put.Key] = ev.Put
		case ev.Deleted != "":
			delete(s.known, ev.Deleted)
		}
	}
}

// filed is a network whose configuration is a file of each host, as with the Kubernetes API. The daemon of this host
// has the records.
type filed struct {
	app        *app
	file       string
	kubernetes bool
}

// fileLook is how often the file is read while it is waited for.
const fileLook = 2 * time.Second

// List implements moved.
func (f filed) List(ctx context.Context) (subnet.Snapshot, error) {
	text, err := os.ReadFile(f.file)
	if err != nil {
		return subnet.Snapshot{}, fmt.Errorf("read network configuration: %w", err)
	}
	entries, err := f.Records(ctx)
	return subnet.Snapshot{Config: text, Entries: entries}, err
}

// Records implements moved.
func (f filed) Records(ctx context.Context) (out []*subnet.Entry, err error) {
	leases, err := ask[api.Leases](ctx, f.app, api.PathLeases)
	if err != nil {
		return nil, err
	}
	for _, r := range leases.Records {
		if r.Skipped == "" || len(r.Ways) > 0 {
			out = append(out, entryOf(r))
		}
	}
	return out, nil
}

// entryOf returns a record as it was before the daemon told of it, as far as a move needs that.
func entryOf(r api.Record) *subnet.Entry {
	e := &subnet.Entry{Key: r.Key, Record: subnet.Record{Host: r.Host, Identity: r.Identity}}
	if !r.Reservation {
		e.LeaseID = 1
	}
	for i, prefix := range r.Subnets {
		l := subnet.Lease{Subnet: prefix}
		if i < len(r.PublicIPs) {
			l.PublicIP = r.PublicIPs[i]
		}
		var offers []subnet.Offer
		for _, w := range r.Ways {
			switch {
			case w.Subnet != prefix:
			case l.BackendType == "":
				l.BackendType, l.BackendData = w.Type, string(w.Data)
			default:
				offers = append(offers, subnet.Offer{Type: w.Type, Data: string(w.Data)})
			}
		}
		l.Offers = subnet.OffersText(offers)
		e.Leases = append(e.Leases, l)
	}
	return e
}

// PutConfig says what to write, and waits until it stands in the file of this host.
func (f filed) PutConfig(ctx context.Context, _ []byte, text string) error {
	want, err := subnet.ParseConfig([]byte(text))
	if err != nil {
		return err
	}
	where := f.file + " on each host"
	if f.kubernetes {
		where = "the ConfigMap, under net-conf.json, by \"kubectl -n kube-flannel edit configmap kube-flannel-cfg\"; " +
			"nodes have it within two minutes"
	}
	lines := append([]string{"write this to " + where + ":"}, strings.Split(text, "\n")...)
	for _, line := range append(lines, "waiting for "+f.file+" to change") {
		if err := f.app.say(line); err != nil {
			return err
		}
	}
	for {
		if now, err := os.ReadFile(f.file); err == nil {
			c, err := subnet.ParseConfig(now)
			if err == nil && c.SameSettings(want) && c.Migrated.Same(want.Migrated) {
				return nil
			}
		}
		t := time.NewTimer(fileLook)
		select {
		case <-ctx.Done():
			t.Stop()
			return errors.New(migrateStopped)
		case <-t.C:
		}
	}
}
