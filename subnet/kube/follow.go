package kube

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"flanneld/subnet"
	"flanneld/subnet/annotation"
)

// put takes in one node. The own one comes from the watch and as the answer to a write, and the later one counts: an
// answer may arrive after the watch has told what others have changed since.
func (s *Source) put(n *node) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.version = max(s.version, n.version)
	if n.name == s.o.Node {
		if n.version != 0 && n.version < s.ownAt {
			return
		}
		s.ownAt = n.version
		if s.own == nil || !s.own.same(n) {
			s.setOwnLocked(n)
		}
		return
	}
	before, known := s.nodes[n.name]
	if known && before.same(n) {
		return
	}
	s.nodes[n.name] = n
	s.revision++
	e, bad := s.entryLocked(n)
	switch {
	case e != nil:
		s.table.Apply(subnet.Event{Revision: s.revision, Put: e}, time.Time{})
	case bad != nil:
		s.table.Apply(subnet.Event{Revision: s.revision, Bad: bad}, time.Time{})
	default:
		s.table.Apply(subnet.Event{Revision: s.revision, Deleted: keyOf(n.name)}, time.Now().Add(linger))
	}
	s.yieldLocked(n)
	s.changed.Set()
}

// entryLocked returns what a node publishes, or what is wrong with that, or neither.
func (s *Source) entryLocked(n *node) (*subnet.Entry, *subnet.BadRecord) {
	r, err := s.o.Names.record(n, func(family int) bool {
		return slices.ContainsFunc(s.o.Config.Pools, func(p subnet.Pool) bool {
			return annotation.Family(p.Network.Addr().Is4()) == family
		})
	})
	switch {
	case errors.Is(err, errNotManaged):
		return nil, nil
	case err != nil:
		return nil, &subnet.BadRecord{Key: keyOf(n.name), Revision: s.revision, Err: err}
	}
	return &subnet.Entry{Record: r, Key: keyOf(n.name), Revision: s.revision, Created: n.created, LeaseID: assigned}, nil
}

// remove takes in that a node was deleted.
func (s *Source) remove(n *node) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n.name == s.o.Node {
		s.ownAt = n.version
		s.setOwnLocked(nil)
		return
	}
	delete(s.nodes, n.name)
	s.revision++
	s.table.Apply(subnet.Event{Revision: s.revision, Deleted: keyOf(n.name)}, time.Now().Add(linger))
	s.changed.Set()
}

// replace takes in a whole list. Peers that it lacks are retained for a while whenever it may be of another history of
// the API server: while the daemon runs nodes do not vanish without an event, and at start the list continues what the
// last run saw if our own node is still the same object.
func (s *Source) replace(nodes []*node) {
	s.mu.Lock()
	defer s.mu.Unlock()
	until := time.Now().Add(s.o.PeerGrace)
	if !s.listed && s.sameHistoryLocked(nodes) {
		until = time.Time{}
	}
	s.listed = true
	s.revision++
	s.nodes = make(map[string]*node, len(nodes))
	var own *node
	var entries []*subnet.Entry
	var bad []subnet.BadRecord
	for _, n := range nodes {
		s.version = max(s.version, n.version)
		if n.name == s.o.Node {
			own = n
			continue
		}
		s.nodes[n.name] = n
		e, b := s.entryLocked(n)
		if e != nil {
			entries = append(entries, e)
		}
		if b != nil {
			bad = append(bad, *b)
		}
	}
	s.table.Replace(subnet.Snapshot{Entries: entries, Bad: bad}, until)
	if s.ownAt = 0; own != nil {
		s.ownAt = own.version
	}
	s.setOwnLocked(own)
	for _, n := range nodes {
		if n.name != s.o.Node {
			s.yieldLocked(n)
		}
	}
	s.changed.Set()
}

func (s *Source) sameHistoryLocked(nodes []*node) bool {
	i := slices.IndexFunc(nodes, func(n *node) bool { return n.name == s.o.Node })
	if i < 0 || s.o.State.Own.Identity == "" || nodes[i].uid != s.o.State.Own.Identity {
		return false
	}
	return nodes[i].version >= s.o.State.Memory.Revision || nodes[i].version == 0 ||
		slices.ContainsFunc(nodes, func(n *node) bool {
			return n.version >= s.o.State.Memory.Revision
		})
}

// setOwnLocked takes in the own node; nil: it was deleted. Subnets that are in use stay until the node has others, or
// another node has them.
func (s *Source) setOwnLocked(n *node) {
	s.own = n
	defer s.publish.Set()
	defer s.changed.Set()
	if n == nil {
		s.status.Held = false
		s.waitLocked(fmt.Sprintf("node %s does not exist in the API: waiting until it registers", s.o.Node))
		return
	}
	prefixes, err := n.subnets(s.o.Config)
	if err != nil {
		s.status.Held = false
		s.waitLocked(err.Error())
		return
	}
	s.waitLocked("")
	s.status.Lost = false
	if !slices.Equal(prefixes, prefixesOf(s.self)) && len(s.self) > 0 {
		s.log.Warn("pod CIDRs of this node changed: recreate the pods that have addresses of the old ones",
			"old", prefixesOf(s.self), "new", prefixes)
	}
	s.setSelfLocked(prefixes)
}

// setSelfLocked takes subnets into use.
func (s *Source) setSelfLocked(prefixes []netip.Prefix) {
	var leases []subnet.Lease
	for _, p := range prefixes {
		leases = append(leases, subnet.Lease{Subnet: p, Attrs: s.o.Attrs(p)})
	}
	if s.own != nil {
		var wrong error
		if leases, wrong = s.o.Names.overwritten(s.own, leases); wrong != nil && wrong.Error() != s.notices {
			s.log.Warn("annotation ignored", "reason", wrong)
			s.notices = wrong.Error()
		}
	}
	if !slices.Equal(leases, s.self) {
		s.self = leases
		s.changed.Set()
	}
}

// yieldLocked gives the subnets up that another node has now, while the own node does not exist.
func (s *Source) yieldLocked(n *node) {
	if s.own != nil || len(s.self) == 0 {
		return
	}
	prefixes, err := n.prefixes()
	if err != nil {
		return
	}
	for _, p := range prefixes {
		if slices.ContainsFunc(s.self, func(l subnet.Lease) bool { return l.Subnet.Overlaps(p) }) {
			s.log.Error("subnet of this node assigned to another node: no packets are forwarded until this node has a "+
				"subnet again",
				"node", n.name, "subnet", p)
			s.self, s.status.Lost = nil, true
			return
		}
	}
}

// waitLocked says what the own node lacks; empty: nothing.
func (s *Source) waitLocked(why string) {
	if why != s.status.Waiting && why != "" {
		s.log.Warn("waiting for the subnets of this node", "reason", why)
	}
	s.status.Waiting = why
}

func prefixesOf(leases []subnet.Lease) []netip.Prefix {
	out := make([]netip.Prefix, len(leases))
	for i, l := range leases {
		out[i] = l.Subnet
	}
	return out
}

// differing returns what of the wanted annotations the node does not have, nil for those to be removed.
func differing(have, want map[string]string) map[string]*string {
	out := map[string]*string{}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		text := want[name]
		switch is, there := have[name]; {
		case text == "" && there:
			out[name] = nil
		case text != "" && is != text:
			out[name] = &text
		}
	}
	return out
}
