package keeper

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"flanneld/subnet"
	"flanneld/trigger"
)

// ErrLost ends Run under the policy exit.
var ErrLost = errors.New("subnet lost to another host")

// ErrCloned ends Run when a living host has this host's identity: it must get a new one and start anew.
var ErrCloned = errors.New("identity in use by another host")

// Options are what a Keeper needs to know of its host.
type Options struct {
	Identity    string
	Host        string // name, for messages
	Prefix      string // of the store, for messages
	TTL         time.Duration
	RenewMargin time.Duration // a lease is renewed at least this long before its end
	PeerGrace   time.Duration // how long peers that a wiped store has lost are kept
	OnLost      subnet.LostPolicy
	// Check says what is wrong with a network configuration that is valid by itself, such as an unknown backend.
	Check func(subnet.Config) error
	// Follow has the host follow to the backends of a configuration while it runs; the error says why it does not. nil: a
	// change waits for a restart.
	Follow func(subnet.Config) error
	// Adjusts reports whether the backends of two configurations differ only in options that can change while they run.
	// nil: never.
	Adjusts func(now, then subnet.Config) bool
	// Attrs returns what to publish with a subnet, which depends on its family alone. It may be called at any time, by one
	// goroutine.
	Attrs func(netip.Prefix) subnet.Attrs
	// Valid says why a lease of the right network and type cannot be that of a peer; nil: it can.
	Valid func(subnet.Lease) error
	// Avoid returns networks that this host is connected to otherwise, asked for when a new subnet is chosen: one that
	// overlaps them is not taken. nil: none.
	Avoid func() []netip.Prefix
	// Reserved returns networks that this host needs to reach its peers and the store: not even a subnet that it has, or
	// had, may overlap them. nil: none.
	Reserved func() []netip.Prefix
	// Wanted is the subnet in the subnet file, taken if it is free and may be leased.
	Wanted []netip.Prefix
	// State is what the last run has left, already found usable; the zero value: nothing.
	State subnet.State
	Log   *slog.Logger
	// WatchWait is how long the watch may take to open after a list that took less; zero: 5 s.
	WatchWait time.Duration
}

// Keeper holds this host's lease over a Store and follows those of all others. Run changes it, in one goroutine; all
// other methods may be called by any.
type Keeper struct {
	store   subnet.Store
	o       Options
	log     *slog.Logger
	changed trigger.Trigger
	refresh trigger.Trigger
	fixed   bool        // the configuration does not come from the store
	texts   chan []byte // that of a file, when it has changed
	first   *subnet.Snapshot
	read    configRead
	listed  time.Time     // when first was
	took    time.Duration // how long the last list took
	graced  time.Time     // when the time of the peers that a list has lost last began

	trail    trail         // by which a watch can begin again without a list
	missed   missed        // during the last break
	held     *subnet.Entry // the own record as this session has confirmed it
	heard    *configRead   // what a watch has told, until it was followed
	old      bool          // the configuration is that of the last run, and the store was not asked for its own
	decideAt time.Time     // when to decide next; zero: after an event
	pace     pace          // of writes
	refusals pace          // of the claims of others
	renewals backoff       // after one that has failed
	refused  int64         // revision of the last claim that was named in the log
	named    map[string]bool

	mu       sync.Mutex // guards all below; Run alone changes them, and holds it only to do so
	facts    facts
	text     string // of the configuration
	position subnet.Position
	asked    bool      // the store has told what has changed since the last run; until then position is that run's
	until    time.Time // when the own store lease has surely ended if nobody renews it; zero: never
	status   subnet.Status
}

