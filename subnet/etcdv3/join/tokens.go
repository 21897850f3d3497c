package join

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Grant is what the store keeps of a token.
type Grant struct {
	ID      string    `json:"id"`
	Proof   []byte    `json:"proof"`
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires"`
	Revoked bool      `json:"revoked,omitempty"`
	Member  bool      `json:"member,omitempty"` // also lets in members, which get the key of the authority
}

// State says in one word what the token is worth.
func (g Grant) State(now time.Time) string {
	switch {
	case g.Revoked:
		return "revoked"
	case now.After(g.Expires):
		return "expired"
	}
	return "valid"
}

// Why a token is refused.
var (
	ErrUnknown = errors.New("the store does not know this token: it was made for another store, or it expired more " +
		"than a week ago; make a new one with \"flannelctl token create\" on a member")
	ErrExpired = errors.New("the token has expired: make a new one with \"flannelctl token create\" on a member of the " +
		"store")
	ErrRevoked = errors.New("the token was revoked: make a new one with \"flannelctl token create\" on a member of the " +
		"store")
	ErrNoToken = errors.New("no such token")
)

// remembered is how long the store knows of a token that has expired, to say so.
const remembered = 7 * 24 * time.Hour

// Bounds of the time that a token is valid.
const (
	leastExpiry = time.Minute
	mostExpiry  = 365 * 24 * time.Hour
)

// Terms are what a token is made for.
type Terms struct {
	Valid  time.Duration
	Member bool // it also lets in members
}

// CreateToken makes a token for a store with the authority.
func (a *Admin) CreateToken(ctx context.Context, ca [sha256.Size]byte, terms Terms) (Token, Grant, error) {
	valid := terms.Valid
	if valid < leastExpiry || valid > mostExpiry {
		return Token{}, Grant{}, fmt.Errorf("a token is valid for %s to %s, not for %s", leastExpiry, mostExpiry, valid)
	}
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	t, now := NewToken(ca), time.Now().UTC()
	g := Grant{ID: t.ID, Proof: t.proof(), Created: now, Expires: now.Add(valid), Member: terms.Member}
	text, err := json.Marshal(g)
	if err != nil {
		return Token{}, Grant{}, err
	}
	lease, err := a.client.Grant(ctx, int64((valid+remembered)/time.Second))
	if err == nil {
		_, err = a.client.Put(ctx, tokensKey+t.ID, string(text), clientv3.WithLease(lease.ID))
	}
	if err != nil {
		return Token{}, Grant{}, fmt.Errorf("create token: %w", err)
	}
	return t, g, nil
}

// Tokens returns all that the store knows, sorted by ID.
func (a *Admin) Tokens(ctx context.Context) ([]Grant, error) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	resp, err := a.client.Get(ctx, tokensKey, clientv3.WithPrefix())
	if err != nil {
		return nil, fmt.Errorf("list tokens: %w", err)
	}
	out := make([]Grant, 0, len(resp.Kvs))
	for _, kv := range resp.Kvs {
		var g Grant
		if json.Unmarshal(kv.Value, &g) == nil {
			out = append(out, g)
		}
	}
	return out, nil
}

// grant returns what the store keeps of a token, and the revision of it.
func (a *Admin) grant(ctx context.Context, id string) (g Grant, revision int64, err error) {
	resp, err := a.client.Get(ctx, tokensKey+id)
	switch {
	case err != nil:
		return Grant{}, 0, fmt.Errorf("look up token: %w", err)
	case len(resp.Kvs) == 0:
		return Grant{}, 0, ErrNoToken
	}
	if err := json.Unmarshal(resp.Kvs[0].Value, &g); err != nil {
		return Grant{}, 0, fmt.Errorf("token %s in the store: %w", id, err)
	}
	return g, resp.Kvs[0].ModRevision, nil
}

// RevokeToken has nobody join with a token any more. Hosts that have joined with it stay.
func (a *Admin) RevokeToken(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	if !validID(id) {
		return ErrNoToken
	}
	g, revision, err := a.grant(ctx, id)
	if err != nil {
		return err
	}
	g.Revoked = true
	text, err := json.Marshal(g)
	if err != nil {
		return err
	}
	resp, err := a.client.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(tokensKey+id), "=", revision)).
		Then(clientv3.OpPut(tokensKey+id, string(text), clientv3.WithIgnoreLease())).Commit()
	if err == nil && !resp.Succeeded {
		err = errors.New("it was changed at the same time, try again")
	}
	if err != nil {
		return fmt.Errorf("revoke token %s: %w", id, err)
	}
	return nil
}

// Admits says why a token is refused; nil: whoever has it may join, also as a member if the grant says so. Only who has
// the secret learns more than that the token is not known.
func (a *Admin) Admits(ctx context.Context, t Token, now time.Time) (Grant, error) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	g, _, err := a.grant(ctx, t.ID)
	if err != nil && !errors.Is(err, ErrNoToken) {
		return g, err
	}
	switch {
	case !t.proves(g.Proof): // also without a grant
		return g, ErrUnknown
	case g.Revoked:
		return g, ErrRevoked
	case now.After(g.Expires):
		return g, ErrExpired
	}
	return g, nil
}
