package status

import (
	"net/netip"

	"flanneld/api"
	"flanneld/backend"
)

// SessionsOf returns what asks a backend for its sessions, by subnet of the peer; nil where there are none.
func SessionsOf(b backend.Planner) func() map[netip.Prefix]api.Session {
	e, ok := b.(backend.Encrypted)
	if !ok {
		return nil
	}
	return func() map[netip.Prefix]api.Session {
		out := map[netip.Prefix]api.Session{}
		for p, s := range e.Sessions() {
			one := api.Session{Endpoint: s.Endpoint, Received: s.Received, Sent: s.Sent, Silent: s.Silent}
			if !s.Handshake.IsZero() {
				at := s.Handshake.UTC()
				one.Handshake = &at
			}
			out[p] = one
		}
		return out
	}
}

// Of returns the sources for a backend.
func (s Sources) Of(b backend.Planner) Sources {
	s.Sessions = SessionsOf(b)
	s.Datapath, _ = b.(Datapath) // nil where the datapath is the kernel's
	return s
}
