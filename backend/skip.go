package backend

import "flanneld/subnet"

// Skip is a peer that is left out of the data plane although its lease is valid, and why: packets to it go where the
// rest of the host's routes say.
type Skip struct {
	Peer   subnet.Lease
	Reason string // for people: what is in the way, and what to do about it
}

// Skipped returns the peers that the last pass has left out, sorted by subnet. Any goroutine may call it.
func (l *Loop) Skipped() []Skip { return nil }

// Problems returns what else the last pass has left out, that concerns this host and not a single peer. Any goroutine may
// call it.
func (l *Loop) Problems() []string { return nil }
