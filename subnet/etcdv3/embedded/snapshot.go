package embedded

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"flanneld/subnet"
	"flanneld/trigger"
)

const (
	snapshotPause = 6 * time.Hour
	keptSnapshots = 8
	snapshotEnd   = ".db"
	snapshotForm  = "20060102T150405Z" // sorts by time
)

// SnapshotDir returns where a member keeps snapshots of the store.
func SnapshotDir(stateDir string) string { return filepath.Join(stateDir, "snapshots") }

// Snapshot saves the store as it is now in a file of that time, and removes the oldest files. etcd's own tools restore
// it. It holds all that is in the store, also keys in the network configuration: root alone can read it.
func (m *Member) Snapshot(ctx context.Context, now time.Time) error {
	dir := SnapshotDir(m.o.StateDir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	from, err := m.admin.Snapshot(ctx)
	if err != nil {
		return err
	}
	defer from.Close()
	path := filepath.Join(dir, now.UTC().Format(snapshotForm)+snapshotEnd)
	err = subnet.WriteFile(path, 0o600, func(w io.Writer) error {
		_, err := io.Copy(w, from)
		return err
	})
	if err != nil {
		return err
	}
	have := m.snapshots()
	for _, name := range have[:max(0, len(have)-keptSnapshots)] {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}

// snapshots returns the names of those that are kept, the oldest first.
func (m *Member) snapshots() []string {
	entries, _ := os.ReadDir(SnapshotDir(m.o.StateDir)) // no folder: none
	var out []string
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), snapshotEnd)
		if _, err := time.Parse(snapshotForm, name); ok && err == nil {
			out = append(out, e.Name())
		}
	}
	slices.Sort(out)
	return out
}

// untilSnapshot returns how long the newest snapshot is new enough.
func (m *Member) untilSnapshot(now time.Time) time.Duration {
	have := m.snapshots()
	if len(have) == 0 {
		return 0
	}
	newest, err := time.Parse(snapshotForm+snapshotEnd, have[len(have)-1])
	if err != nil || newest.After(now) { // the clock was wrong once
		return snapshotPause
	}
	return newest.Add(snapshotPause).Sub(now)
}

// keepSnapshots saves the store every few hours until ctx ends.
func (m *Member) keepSnapshots(ctx context.Context) {
	for {
		if trigger.Pause(ctx, max(m.untilSnapshot(time.Now()), retryPause)) != nil {
			return
		}
		if err := m.Snapshot(ctx, time.Now()); err != nil && ctx.Err() == nil {
			m.o.Log.Error("snapshot of the store not saved, retrying", "error", err)
			_ = trigger.Pause(ctx, maxPause)
		}
	}
}
