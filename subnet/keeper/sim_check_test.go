package keeper_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"flanneld/subnet"
	"flanneld/subnet/subnettest"
)

const (
	// simLives is how long a host must have been undisturbed before it counts as living, and before two hosts on one
	// subnet count as a mistake: the time in which a loss must be noticed.
	simLives = 5 * time.Second
	// simMostCalls is what a host may ask of the store within a second.
	simMostCalls = 40
)

func (s *sim) mistake(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mistakes = append(s.mistakes, time.Now().Format("15:04:05.000 ")+fmt.Sprintf(format, args...))
}

// livesForLocked reports whether nothing has disturbed the host for a while.
func (h *simHost) livesForLocked(d time.Duration) bool {
	return !h.well.IsZero() && time.Since(h.well) >= d
}

// usesLocked reports whether the host runs on just the subnets of a record. One that has only one subnet of a pair in
// use is not the record of this host: a record is atomic, and what protects a pair is the record of the pair. Such a
// record is an old one of the host, which a restored store has again. If the host has a record of its pair, that
// protects both subnets, and the old one is deleted. If another host has taken a subnet of the pair, the whole pair is
// lost, under the policy hold as well: then the host has no record to keep alive, nor may it keep one of the subnets
// from others for as long as it waits. So the old record may expire.
func (h *simHost) usesLocked(r subnet.Record) bool {
	return slices.Equal(subnet.Record{Leases: h.manager.View().Self}.Prefixes(), r.Prefixes())
}

// check is called for every write of a host, and for every record that expires.
func (s *sim) check(w subnettest.Write) {
	if b := w.Before; b != nil && !b.Claim {
		s.checkOwner(w)
	}
	if w.Client == "" {
		return
	}
	n, _ := strconv.Atoi(w.Client)
	h := s.hosts[n]
	h.mu.Lock()
	defer h.mu.Unlock()
	a, b := w.After, w.Before
	if a != nil && !h.ids[a.Identity] {
		s.mistake("host %d wrote a record of %s", n, a.Identity)
	}
	if a != nil && !a.Claim && a.LeaseID == 0 && (b == nil || b.LeaseID != 0) {
		s.mistake("host %d made a reservation of %s", n, a.Key)
	}
	if b == nil || b.Claim {
		return
	}
	if b.LeaseID == 0 && (a == nil || a.LeaseID != 0) {
		s.mistake("host %d ended the reservation %s", n, b.Key)
	}
	if !h.ids[b.Identity] && !h.addresses[addressOf(b.Record)] {
		s.mistake("host %d wrote over %s of %s", n, b.Key, b.Record)
	}
}

// checkOwner looks whether the host whose record is changed or expires is another one, and lives.
func (s *sim) checkOwner(w subnettest.Write) {
	for _, h := range s.hosts {
		if w.Client == fmt.Sprint(h.n) {
			continue
		}
		h.mu.Lock()
		b := w.Before
		switch own := h.id == b.Identity && h.name() == b.Host && h.address == addressOf(b.Record); {
		case own && w.Client != "" && h.livesForLocked(simLives) && h.usesLocked(b.Record):
			s.mistake("host %s took %s from host %d, which lives", w.Client, w.Before.Key, h.n)
		case own && w.Client == "" && h.livesForLocked(simTTL) && h.usesLocked(b.Record):
			s.mistake("the record %s of host %d, which lives, expired", w.Before.Key, h.n)
		}
		h.mu.Unlock()
	}
}

// unique looks for two living hosts on one subnet. A store that has just lost or changed records may have given a
// subnet away before its host could notice.
func (s *sim) unique() {
	if time.Since(s.shaken) < simLives {
		return
	}
	holders := map[netip.Prefix]int{}
	for _, h := range s.hosts {
		h.mu.Lock()
		m, lives := h.manager, h.livesForLocked(simLives)
		h.mu.Unlock()
		if m == nil || !lives {
			continue
		}
		v := m.View()
		if !v.Status.Held || len(v.Self) == 0 {
			continue
		}
		if len(v.Self) != len(s.pools) {
			s.mistake("host %d holds %v of %d subnets", h.n, v.Self, len(s.pools))
		}
		for _, l := range v.Self {
			if other, ok := holders[l.Subnet]; ok {
				s.mistake("hosts %d and %d both hold %s", other, h.n, l.Subnet)
			}
			holders[l.Subnet] = h.n
		}
	}
}

