package embedded_test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"flanneld/need"
	"flanneld/subnet/etcdv3/embedded"
	"flanneld/subnet/etcdv3/join"
)

// leases writes some records with a time to live.
func leases(t *testing.T, c *clientv3.Client) {
	t.Helper()
	for i := range 20 {
		lease, err := c.Grant(t.Context(), 3600)
		if err == nil {
			_, err = c.Put(t.Context(), fmt.Sprintf("%s/subnets/10.5.%d.0-24", prefix, i), fmt.Sprint("record ", i),
				clientv3.WithLease(lease.ID))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// held returns all records, each with its lease.
func held(t *testing.T, c *clientv3.Client) map[string]string {
	t.Helper()
	resp, err := c.Get(t.Context(), prefix+"/subnets/", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, kv := range resp.Kvs {
		out[string(kv.Key)] = fmt.Sprintf("%s, lease %x", kv.Value, kv.Lease)
	}
	return out
}

// old returns the data that a member has moved away.
func (f *first) old() []string {
	found, _ := filepath.Glob(embedded.DataDir(f.o.StateDir) + ".old-*")
	return found
}

func TestAStoreThatHasLostItsMajorityGoesOnWithTheDataOfOneMember(t *testing.T) {
	t.Parallel()
	one := newFirst(t)
	two, three := one.another("second"), one.another("third")
	one.members(3, 0)
	host := one.joiner("fourth")
	host.Join(t.Context(), never(t))
	leases(t, one.root())
	before := held(t, one.root())
	if _, err := one.Recover(t.Context()); err == nil || !strings.Contains(err.Error(), "with a majority") {
		t.Errorf("the recovery of a store that works: %v", err)
	}

	two.stop()
	three.stop()
	need.Until(t, "the loss of the majority to be reported", time.Minute, func() bool {
		_, _, err := one.Members(t.Context())
		return err != nil && strings.Contains(err.Error(), "flannelctl members recover")
	})
	var former []join.Host
	need.Until(t, "the recovery of the store", time.Minute, func() (ok bool) {
		var err error
		former, err = one.Recover(t.Context()) // refused until the members that are left have given up their leader
		return err == nil
	})
	if len(former) != 2 || former[0].Name == former[1].Name {
		t.Errorf("members of the former store are %+v", former)
	}
	one.members(1, 0)
	if got := held(t, one.root()); !maps.Equal(got, before) {
		t.Errorf("after the recovery there are the records %v, before %v", got, before)
	}
	if err := one.store(host.Client.Folder).MayWrite(t.Context()); err != nil {
		t.Errorf("a host that has joined: %v", err)
	}

	// One comes back with its data, the other without.
	if err := os.RemoveAll(embedded.DataDir(three.o.StateDir)); err != nil {
		t.Fatal(err)
	}
	two.start()
	three.start()
	one.members(3, 0)
	if len(two.old()) != 1 || len(three.old()) != 0 {
		t.Errorf("moved away are %s and %s", two.old(), three.old())
	}
	one.stop()
	if got := held(t, two.root()); !maps.Equal(got, before) {
		t.Errorf("with the members that came back there are the records %v, before %v", got, before)
	}
}

func TestASnapshotIsRestoredWhileAllMembersRun(t *testing.T) {
	t.Parallel()
	one := newFirst(t)
	two, three := one.another("second"), one.another("third")
	one.members(3, 0)
	leases(t, one.root())
	before := held(t, one.root())
	if err := two.Snapshot(t.Context(), time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if _, err := one.root().Delete(t.Context(), prefix+"/subnets/", clientv3.WithPrefix()); err != nil {
		t.Fatal(err)
	}
	_, former, err := two.Restore(t.Context(), "")
	if err != nil || len(former) != 2 {
		t.Fatalf("members of the former store are %+v, %v", former, err)
	}
	two.members(3, 0) // the others have learned that they are none any more
	for _, m := range []*first{one, two, three} {
		if got := held(t, m.root()); !maps.Equal(got, before) {
			t.Errorf("%s has the records %v, when the snapshot was saved %v", m.o.Host, got, before)
		}
		if len(m.old()) != 1 {
			t.Errorf("%s has moved away %s", m.o.Host, m.old())
		}
	}
}

// TestANewHostTakesTheStoreOver is for the loss of all members: their credentials and a snapshot are left.
func TestANewHostTakesTheStoreOver(t *testing.T) {
	t.Parallel()
	one := newFirst(t)
	two, three := one.another("second"), one.another("third")
	one.members(3, 0)
	leases(t, one.root())
	before := held(t, one.root())
	if err := one.Snapshot(t.Context(), time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	files := one.snapshots()
	heir := newHost(t, "heir")
	from, to := embedded.Folder(one.o.StateDir), embedded.Folder(heir.o.StateDir)
	if err := os.CopyFS(string(to), os.DirFS(string(from))); err != nil {
		t.Fatal(err)
	}
	for _, m := range []*first{one, two, three} {
		m.stop()
	}
	heir.launch()
	if _, _, err := heir.Restore(t.Context(), files[len(files)-1]); err != nil {
		t.Fatal(err)
	}
	heir.members(1, 0)
	if got := held(t, heir.root()); !maps.Equal(got, before) {
		t.Errorf("the new host has the records %v, in the snapshot are %v", got, before)
	}
}