// New returns a keeper for a network. It starts nothing.
func New(store subnet.Store, n Network, o Options) *Keeper {
	o.Host = subnet.HostName(o.Host)
	if o.Avoid == nil {
		o.Avoid = func() []netip.Prefix { return nil }
	}
	if o.Reserved == nil {
		o.Reserved = func() []netip.Prefix { return nil }
	}
	k := &Keeper{
		store: store, o: o, log: o.Log, changed: trigger.New(), refresh: trigger.New(), texts: make(chan []byte, 1),
		fixed: n.fixed, first: n.first, listed: n.listed, took: n.took, text: string(n.Text), read: n.read, status: n.status,
		until: o.State.Until, named: map[string]bool{}, old: !n.fixed && n.first == nil && n.read.at == 0,
	}
	k.facts = facts{
		host: host{identity: o.Identity, name: o.Host}, policy: o.OnLost, config: n.Config,
		records: subnet.NewPeerTable(o.Identity, o.Valid), inUse: leasesOf(o.State, n.Config), seed: o.Identity,
		claims: map[string]claim{}, wanted: o.Wanted,
	}
	k.remember(o.State.Memory, n.first != nil)
	k.o.State.Memory = subnet.Memory{Position: o.State.Memory.Position} // the table has the rest, as long as it is of use
	return k
}

// remember takes in what the last run knew of the store. The first watch goes on from there, if the store proves to be
// the same, and if it was not listed already. Else all peers are stale until a list shows them.
func (k *Keeper) remember(m subnet.Memory, listed bool) {
	if listed {
		m.Trail = nil
	}
	snap, stale := m.Snapshot()
	if len(m.Trail) > 0 {
		k.facts.records.Replace(snap, time.Time{})
		k.facts.hearClaims(time.Now(), snap.Claims...)
		k.position, k.trail = m.Position, trail{events: m.Trail, proves: true}
	}
	k.facts.records.Retain(stale, time.Now().Add(k.o.PeerGrace))
	k.facts.records.Release(k.facts.inUse)
}

// leasesOf returns the leases of the last run, if the network can have them.
func leasesOf(last subnet.State, c subnet.Config) []subnet.Lease {
	own := last.Own.Leases
	hasType := func(s subnet.Setting) bool { return s.Type == own[0].BackendType }
	if len(own) != len(c.Pools) || !slices.ContainsFunc(c.Settings(), hasType) {
		return nil
	}
	for i, l := range own {
		if !c.Pools[i].Holds(l.Subnet) {
			return nil
		}
	}
	return own
}

// LeaveReserved gives up the subnets of the last run if they are reserved. It is called before Run, when
// Options.Reserved has an answer.
func (k *Keeper) LeaveReserved() {
	k.mu.Lock()
	defer k.mu.Unlock()
	own, reserved := subnet.Record{Leases: k.facts.inUse}.Prefixes(), k.o.Reserved()
	if slices.ContainsFunc(own, func(p netip.Prefix) bool { return overlaps(p, reserved) }) {
		k.facts.inUse = nil
		k.log.Warn("subnet of the last run not used again: it overlaps a network through which this host reaches its "+
			"peers or the store",
			"subnet", fmt.Sprint(own))
	}
}

// Changed receives after every change of what View returns.
func (k *Keeper) Changed() <-chan struct{} { return k.changed }

// Refresh tells that Options.Attrs may answer differently now.
func (k *Keeper) Refresh() { k.refresh.Set() }

// View returns the leases as they are known now, as one consistent whole.
func (k *Keeper) View() subnet.View {
	k.mu.Lock()
	defer k.mu.Unlock()
	f := &k.facts
	v := subnet.View{
		Config: f.config, Text: k.text, Position: k.position, Self: f.inUse, Status: k.status, Until: k.until,
		Own: subnet.Record{Leases: f.inUse, Identity: f.identity, Host: f.name},
	}
	v.Peers, v.Status.Skipped, v.Status.Stale = f.records.Peers(f.config, f.inUse)
	if !k.asked {
		v.Status.Stale = 0 // remembered, and the store has not been asked yet
	}
	return v
}

// Status returns the present state, without Skipped and Stale.
func (k *Keeper) Status() subnet.Status {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.status
}

// Memory returns what is to be remembered over a restart.
func (k *Keeper) Memory() subnet.Memory {
	k.mu.Lock()
	defer k.mu.Unlock()
	m := k.facts.records.Memory(k.facts.inUse)
	m.Position, m.Trail = k.position, k.trail.memory()
	return m
}

// Inventory returns all records and the position that they stand at, sorted by key.
func (k *Keeper) Inventory() (subnet.Position, []subnet.Listed) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.position, k.facts.records.Inventory(k.facts.inUse)
}

// Position returns the point of the store's history that the keeper has seen.
func (k *Keeper) Position() subnet.Position {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.position
}
