package status

import (
	"cmp"
	"encoding/json"
	"strconv"

	"flanneld/api"
	"flanneld/subnet"
)

// Leases returns all records of the network.
func (s *Status) Leases() api.Leases {
	s.mu.Lock()
	m := s.from.Leases
	s.mu.Unlock()
	out := api.Leases{Records: []api.Record{}}
	if m == nil {
		return out
	}
	at, records := m.Inventory()
	out.Revision = at.Revision
	for _, r := range records {
		out.Records = append(out.Records, wireRecord(r))
	}
	return out
}

func wireRecord(l subnet.Listed) api.Record {
	r := api.Record{
		Key: l.Key, Subnets: l.Prefixes(), Host: l.Host, Identity: l.Identity, Reservation: len(l.Leases) > 0 &&
			l.LeaseID == 0 && !l.Stale,
		Own: l.Own, Kept: l.Stale, Created: l.Created, Revision: l.Revision, Skipped: l.Skipped,
	}
	if l.LeaseID != 0 {
		r.Lease = strconv.FormatInt(int64(l.LeaseID), 16)
	}
	if !l.Since.IsZero() {
		r.Since = &l.Since
	}
	for _, lease := range l.Leases {
		r.PublicIPs = append(r.PublicIPs, lease.PublicIP)
		r.Backend = cmp.Or(r.Backend, lease.BackendType)
		for _, w := range lease.Ways() {
			r.Ways = append(r.Ways, api.Way{Subnet: lease.Subnet, Type: w.Type, Data: json.RawMessage(w.Data)})
		}
	}
	return r
}

// Peers returns all peers of the last pass, sorted by subnet.
func (s *Status) Peers() []api.Peer {
	s.mu.Lock()
	peers, failing, skipped, from := s.view.Peers, s.failing, s.skippedLocked(), s.from
	s.mu.Unlock()
	out := make([]api.Peer, 0, peers.Len())
	findings, sessions, traffic := s.prober.Findings(), from.sessions(), from.traffic()
	for l, r := range peers.Records() {
		why := cmp.Or(skipped[l.Subnet], failing.of(l))
		p := api.Peer{
			Subnet: l.Subnet, PublicIP: l.PublicIP, Host: r.Host, Backend: l.BackendType, Programmed: why == "", Reason: why,
		}
		if f, ok := findings[l.Subnet]; ok {
			p.Probe = wireProbe(f)
		}
		if session, ok := sessions[l.Subnet]; ok {
			p.Session = &session
		}
		p.Traffic = trafficOf(traffic, l.PublicIP, p.Session)
		out = append(out, p)
	}
	return out
}
