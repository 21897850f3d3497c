package member

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/etcd/etcdutl/v3/snapshot"
	"go.uber.org/zap"
)

// Bootstrap says how a member starts that does not just go on from its data.
type Bootstrap struct {
	// Cluster is what etcd calls the initial cluster, for a member that has no data yet and is added to others.
	Cluster string
	// Alone has a new store begin with the data of this member, and with no other member.
	Alone bool
	// Snapshot is the same with the data of a file in etcd's form.
	Snapshot string
	// Done is told once how the start went: nil when the member serves, else why it ended before.
	Done func(error) `json:"-"`
}

// revisionBump is how far a store that begins anew is ahead of the data that it begins with: further than any host has
// seen of the former one.
const revisionBump = 1_000_000

// restore has a new store begin, of this member alone, if that is wanted. It has an ID of its own, so that hosts list
// it anew, and members of the former one learn that they are none. The former data are set aside.
func (o Options) restore(now time.Time) error {
	from := o.Snapshot
	if o.Alone {
		from = filepath.Join(o.Dir, "member", "snap", "db")
	}
	if from == "" {
		return nil
	}
	next, peer := o.Dir+".new", PeerURL(o.Advertise, o.Listen)
	if err := os.RemoveAll(next); err != nil { // of an interrupted try
		return err
	}
	err := snapshot.NewV3(zap.NewNop()).Restore(snapshot.RestoreConfig{
		SnapshotPath: from, OutputDataDir: next, Name: o.Name, PeerURLs: []string{peer},
		InitialCluster: o.Name + "=" + peer, InitialClusterToken: rand.Text(),
		SkipHashCheck: o.Alone, // a snapshot alone ends with a hash
		RevisionBump:  revisionBump, MarkCompacted: true,
	})
	if err != nil {
		return errors.Join(fmt.Errorf("restore %s: %w: nothing was changed", from, err), os.RemoveAll(next))
	}
	if _, err := SetAside(o.Dir, now); err != nil {
		return err
	}
	return os.Rename(next, o.Dir)
}

// SetAside moves the data of a member to a folder beside them, and returns that.
func SetAside(dir string, now time.Time) (to string, err error) {
	to = dir + ".old-" + now.UTC().Format("20060102T150405Z")
	if err = os.Rename(dir, to); errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return to, err
}
