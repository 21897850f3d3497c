package embedded

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"flanneld/subnet/etcdv3/authority"
	"flanneld/subnet/etcdv3/join"
)

// Created is a token for those that are to join.
type Created struct {
	join.Token
	Expires  time.Time
	Services []string // HOST:PORT
}

// CreateToken makes a token.
func (m *Member) CreateToken(ctx context.Context, terms join.Terms) (Created, error) {
	ca, err := m.folder.CACertificate()
	if err != nil {
		return Created{}, err
	}
	t, g, err := m.admin.CreateToken(ctx, authority.Hash(ca), terms)
	if err != nil {
		return Created{}, err
	}
	_, services, err := m.reached(ctx, m.address())
	return Created{t, g.Expires, services}, err
}

// address returns the first address of this host that others may reach, for a member that listens on all of them.
func (m *Member) address() netip.Addr {
	if own, _ := hostAddresses(); len(own) > 0 { // none says as much
		return own[0]
	}
	return m.o.Listen.Addr()
}

// Tokens returns those that the store knows.
func (m *Member) Tokens(ctx context.Context) ([]join.Grant, error) { return m.admin.Tokens(ctx) }

// RevokeToken has nobody join with a token any more.
func (m *Member) RevokeToken(ctx context.Context, id string) error {
	return m.admin.RevokeToken(ctx, id)
}

// Hosts returns those that have joined, and the user of this one.
func (m *Member) Hosts(ctx context.Context) (hosts []join.Host, own string, err error) {
	hosts, err = m.admin.Hosts(ctx)
	return hosts, m.joined.User, err
}

// RemoveHost shuts a host out, named by its host name or its user.
func (m *Member) RemoveHost(ctx context.Context, name string) (join.Host, error) {
	hosts, err := m.admin.Hosts(ctx)
	if err != nil {
		return join.Host{}, err
	}
	var found []join.Host
	for _, h := range hosts {
		if h.User == name || h.Name == name {
			found = append(found, h)
		}
	}
	switch {
	case len(found) == 0:
		return join.Host{}, fmt.Errorf("no host %q has joined", name)
	case len(found) > 1:
		return join.Host{}, fmt.Errorf("%d hosts are named %q: give the user of the one to remove", len(found), name)
	case found[0].Member:
		return join.Host{}, errors.New("this host is a member of the store: \"flannelctl members remove\" removes it")
	}
	if err := m.admin.RemoveHost(ctx, found[0]); err != nil {
		return join.Host{}, err
	}
	m.remember(ctx)
	m.o.Log.Info("host removed from the store", "host", found[0].Name, "user", found[0].User)
	return found[0], nil
}
