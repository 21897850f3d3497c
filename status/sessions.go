package status

import (
	"net/netip"
	"strings"

	"flanneld/api"
	"flanneld/backend"
)

// Of returns the sources for backends, the preferred one first.
func (s Sources) Of(backends ...backend.Planner) Sources {
	s.Sessions, s.Datapath, s.Counting = nil, nil, nil
	var encrypted []backend.Encrypted
	var all datapaths
	for _, b := range backends {
		if e, ok := b.(backend.Encrypted); ok {
			encrypted = append(encrypted, e)
		}
		if c, ok := b.(backend.Counting); ok {
			s.Counting = append(s.Counting, c)
		}
		if d, ok := b.(Datapath); ok { // not where the datapath is the kernel's
			all = append(all, d)
		}
	}
	if len(encrypted) > 0 {
		s.Sessions = func() map[netip.Prefix]api.Session { return sessionsOf(encrypted) }
	}
	if len(all) > 0 {
		s.Datapath = all
	}
	return s
}

// sessionsOf returns the sessions of all peers, by subnet.
func sessionsOf(backends []backend.Encrypted) map[netip.Prefix]api.Session {
	out := map[netip.Prefix]api.Session{}
	for _, b := range backends {
		for p, s := range b.Sessions() {
			one := api.Session{Endpoint: s.Endpoint, Received: s.Received, Sent: s.Sent, Silent: s.Silent}
			if !s.Handshake.IsZero() {
				at := s.Handshake.UTC()
				one.Handshake = &at
			}
			out[p] = one
		}
	}
	return out
}

// traffic says what was carried for each peer, by its public address, as far as a datapath counts it.
func (s Sources) traffic() map[netip.Addr]api.Traffic {
	out := map[netip.Addr]api.Traffic{}
	for _, c := range s.Counting {
		for host, t := range c.Traffic() {
			out[host] = out[host].Add(api.Traffic(t))
		}
	}
	return out
}

// trafficOf adds what an encrypted tunnel has counted of a peer; nil: nobody counts.
func trafficOf(counted map[netip.Addr]api.Traffic, host netip.Addr, session *api.Session) *api.Traffic {
	t, ok := counted[host]
	if session != nil {
		t, ok = t.Add(api.Traffic{SentBytes: uint64(session.Sent), ReceivedBytes: uint64(session.Received)}), true
	}
	if !ok {
		return nil
	}
	return &t
}

// datapaths are those of several backends.
type datapaths []Datapath

// Counters implements Datapath.
func (d datapaths) Counters() map[string]uint64 {
	out := map[string]uint64{}
	for _, one := range d {
		for name, n := range one.Counters() {
			out[name] += n
		}
	}
	return out
}

// Path implements Datapath.
func (d datapaths) Path() string {
	var out []string
	for _, one := range d {
		if path := one.Path(); path != "" {
			out = append(out, path)
		}
	}
	return strings.Join(out, "; ")
}

// Used implements Datapath.
func (d datapaths) Used() map[netip.Addr]bool {
	out := map[netip.Addr]bool{}
	for _, one := range d {
		for a, used := range one.Used() {
			out[a] = out[a] || used
		}
	}
	return out
}
