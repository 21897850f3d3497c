package subnet

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"syscall"
	"time"
)

// State is what a host remembers over a restart or a reboot, so that it is known again and can serve traffic
// while the store is away.
type State struct {
	Identity string // random, kept for ever
	Network  string // the store's prefix: a state of another network is not used, but its identity is
	Config   string // network configuration as last used
	Own      Record // what this host published; without leases if it holds none
	// Store is the identity of the store that Own stands in; 0: not known. Memory, which is written rarely, may be of the
	// store before.
	Store uint64 `json:",omitempty"`
	// Until is when the own lease has surely ended, after which its subnet may be another's. Zero: never (a
	// reservation).
	Until time.Time
	MACs  map[string]string // hardware address by device
	// Links and Networks are what an earlier run may have left in the kernel.
	Links    []string
	Networks []netip.Prefix

	// Memory is kept in a file of its own: large, and written rarely.
	Memory Memory `json:"-"`
}

// StateDir is this host's state on disk, locked for as long as the daemon runs: two daemons with one
// identity would share one subnet.
type StateDir struct {
	path       string
	lock       *os.File // nil: the folder can neither be written nor has it a lock
	unwritable error
	peersSize  int // of the file of peers, in bytes; 0: it was not written whole by this run
}

// maxStateSize bounds what is read of a state file, in bytes.
const maxStateSize = 64 << 20

// OpenState locks the state that belongs to a subnet file, and creates the folder. The error says who holds the lock. A
// folder that cannot be written (read-only, full, without the rights) is no error, because the network works without
// it: see Unwritable.
func OpenState(dir, subnetFile string) (*StateDir, error) {
	s := &StateDir{path: statePath(dir, subnetFile)}
	err := os.MkdirAll(dir, 0o700)
	if isUnwritable(err) {
		s.unwritable = fmt.Errorf("create state folder: %w", err)
		return s, nil
	}
	if err != nil {
		return nil, fmt.Errorf("create state folder: %w", err)
	}
	if err := checkPrivate(dir); err != nil {
		return nil, fmt.Errorf("state folder: %w", err)
	}
	lock, err := OpenLock(s.path+".lock", os.O_RDWR|os.O_CREATE)
	if isUnwritable(err) {
		s.unwritable = fmt.Errorf("open state lock: %w", err)
		// The lock of an earlier run keeps a second daemon away all the same.
		if lock, err = OpenLock(s.path+".lock", os.O_RDONLY); err != nil {
			return s, nil
		}
	}
	if err != nil {
		return nil, fmt.Errorf("open state lock: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		holder, _ := io.ReadAll(io.LimitReader(lock, 20))
		_ = lock.Close()
		return nil, fmt.Errorf("lock %s.lock: another flanneld (pid %s) uses this state: stop it, or start this one with "+
			"another -subnet-file or -state-dir: %w",
			s.path, bytes.TrimSpace(holder), err)
	}
	s.lock = lock
	removeLeftovers(s.path + ".json")
	removeLeftovers(s.path + ".peers")
	_ = lock.Truncate(0)
	_, _ = lock.WriteAt([]byte(fmt.Sprintln(os.Getpid())), 0)
	return s, nil
}

// isUnwritable reports whether an error says that a folder cannot be written, as opposed to one of a wrong path.
func isUnwritable(err error) bool {
	for _, target := range []error{syscall.EROFS, syscall.EACCES, syscall.EPERM, syscall.ENOSPC, syscall.EDQUOT,
		syscall.EIO} {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}

// Unwritable says why the state could not be locked for writing when it was opened; nil: it could.
func (s *StateDir) Unwritable() error { return s.unwritable }

// Close releases the lock.
func (s *StateDir) Close() error {
	if s.lock == nil {
		return nil
	}
	return s.lock.Close()
}

// Load reads the state. It always returns one with an identity, a new one if there is none to be read; the
// error says what could not be used.
func (s *StateDir) Load() (State, error) {
	st, err := s.load()
	if st.Identity == "" {
		st.Identity = rand.Text()
	}
	return st, err
}

func (s *StateDir) load() (State, error) {
	text, err := ReadFile(s.path+".json", maxStateSize)
	if errors.Is(err, fs.ErrNotExist) {
		return State{}, nil
	}
	if err != nil {
		return State{}, fmt.Errorf("read state: %w", err)
	}
	var st State
	if err := json.Unmarshal(text, &st); err != nil {
		return State{}, fmt.Errorf("read state %s.json: %w", s.path, err)
	}
	st.Memory, err = s.loadMemory()
	return st, err
}

// Save writes all but the memory.
func (s *StateDir) Save(st State) error {
	err := WriteFile(s.path+".json", 0o600, func(w io.Writer) error {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(st)
	})
	if err != nil {
		return fmt.Errorf("save state: %w", err)
	}
	return nil
}

// Current says why the state is not that of the network now, or nil: it is of another network, or its lease has ended.
func (st State) Current(network string, now time.Time) error {
	switch {
	case st.Network != network:
		return fmt.Errorf("it is of the network %s, not %s", st.Network, network)
	case !st.Until.IsZero() && now.After(st.Until):
		return fmt.Errorf("its lease has ended at %s", st.Until.Format(time.RFC3339))
	}
	return nil
}

// Usable says why the data plane that the state describes must not be brought up without asking the store, or
// nil: it is of another network, too old, or has no lease. The identity is always usable.
func (st State) Usable(network string, now time.Time) error {
	if len(st.Own.Leases) == 0 {
		return errors.New("it holds no lease")
	}
	if err := st.Current(network, now); err != nil {
		return err
	}
	c, err := ParseConfig([]byte(st.Config))
	if err != nil {
		return fmt.Errorf("its configuration: %w", err)
	}
	for _, l := range st.Own.Leases {
		if p, ok := c.Pool(l.Subnet); !ok || !p.Holds(l.Subnet) {
			return fmt.Errorf("its subnet %s is not in the network", l.Subnet)
		}
	}
	return nil
}
