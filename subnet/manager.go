package subnet

import (
	"errors"
	"log/slog"
	"net/netip"
	"sync"
	"time"
)

// LostPolicy says what to do when another host has taken this host's subnet.
type LostPolicy string

// The policies of -on-lost-subnet.
const (
	LostMove LostPolicy = "move" // take another subnet
	LostHold LostPolicy = "hold" // announce nothing, wait until the subnet is free again
	LostExit LostPolicy = "exit" // end with ErrLost
)

// ErrLost ends Run under the policy exit.
var ErrLost = errors.New("subnet lost to another host")

// ErrCloned ends Run when a living host has this host's identity: it must get a new one and start anew.
var ErrCloned = errors.New("identity in use by another host")

// Options are what a Manager needs to know of its host.
type Options struct {
	Identity    string
	Host        string // name, for messages
	Prefix      string // of the store, for messages
	TTL         time.Duration
	RenewMargin time.Duration // a lease is renewed at least this long before its end
	PeerGrace   time.Duration // how long peers that a wiped store has lost are kept
	OnLost      LostPolicy
	// Check says what is wrong with a network configuration that is valid by itself, such as an unknown backend.
	Check func(Config) error
	// Attrs returns what to publish with a subnet. It may be called at any time, by one goroutine.
	Attrs func(netip.Prefix) Attrs
	// Valid says why a lease of the right network and type cannot be that of a peer; nil: it can.
	Valid func(Lease) error
	// Avoid returns networks that this host is connected to otherwise, asked for when a new subnet is chosen: one that
	// overlaps them is not taken. nil: none.
	Avoid func() []netip.Prefix
	// Reserved returns networks that this host needs to reach its peers and the store: not even a subnet that it has, or had, may overlap them.
	// nil: none.
	Reserved func() []netip.Prefix
	// Wanted is the subnet in the subnet file, taken if it is free and may be leased.
	Wanted []netip.Prefix
	// State is what the last run has left, already found usable; the zero value: nothing.
	State State
	Log   *slog.Logger
	// Patience is how many times the usual time to wait for the watch to open: for simulations, whose hosts share a processor. 0: once.
	Patience int
}

// Manager holds this host's lease over a Store and follows those of all others.
//
//	Run ──▶ session: List ──▶ settle own lease ──▶ Watch, events, timers ──┐
//	 ▲                                                                    │ any end of the watch
//	 └──────────────── pause with jitter ◀────────────────────────────────┘
//
// All fields are changed by the goroutine of Run alone; the lock is for those who look.
type Manager struct {
	store   Store
	o       Options
	log     *slog.Logger
	changed chan struct{} // capacity 1
	refresh chan struct{} // capacity 1

	first   *Snapshot // of WaitConfig, for the first session
	firstAt time.Time

	held        *Entry  // the own record as this session has confirmed it
	wrote       *Record // the own record as this process has last confirmed it
	lease       LeaseID // store lease that this process keeps alive
	renewAt     time.Time
	ends        time.Time // when that has surely ended if nobody renews it
	renewals    backoff
	settleAt    time.Time // when to settle; zero: nothing to do
	pace        pace      // of settling
	claims      map[string]*claim
	standing    map[string]standing // claims of others that were in the way of ours, by key
	refusals    pace                // of the claims of others
	refusedLast int64               // revision of the last one that was named in the log
	seed        string
	fixed       bool // the configuration does not come from the store

	mu       sync.Mutex // guards all below
	table    *table
	config   Config
	text     string // of the configuration
	position Position
	self     []Lease           // in use by this host, whether or not the store has them
	kept     []netip.Prefix    // were in use until one of them was lost: the other of the pair is taken again
	until    time.Time         // when the own store lease has surely ended if nobody renews it; zero: never
	said     map[string]string // why records are skipped, as far as that was named, by key; empty: nothing yet
	twins    map[string]bool   // records with our identity at another address that were named
	status   Status
}

// Status is what an operator wants to know of the manager.
type Status struct {
	Held       bool      // the store has our lease
	Lost       bool      // another host has taken the subnet that this one uses
	Waiting    string    // why not, empty if it has
	StoreSince time.Time // since when the store cannot be reached; zero while it can
	StoreError string
	Pending    string // a change of the configuration that waits for a restart
	Skipped    int    // records that make no sense
	Ghosts     int    // peers that are kept although the store has lost them
}

// View is a consistent picture of the leases.
type View struct {
	Config   Config
	Text     string // of the configuration
	Position Position
	Self     []Lease   // this host's, empty as long as it has none
	Peers    Peers     // valid leases of others
	Own      Record    // to be remembered
	Until    time.Time // when the own lease has surely ended; zero for a reservation
	Status   Status
}

// NewManager returns a manager that has not asked the store for anything yet.
func NewManager(store Store, o Options) *Manager {
	o.Host = HostName(o.Host)
	m := &Manager{
		store: store, o: o, log: o.Log,
		changed: make(chan struct{}, 1), refresh: make(chan struct{}, 1),
		seed: o.Identity, claims: map[string]*claim{}, standing: map[string]standing{}, said: map[string]string{}, twins: map[string]bool{}, table: newTable(), until: o.State.Until,
	}
	for _, r := range o.State.Peers {
		m.table.haunt(&Entry{Record: r, Key: r.Key()}, fate{until: time.Now().Add(o.PeerGrace)})
	}
	return m
}

// Changed receives after every change of what View returns.
func (m *Manager) Changed() <-chan struct{} { return m.changed }

// Refresh tells that Options.Attrs may answer differently now.
func (m *Manager) Refresh() { poke(m.refresh) }

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// View returns the present picture. Records that make no sense are named in the log, once each.
func (m *Manager) View() View {
	m.mu.Lock()
	defer m.mu.Unlock()
	v := View{
		Config: m.config, Text: m.text, Self: m.self, Status: m.status,
		Own: Record{Leases: m.self, Identity: m.o.Identity, Host: m.o.Host}, Until: m.until,
	}
	if !m.table.picture.fits(m.config, m.self) {
		m.table.picture = newPicture(m.table, m.config, m.self, m.o, m.said)
	}
	p := m.table.picture
	for _, key := range p.reasons() {
		if p.skipped[key] != "" {
			m.log.Warn("record skipped", "key", key, "reason", p.skipped[key])
		}
	}
	m.said = p.skipped
	v.Peers, v.Status.Skipped, v.Status.Ghosts = Peers{p.peers.Freeze()}, len(p.skipped), m.table.kept
	if m.position == (Position{}) {
		v.Status.Ghosts = 0 // remembered, and the store has not been asked yet
	}
	return v
}

// Status returns the present state, without Skipped and Ghosts.
func (m *Manager) Status() Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.status
}

// Peers returns the records of all others, to be remembered over a restart, and the position that they stand at.
func (m *Manager) Peers() (Position, []Record) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []Record
	for _, e := range m.table.sorted() {
		if !isOwn(e, m.o.Identity, m.self) {
			out = append(out, e.Record)
		}
	}
	return m.position, out
}
