package api

import "time"

// TokenRequest asks for a token with which hosts can join a secured store.
type TokenRequest struct {
	Valid  time.Duration `json:"valid_ns"`
	Member bool          `json:"member,omitempty"` // it also lets in members, which get the key of the authority
}

// Token lets hosts join.
type Token struct {
	ID      string    `json:"id"`
	State   string    `json:"state"` // valid, expired or revoked
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires"`
	Member  bool      `json:"member,omitempty"` // it also lets in members

	// Text is the token itself, in the answer to its creation only.
	Text     string   `json:"token,omitempty"`
	Services []string `json:"services,omitempty"` // HOST:PORT of the members, for -join
}

// JoinedHost is a host that has joined a secured store.
type JoinedHost struct {
	User    string    `json:"user"` // of etcd
	Host    string    `json:"host"`
	Address string    `json:"address,omitempty"` // that it has joined from
	Joined  time.Time `json:"joined"`
	Token   string    `json:"token,omitempty"` // the ID of the one that it has joined with
	Member  bool      `json:"member,omitempty"`
	Own     bool      `json:"own,omitempty"` // the host that answers
}

// Member is a member of a secured store.
type Member struct {
	ID      string `json:"id"`
	User    string `json:"user,omitempty"` // of its host
	Host    string `json:"host,omitempty"`
	Address string `json:"address,omitempty"` // for clients; empty: it has not started yet
	Peer    string `json:"peer,omitempty"`    // for other members
	Learner bool   `json:"learner,omitempty"` // it has no vote yet
	Leader  bool   `json:"leader,omitempty"`
	Healthy bool   `json:"healthy"`
	Own     bool   `json:"own,omitempty"` // that of the host that answers
}

// Restored says what a store has begun anew with.
type Restored struct {
	From   string       `json:"from,omitempty"` // path of the snapshot; empty: the data of the member
	Former []JoinedHost `json:"former"`         // hosts of the members that are none any more
}

// Named names what a request is about.
type Named struct {
	Name string `json:"name"`
}
