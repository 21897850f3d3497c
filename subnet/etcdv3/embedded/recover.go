package embedded

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"flanneld/subnet/etcdv3/join"
	"flanneld/subnet/etcdv3/member"
)

// A store begins anew with the data of this member, or with a snapshot:
//
//	Recover, Restore ── order ──▶ etcd ends, is started with it, and serves: a store of one member
//	members of the former store ──▶ learn from it that they are none, ask to be added, and are learners

// orderTime bounds the time from an order until etcd serves.
const orderTime = 2 * time.Minute

// errMajority says that a store needs no recovery.
var errMajority = errors.New("the store works, with a majority of its members: nothing was changed; \"flannelctl " +
	"members list\" shows them")

// errNoMajority says that a store does not work.
var errNoMajority = errors.New("no majority of the store's members is reachable: start them again; if they are " +
	"lost for good, run \"flannelctl members recover\"")

// works reports whether a majority of the members of the store works together.
func (m *Member) works(ctx context.Context) bool {
	return m.admin.UseVoters(ctx, m.candidates())
}

// candidates are the endpoints at which a member may answer: that of this one, and those that were known last.
func (m *Member) candidates() []string {
	return append([]string{m.endpoint()}, m.known.Load().endpoints...)
}

// Recover has a new store begin with the data of this member, after the majority of the members was lost for good. It
// returns the hosts of the members that are none any more.
func (m *Member) Recover(ctx context.Context) ([]join.Host, error) {
	if m.works(ctx) {
		return nil, errMajority
	}
	newest, revisions := "", m.admin.Revisions(ctx, m.candidates())
	for endpoint, revision := range revisions {
		if revision > revisions[m.endpoint()] {
			newest = endpoint
		}
	}
	if newest != "" {
		return nil, fmt.Errorf("the member at %s has later changes than this one: nothing was changed; run the command "+
			"there", newest)
	}
	return m.begin(ctx, member.Bootstrap{Alone: true})
}

// Restore has a new store begin with a snapshot, by default the newest that this member has saved. It returns that, and
// the hosts of the members that are none any more.
func (m *Member) Restore(ctx context.Context, path string) (string, []join.Host, error) {
	if path == "" {
		have := m.snapshots()
		if len(have) == 0 {
			return "", nil, fmt.Errorf("there is no snapshot in %s", SnapshotDir(m.o.StateDir))
		}
		path = filepath.Join(SnapshotDir(m.o.StateDir), have[len(have)-1])
	}
	if _, err := os.Stat(path); err != nil {
		return "", nil, err
	}
	others, err := m.begin(ctx, member.Bootstrap{Snapshot: path})
	return path, others, err
}

// begin has etcd start anew, and returns when it serves.
func (m *Member) begin(ctx context.Context, b member.Bootstrap) ([]join.Host, error) {
	if !m.ordering.TryLock() {
		return nil, errors.New("another restore is running: nothing was changed")
	}
	defer m.ordering.Unlock()
	ctx, cancel := context.WithTimeout(ctx, orderTime)
	defer cancel()
	done := make(chan error, 1)
	b.Done = func(err error) { done <- err }
	m.order.Store(&b)
	m.restart.Set()
	select {
	case err := <-done:
		if err != nil {
			return nil, err
		}
	case <-ctx.Done():
		if m.order.CompareAndSwap(&b, nil) {
			return nil, errors.New("the embedded etcd did not stop in time: nothing was changed, run the command again")
		}
		return nil, errors.New("the embedded etcd was started with the new data and does not answer yet: see " +
			"\"flannelctl status\"")
	}
	m.admin.SetEndpoints([]string{m.endpoint()})
	if err := m.secure(ctx); err != nil {
		return nil, err
	}
	m.once.Do(func() { close(m.secured) })
	m.o.Log.Warn("store restored, this host is its only member")
	hosts, err := m.admin.Hosts(ctx)
	return slices.DeleteFunc(hosts, func(h join.Host) bool { return !h.Member || h.User == m.joined.User }), err
}
