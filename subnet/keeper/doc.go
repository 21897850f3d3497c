// Package keeper holds this host's lease over a subnet.Store and follows the leases of all others. Nobody's record is ever
// overwritten: each write is a transaction on what was read.
//
// A decision is pure, and an action is at most one write:
//
//	           events of the store, timers, Refresh
//	                          │
//	                          ▼
//	facts ──▶ decide(facts, now) ──▶ Action ──▶ act: one request ──▶ outcome ──┐
//	  ▲                                                                        │
//	  └────────────────────────────────────────────────────────────────────────┘
//
// What a record is to this host is one Relation, from identity, address and host name. From the relations of all records
// the decision goes one way through these states; what is not there yet is the action:
//
//	                ┌─ has an older rival ── policy hold: Wait; else it is outdated ─┐
//	own record ─────┤                                                                │
//	     │          └─ fits the network                                              │
//	     │                  │  store lease due: Renew                                │
//	     │                  │  another's hand on it: Claim, Wait for silence         │
//	     │                  │  says something else: Update                           │
//	     │                  │  claims and old records left: Delete                   │
//	     │                  ▼                                                        │
//	     │                Keep                                                       │
//	     │                                                                           │
//	no own record ◀──────────────────────────────────────────────────────────────────┘
//	     │  subnet in use is another's: move: Abandon │ hold: Wait │ exit: Fail(ErrLost)
//	     │  others at our address: Claim, Wait for silence, then Update (take over) or Delete
//	     │  no free subnet: Wait
//	     │  no store lease: Grant
//	     ▼
//	  Create, or Update of the outdated record to the new subnets ──▶ own record
//
//	Claim ──▶ the owner deletes it: refused ──▶ our identity: Fail(ErrCloned) │ else: Wait, Claim again after a minute
//	      └─▶ silence of 0.5 s or 3 s ──▶ the record may be taken, by a write that spends the claim
//
// At rest, a claim of another to our record is deleted: its owner lives. A record is atomic: a host has a subnet of each
// family or none, and a conflict over one of them is a conflict of the record.
package keeper
