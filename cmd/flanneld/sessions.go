package main

import (
	"net/netip"
	"slices"

	"flanneld/api"
	"flanneld/backend"
	"flanneld/backend/wireguard"
)

// encrypted is a backend whose tunnels have sessions.
type encrypted interface {
	Sessions() map[netip.Prefix]wireguard.Session // by subnet
}

// sessionsOf returns those of a backend, nil where there are none.
func sessionsOf(b backend.Backend) map[netip.Prefix]wireguard.Session {
	if g, ok := b.(*guarded); ok {
		b = g.Backend
	}
	if e, ok := b.(encrypted); ok {
		return e.Sessions()
	}
	return nil
}

// silent returns the subnets of the peers that do not answer handshakes, sorted.
func silent(sessions map[netip.Prefix]wireguard.Session) (out []netip.Prefix) {
	for p, s := range sessions {
		if s.Silent {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, netip.Prefix.Compare)
	return out
}

func wireSession(sessions map[netip.Prefix]wireguard.Session, subnet netip.Prefix) *api.Session {
	s, ok := sessions[subnet]
	if !ok {
		return nil
	}
	out := &api.Session{Endpoint: s.Endpoint, Received: s.Received, Sent: s.Sent, Silent: s.Silent}
	if !s.Handshake.IsZero() {
		at := s.Handshake.UTC()
		out.Handshake = &at
	}
	return out
}
