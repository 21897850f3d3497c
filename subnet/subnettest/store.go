package subnettest

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"flanneld/subnet"
)

// Server is a store in memory that many hosts share, each through a Client of its own. Time is that of
// package time, so that it runs under testing/synctest; leases expire by timers.
type Server struct {
	mu       sync.Mutex // guards all below
	cluster  uint64
	revision int64
	compact  int64 // events up to here are gone
	config   []byte
	entries  map[string]subnet.Entry
	bad      map[string]subnet.BadRecord
	leases   map[subnet.LeaseID]*lease
	nextID   subnet.LeaseID
	history  []subnet.Event
	epoch    chan struct{} // closed and replaced when watches must end
	changed  chan struct{} // closed and replaced at every event
	onWrite  func(Write)
}

type lease struct {
	ttl     time.Duration
	expires time.Time
	timer   *time.Timer
}

// Write is one change of a record or claim, with what stood there before. The operator's are not told.
type Write struct {
	Client string // name; empty: the record expired
	Before *subnet.Entry
	After  *subnet.Entry // nil: deleted
}

// NewServer returns an empty store.
func NewServer() *Server {
	s := &Server{cluster: 1}
	s.emptyLocked()
	s.epoch, s.changed = make(chan struct{}), make(chan struct{})
	return s
}

func (s *Server) emptyLocked() {
	for _, l := range s.leases {
		l.timer.Stop()
	}
	s.revision, s.compact, s.config, s.history = 1, 0, nil, nil
	s.entries, s.bad = map[string]subnet.Entry{}, map[string]subnet.BadRecord{}
	s.leases = map[subnet.LeaseID]*lease{}
}

// OnWrite has f called, under the lock, for every change of a record by a client or by its expiry.
func (s *Server) OnWrite(f func(Write)) { s.onWrite = f }

// SetConfig is the operator writing the network configuration; nil deletes it.
func (s *Server) SetConfig(text []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.config = text
	s.eventLocked(subnet.Event{ConfigSet: true, Config: text})
}

// Put is the operator writing a record without a lease: a reservation.
func (s *Server) Put(r subnet.Record) subnet.Entry { return s.PutLeased(r, 0) }

// PutLeased is a host of flannel writing its record: it looks for the key alone.
func (s *Server) PutLeased(r subnet.Record, id subnet.LeaseID) subnet.Entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.putLocked(r, id)
}

// PutBad is somebody writing rubbish.
func (s *Server) PutBad(key, why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.entries, key)
	b := subnet.BadRecord{Key: key, Revision: s.revision + 1, Err: errors.New(why)}
	s.bad[key] = b
	if strings.HasPrefix(key, subnet.ClaimsFolder) {
		s.revision++ // nobody is told
		return
	}
	s.eventLocked(subnet.Event{Bad: &b})
}

// Remove is the operator deleting a record.
func (s *Server) Remove(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.removeLocked(key)
}

// Replace is the operator deleting a record, and a host of flannel writing its own before anybody else has seen that.
func (s *Server) Replace(key string, r subnet.Record) subnet.Entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.removeLocked(key)
	return s.putLocked(r, 0)
}

// Entries returns all records and claims, sorted by key.
func (s *Server) Entries() []subnet.Entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []subnet.Entry
	for _, key := range slices.Sorted(maps.Keys(s.entries)) {
		out = append(out, s.entries[key])
	}
	return out
}

// Compact forgets all events so far.
func (s *Server) Compact() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.compact, s.history = s.revision, nil
}

// Disconnect ends all watches, as a restart of the store does.
func (s *Server) Disconnect() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.disconnectLocked()
}

func (s *Server) disconnectLocked() {
	close(s.epoch)
	s.epoch = make(chan struct{})
}

// Wipe replaces the store by an empty one with the same configuration and, as with an etcd of the same flags, the same
// cluster id.
func (s *Server) Wipe() {
	s.mu.Lock()
	defer s.mu.Unlock()
	config := s.config
	s.emptyLocked()
	s.config = config
	s.disconnectLocked()
}

// Backup is a copy of the store at one moment.
type Backup struct {
	revision int64
	config   []byte
	entries  map[string]subnet.Entry
	bad      map[string]subnet.BadRecord
	leases   map[subnet.LeaseID]time.Duration
}

// Backup returns a copy of the store.
func (s *Server) Backup() Backup {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := Backup{s.revision, s.config, maps.Clone(s.entries), maps.Clone(s.bad), map[subnet.LeaseID]time.Duration{}}
	for id, l := range s.leases {
		b.leases[id] = l.ttl
	}
	return b
}

// Restore replaces the store by a backup, whose leases start anew.
func (s *Server) Restore(b Backup) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.emptyLocked()
	s.revision, s.compact, s.config = b.revision, b.revision, b.config
	s.entries, s.bad = maps.Clone(b.entries), maps.Clone(b.bad)
	for id, ttl := range b.leases {
		s.leaseLocked(id, ttl)
	}
	s.disconnectLocked()
}

