package subnet

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// LeaseID names the store's own lease that a record expires with. The zero value is none: the record is a
// reservation, which never expires.
type LeaseID int64

// Entry is a record as it stands in the store.
type Entry struct {
	Record
	Key      string // the name below PREFIX: Record.Key
	Revision int64  // the store's revision at the last change of the record
	Created  int64  // the store's revision when the key came into being
	LeaseID  LeaseID
	// Value is what the store has written down, as far as a store needs it to tell a reservation from one of another
	// history with the same revision.
	Value string
}

// BadRecord is a key under PREFIX/subnets/ (named below PREFIX, like an Entry) whose name or value is invalid. Of an
// invalid claim only a ConflictError tells.
type BadRecord struct {
	Key      string
	Revision int64
	LeaseID  LeaseID
	Err      error
}

// Position is a point in one store's history. Positions of different histories (a wiped or restored store) do
// not compare: see Store.Watch.
type Position struct {
	Cluster  uint64 // identity of the store
	Revision int64
}

// Snapshot is all that the store holds, at one Position.
type Snapshot struct {
	Position
	// Config is the text under PREFIX/config; nil if there is none.
	Config  []byte
	Entries []*Entry // sorted by key; nobody changes them
	Claims  []Entry  // sorted by key
	Bad     []BadRecord
}

// Event is one change in the store. Exactly one of the pointers is set, or Deleted, or Config with ConfigSet; none of
// them in the confirmation of a watch.
type Event struct {
	Revision int64
	Put      *Entry
	Bad      *BadRecord // a record came or changed, and is invalid
	Deleted  string     // key of a record or claim that was deleted or expired
	// ConfigSet says that the network configuration changed to Config; nil: it was deleted.
	ConfigSet bool
	Config    []byte
}

// IsChange reports whether the event is a change, and not the confirmation of a watch.
func (e Event) IsChange() bool { return e.Put != nil || e.Bad != nil || e.Deleted != "" || e.ConfigSet }

// Store keeps the records of one network. All methods may be called concurrently, return when ctx ends, and
// try only for a bounded time: retrying is the caller's business. Any error that is not
// one of those named here leaves open whether the write happened.
type Store interface {
	// List reads the configuration, all records and all claims, at one revision.
	List(ctx context.Context) (Snapshot, error)

	// Config reads the configuration alone: the text, nil if there is none, and where the store is.
	Config(ctx context.Context) (Position, []byte, error)

	// Watch calls f with the changes of configuration, records and claims after a position, in order and without gaps, in
	// batches that are never split within a revision. If from is not 0, the changes from that revision on come first,
	// though the caller has seen them: so it learns whether this is the history that it knows. As soon as the store has
	// confirmed that it can do so, f is called with one event that is no change, of the revision that the store is at.
	// Watch returns an error whenever it ends, ErrHistory if the store cannot continue from the position: compacted,
	// another store, or a store whose revision is lower.
	Watch(ctx context.Context, after Position, from int64, f func([]Event)) error

	// Grant asks for a new store lease of this time to live, in whole seconds.
	Grant(ctx context.Context, ttl time.Duration) (LeaseID, error)

	// Create writes the record under the key of its prefixes if no record stands there, nor one that has one of its
	// prefixes (a claim: if there is no such claim). Else it returns a *ConflictError. A store that can only find out
	// afterwards takes the record back before it returns; whoever sees it meanwhile goes by the older one.
	Create(ctx context.Context, r Record, id LeaseID) (Entry, error)

	// Update replaces the entry by a record with the store lease id, if the entry's revision is still the one given, and
	// its store lease, which no record of another history shares, or, of a reservation, what it says. If that has other
	// prefixes, the key changes with it in the same transaction, under the condition of Create. What is spent, claims and
	// other records, must stand unchanged, too, and is deleted with it. Else it returns a *ConflictError, with the key of
	// what has changed or is gone.
	Update(ctx context.Context, old Entry, r Record, id LeaseID, spent ...Entry) (Entry, error)

	// Delete deletes the entry under the same conditions. Else it returns a *ConflictError; success if nothing
	// stands there. An invalid claim is deleted as an Entry with its key, revision and store lease.
	Delete(ctx context.Context, old Entry, spent ...Entry) error

	// KeepAlive renews a store lease once, without touching the record, and returns the time to live that
	// it now has. ErrLeaseGone: it has expired or was revoked, and its record with it.
	KeepAlive(ctx context.Context, id LeaseID) (time.Duration, error)
}

// ErrHistory is returned by Store.Watch if the store cannot continue from the position.
var ErrHistory = errors.New("the store does not continue from that position")

// ErrLeaseGone is returned by Store.KeepAlive for a lease that no longer exists.
var ErrLeaseGone = errors.New("store lease expired or revoked")

// ConflictError says that a conditional write did not happen because of what stands there. Without Current and
// Bad nothing does: the record is gone, or what was to be spent.
type ConflictError struct {
	Key     string // of what stands there; of the write, or of what it would have spent, if nothing does
	Current *Entry
	Bad     *BadRecord
}

func (e *ConflictError) Error() string {
	switch {
	case e.Current != nil:
		return fmt.Sprintf("conflict at %s: held by %s", e.Key, e.Current.Record)
	case e.Bad != nil:
		return fmt.Sprintf("conflict at %s: an invalid record: %v", e.Key, e.Bad.Err)
	}
	return fmt.Sprintf("conflict at %s: the record is gone", e.Key)
}
