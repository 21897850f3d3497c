package subnettest

import (
	"net/netip"
	"slices"
	"strings"

	"flanneld/subnet"
)

// conflictLocked returns the conflict with what stands in the way of a record: at its key, or with one of its prefixes.
// The records at the keys except are about to go. Of several it is the first by key.
func (s *Server) conflictLocked(r subnet.Record, except ...string) error {
	first := ""
	look := func(key string) {
		inTheWay := key == r.Key() || !r.Claim && shares(key, r)
		if inTheWay && !slices.Contains(except, key) && (first == "" || key < first) {
			first = key
		}
	}
	for key := range s.entries {
		look(key)
	}
	for key := range s.bad {
		look(key)
	}
	if first == "" {
		return nil
	}
	return s.conflictAtLocked(first)
}

// shares reports whether the key of a record has one of the prefixes.
func shares(key string, r subnet.Record) bool {
	name, ok := strings.CutPrefix(key, subnet.SubnetsFolder)
	if !ok {
		return false
	}
	prefixes, _ := subnet.ParseKey(name)
	return slices.ContainsFunc(r.Prefixes(), func(p netip.Prefix) bool { return slices.Contains(prefixes, p) })
}

// conflictAtLocked returns the conflict with what stands at a key.
func (s *Server) conflictAtLocked(key string) error {
	c := &subnet.ConflictError{Key: key}
	if e, ok := s.entries[key]; ok {
		c.Current = &e
	} else if b, ok := s.bad[key]; ok {
		c.Bad = &b
	}
	return c
}

func (s *Server) create(client string, r subnet.Record, id subnet.LeaseID) (subnet.Entry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if id != 0 && s.leases[id] == nil {
		return subnet.Entry{}, subnet.ErrLeaseGone
	}
	if err := s.conflictLocked(r); err != nil {
		return subnet.Entry{}, err
	}
	e := s.putLocked(r, id)
	s.notedLocked(Write{client, nil, &e})
	return e, nil
}

func (s *Server) update(client string, old subnet.Entry, r subnet.Record, id subnet.LeaseID,
	spent []subnet.Entry) (subnet.Entry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if id != 0 && s.leases[id] == nil {
		return subnet.Entry{}, subnet.ErrLeaseGone
	}
	now, ok := s.entries[old.Key]
	if !ok || !same(now, old) {
		return subnet.Entry{}, s.conflictAtLocked(old.Key)
	}
	if err := s.standLocked(spent); err != nil {
		return subnet.Entry{}, err
	}
	if r.Key() != old.Key {
		except := []string{old.Key}
		for _, e := range spent {
			except = append(except, e.Key)
		}
		if err := s.conflictLocked(r, except...); err != nil {
			return subnet.Entry{}, err
		}
		s.removeLocked(old.Key)
	}
	s.spendLocked(client, spent)
	e := s.putLocked(r, id)
	s.notedLocked(Write{client, &now, &e})
	return e, nil
}

// standLocked returns the conflict with the first of some entries that does not stand unchanged.
func (s *Server) standLocked(spent []subnet.Entry) error {
	for _, c := range spent {
		if now, ok := s.entries[c.Key]; !ok || !same(now, c) {
			return s.conflictAtLocked(c.Key)
		}
	}
	return nil
}

// spendLocked deletes what a write goes by, or replaces as well.
func (s *Server) spendLocked(client string, spent []subnet.Entry) {
	for _, c := range spent {
		s.removeLocked(c.Key)
		s.notedLocked(Write{client, &c, nil})
	}
}

// same reports whether an entry is unchanged, and not one of another history that has the same revision by chance.
func same(a, b subnet.Entry) bool {
	return a.Revision == b.Revision && a.Created == b.Created && a.LeaseID == b.LeaseID &&
		(a.LeaseID != 0 || a.Record.Equal(b.Record))
}

func (s *Server) remove(client string, old subnet.Entry, spent []subnet.Entry) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if bad, ok := s.bad[old.Key]; ok && old.Claim && old.Revision == bad.Revision {
		s.removeLocked(old.Key)
		return nil
	}
	now, ok := s.entries[old.Key]
	if _, bad := s.bad[old.Key]; bad || ok && !same(now, old) {
		return s.conflictAtLocked(old.Key)
	}
	if !ok {
		return nil
	}
	if err := s.standLocked(spent); err != nil {
		return err
	}
	s.spendLocked(client, spent)
	s.removeLocked(old.Key)
	s.notedLocked(Write{client, &now, nil})
	return nil
}
