package subnet

import "time"

// LostPolicy says what to do when another host has taken this host's subnet.
type LostPolicy string

// The policies of -on-lost-subnet.
const (
	LostMove LostPolicy = "move" // take another subnet
	LostHold LostPolicy = "hold" // announce nothing, wait until the subnet is free again
	LostExit LostPolicy = "exit" // end
)

// View is what a source knows of the leases, as one consistent whole.
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

// Status is what an operator wants to know of a source.
type Status struct {
	Held       bool      // the store has our lease
	Lost       bool      // another host has taken the subnet that this one uses
	Waiting    string    // why not, empty if it has
	StoreSince time.Time // since when the store cannot be reached; zero while it can
	StoreError string
	Pending    string // a change of the configuration that waits for a restart
	Skipped    int    // invalid records
	Stale      int    // peers that are kept although the store has lost them
}

// Listed is a record as a source knows it. Of an invalid one only the key and the revision are set.
type Listed struct {
	Entry
	Own     bool      // this host's
	Stale   bool      // the store has lost it, packets still go there
	Skipped string    // why it is no peer, or not with all its subnets
	Since   time.Time // when the record was made, where the store says a time instead of Created
}