// eventLocked adds an event with the next revision.
func (s *Server) eventLocked(ev subnet.Event) {
	s.revision++
	ev.Revision = s.revision
	s.history = append(s.history, ev)
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *Server) putLocked(r subnet.Record, id subnet.LeaseID) subnet.Entry {
	rev := s.revision + 1
	e := subnet.Entry{Record: r, Key: r.Key(), Revision: rev, Created: rev, LeaseID: id}
	if old, ok := s.entries[e.Key]; ok {
		e.Created = old.Created
	}
	delete(s.bad, e.Key)
	s.entries[e.Key] = e
	s.eventLocked(subnet.Event{Put: &e})
	return e
}

func (s *Server) removeLocked(key string) {
	_, there := s.entries[key]
	_, bad := s.bad[key]
	if !there && !bad {
		return
	}
	delete(s.entries, key)
	delete(s.bad, key)
	s.eventLocked(subnet.Event{Deleted: key})
}

func (s *Server) leaseLocked(id subnet.LeaseID, ttl time.Duration) {
	l := &lease{ttl: ttl, expires: time.Now().Add(ttl)}
	l.timer = time.AfterFunc(ttl, func() { s.expire(id, l) })
	s.leases[id] = l
	s.nextID = max(s.nextID, id)
}

func (s *Server) expire(id subnet.LeaseID, l *lease) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.leases[id] != l {
		return
	}
	s.revokeLocked(id)
}

// Expire ends a lease now, and with it the records that hang on it.
func (s *Server) Expire(id subnet.LeaseID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.revokeLocked(id)
}

func (s *Server) revokeLocked(id subnet.LeaseID) {
	if l := s.leases[id]; l != nil {
		l.timer.Stop()
	}
	delete(s.leases, id)
	var expired []string
	for key, e := range s.entries {
		if e.LeaseID == id {
			expired = append(expired, key)
		}
	}
	slices.Sort(expired)
	for _, key := range expired {
		e := s.entries[key]
		s.removeLocked(key)
		s.notedLocked(Write{Before: &e})
	}
}

func (s *Server) snapshot() (subnet.Snapshot, chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	snap := subnet.Snapshot{Position: subnet.Position{Cluster: s.cluster, Revision: s.revision}, Config: s.config}
	for _, key := range slices.Sorted(maps.Keys(s.entries)) {
		if e := s.entries[key]; e.Claim {
			snap.Claims = append(snap.Claims, e)
		} else {
			snap.Entries = append(snap.Entries, &e)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(s.bad)) {
		if !strings.HasPrefix(key, subnet.ClaimsFolder) {
			snap.Bad = append(snap.Bad, s.bad[key])
		}
	}
	return snap, s.epoch
}

// Revision returns the revision that the store is at.
func (s *Server) Revision() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.revision
}

// Since returns the events after a position, for those who follow the store without a watch.
func (s *Server) Since(after subnet.Position) ([]subnet.Event, error) {
	events, _, err := s.since(after)
	return events, err
}

// opens returns the revision that the store is at, if a watch can go on after a position, and what ends that watch.
func (s *Server) opens(after subnet.Position) (at int64, epoch chan struct{}, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.revision, s.epoch, s.continuesLocked(after)
}

func (s *Server) continuesLocked(after subnet.Position) error {
	if after.Cluster != s.cluster || after.Revision > s.revision || after.Revision < s.compact {
		return fmt.Errorf("position %d of cluster %d: %w", after.Revision, after.Cluster, subnet.ErrHistory)
	}
	return nil
}

// since returns the events after a revision, and what to wait for if there are none.
func (s *Server) since(after subnet.Position) (events []subnet.Event, changed chan struct{}, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.continuesLocked(after); err != nil {
		return nil, nil, err
	}
	at := len(s.history)
	for at > 0 && s.history[at-1].Revision > after.Revision {
		at--
	}
	return slices.Clone(s.history[at:]), s.changed, nil
}

func (s *Server) notedLocked(w Write) {
	if s.onWrite != nil {
		s.onWrite(w)
	}
}

func (s *Server) grant(ttl time.Duration) subnet.LeaseID {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.nextID++
	s.leaseLocked(s.nextID, ttl)
	return s.nextID
}

func (s *Server) keepAlive(id subnet.LeaseID) (time.Duration, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.leases[id]
	if l == nil {
		return 0, subnet.ErrLeaseGone
	}
	l.timer.Reset(l.ttl)
	l.expires = time.Now().Add(l.ttl)
	return l.ttl, nil
}

// Keys returns the keys of all records, those that hold rubbish included, and of no claims.
func (s *Server) Keys() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	keys := slices.Collect(maps.Keys(s.bad))
	for key, e := range s.entries {
		if !e.Claim {
			keys = append(keys, key)
		}
	}
	return keys
}
