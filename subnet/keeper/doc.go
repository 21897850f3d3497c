// Package keeper holds this host's lease over a subnet.Store and follows the leases of all others. Nobody's record is
// ever overwritten: each write is a transaction on what was read.
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
// What a record is to this host is one Relation, from identity, address and host name. The relations of all records are
// summed up in a survey: our record, if there is one, and whether it stays; records of hosts that have, or had, our
// address; old records of ours. A decision goes through the following from top to bottom, and the first line that does
// not hold yet gives the action:
//
//	our record exists    its store lease is not due                else Renew
//	no record stays      nobody else has a subnet in use           else by the policy: Abandon │ Wait │ Fail(ErrLost)
//	always               no owner of a record that we need lives   else Claim, Wait for silence │ Wait │ Fail(ErrCloned)
//	always               no dead host's record has our address     else Update (take it over) or Delete
//	our record stays     it says what we publish, on our lease     else Grant, Update
//	                     no claim or old record of ours is left    else Delete
//	                     ⇒ Keep
//	no record stays      a subnet of each family is free           else Wait
//	                     ⇒ Grant, then Create, or Update of the record that does not stay
//
// Then, at Keep or Wait, a claim of another host to our record is deleted: its owner lives.
//
//	Claim ──▶ the owner deletes it: refused ──▶ our identity: Fail(ErrCloned) │ else: Wait, Claim again after a minute
//	      └─▶ silence of 0.5 s or 3 s ──▶ the record may be taken, by a write that spends the claim
//
// A record is atomic: a host has a subnet of each family or none, and a conflict over one of them is a conflict of the
// record.
//
// The protocol is in relation.go (what a record is to us), survey.go (what all are), claims.go (does an owner live?),
// choose.go (which subnets?), decide.go (what next?), act.go (one action, one request) and step.go (decide and act, at
// what pace). A test bounds these files. Around it are keeper.go (what others may ask), run.go (list and watch),
// trail.go (is it the same store after a break?), stale.go (peers that the store has lost), config.go (the network
// configuration), status.go and messages.go (what people read), backoff.go (pauses).
package keeper
