// Package extension has commands of the operator carry packets to the peers: one command adds a peer, one removes it.
// They are run without a shell. The add command of a peer is run again until it succeeds.
package extension