// settle ends all faults, and looks whether every host gets a subnet of its own and sees what the store has.
func (s *sim) settle() {
	for _, h := range s.hosts {
		h.client.Cut(false)
		h.client.Lag(0)
		h.disturb(func() { h.cut, h.faulty, h.lags = false, false, false })
		h.move(h.home())
		h.run()
	}
	// The longest waits: records of the dead expire, and a refused claim is asked again after a minute, once for each host
	// in a chain of hosts that have each other's addresses.
	after(simTTL + simHosts*time.Minute)
	s.unique()
	for _, h := range s.waiting() {
		if s.hasFree() {
			s.mistake("host %d has no subnet although some are free: %s", h.n, h.manager.Status().Waiting)
			return
		}
	}
	if len(s.waiting()) > 0 {
		s.free()
	}
	for _, h := range s.hosts {
		if v := h.manager.View(); v.Status.Held {
			s.checkView(h)
		} else if h.holds(v) {
			s.checkLost(h)
		}
	}
}

// free frees one subnet of a full pool. Somebody must take it within 2 s.
func (s *sim) free() {
	before, waited := s.announced(), len(s.without())
	for _, e := range s.server.Entries() {
		if e.Identity == "" {
			s.server.Remove(e.Key)
			free := s.hasFree()
			after(2 * time.Second)
			if slices.ContainsFunc(s.server.Entries(), func(e subnet.Entry) bool { return e.Claim }) {
				after(4 * time.Second) // somebody asks first whether the owner of a record with its address lives
			}
			if free && s.announced() <= before && len(s.without()) >= waited {
				s.mistake("%d hosts wait after %s was freed, %d before", len(s.without()), e.Key, waited)
			}
			return
		}
	}
}

// announced returns how many subnets hosts have written.
func (s *sim) announced() (n int) {
	for _, e := range s.server.Entries() {
		if e.Identity != "" && !e.Claim {
			n += len(e.Leases)
		}
	}
	return n
}

// without returns the hosts that do not have all their subnets, waiting those of them that would take any.
func (s *sim) without() (out []*simHost) {
	for _, h := range s.hosts {
		if v := h.manager.View(); len(v.Self) == 0 || !v.Status.Held {
			out = append(out, h)
		}
	}
	return out
}

func (s *sim) waiting() []*simHost {
	return slices.DeleteFunc(s.without(), func(h *simHost) bool { return h.holds(h.manager.View()) })
}

// holds reports whether a host waits for a subnet that it has lost.
func (h *simHost) holds(v subnet.View) bool { return v.Status.Lost && h.policy == subnet.LostHold }

// checkLost looks whether another record has a subnet that the host waits for.
func (s *sim) checkLost(h *simHost) {
	v := h.manager.View()
	entries := s.server.Entries()
	for _, key := range s.server.Keys() {
		prefixes, _ := subnet.ParseKey(strings.TrimPrefix(key, subnet.SubnetsFolder))
		ours := key == v.Own.Key() && slices.ContainsFunc(entries,
			func(e subnet.Entry) bool { return e.Key == key && e.Identity == h.id })
		if !ours && slices.ContainsFunc(v.Self, func(l subnet.Lease) bool { return slices.Contains(prefixes, l.Subnet) }) {
			return
		}
	}
	s.mistake("host %d waits although nobody has a subnet of its %v: %s", h.n, v.Self, v.Status.Waiting)
}

// hasFree reports whether a subnet of each family is free.
func (s *sim) hasFree() bool {
	taken := map[netip.Prefix]bool{}
	for _, key := range s.server.Keys() {
		prefixes, _ := subnet.ParseKey(strings.TrimPrefix(key, subnet.SubnetsFolder))
		for _, p := range prefixes {
			taken[p] = true
		}
	}
	return !slices.ContainsFunc(s.pools, func(p subnet.Pool) bool {
		for i := range p.Size() {
			if !taken[p.At(i)] {
				return false
			}
		}
		return true
	})
}

// checkView compares what a host knows with what the store has.
func (s *sim) checkView(h *simHost) {
	v := h.manager.View()
	own, want := v.Own.Prefixes(), map[netip.Prefix]bool{}
	found := false
	for _, e := range s.server.Entries() {
		switch {
		case e.Key == v.Own.Key():
			found = e.Identity == h.id && addressOf(e.Record) == h.address
		case e.Claim || addressOf(e.Record) == h.address:
		default:
			for _, p := range e.Prefixes() {
				want[p] = !slices.Contains(own, p)
			}
		}
	}
	if !found {
		s.mistake("host %d holds %v, which the store does not have", h.n, own)
	}
	for p := range v.Peers.All() {
		if !want[p.Subnet] {
			s.mistake("host %d sees the peer %s, which the store does not have", h.n, p)
		}
		delete(want, p.Subnet)
	}
	for p, missing := range want {
		if missing {
			s.mistake("host %d does not see the peer %s", h.n, p)
		}
	}
}
