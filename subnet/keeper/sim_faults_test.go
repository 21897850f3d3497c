package keeper_test

import (
	"net/netip"
	"time"

	"flanneld/subnet"
	"flanneld/subnet/subnettest"
)

// fault decides what happens to a call of a host whose network is bad, and counts the calls of all.
func (h *simHost) fault(string) (f subnettest.Fault) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	if now.Sub(h.second) >= time.Second {
		h.calls, h.second = 0, now
	}
	if h.calls++; h.calls > simMostCalls {
		if h.calls == simMostCalls+1 {
			h.sim.mistake("host %d made more than %d calls within a second", h.n, simMostCalls)
		}
		f.Delay = time.Second // so that time goes on
	}
	if !h.faulty {
		return f
	}
	switch h.random.IntN(5) {
	case 0:
		f.Before = subnettest.ErrFault
	case 1:
		f.After = subnettest.ErrFault
	case 2:
		f.Delay = time.Duration(h.random.IntN(4000)) * time.Millisecond
	}
	return f
}

// simPauses follow the steps: from none to longer than the time to live.
var simPauses = []time.Duration{0, 0, time.Millisecond, 100 * time.Millisecond, time.Second, 3 * time.Second,
	6 * time.Second, 20 * time.Second, time.Minute, 2 * simTTL}

// step does one random thing, and lets time pass.
func (s *sim) step() {
	h := s.hosts[s.rng.IntN(len(s.hosts))]
	h.write()
	if n := s.rng.IntN(30); n < 20 {
		s.disturbHost(h, n)
	} else {
		s.disturbStore(n - 20)
	}
	after(simPauses[s.rng.IntN(len(simPauses))])
	s.unique()
}

func (s *sim) disturbHost(h *simHost, what int) {
	switch what {
	case 0, 1, 2, 3, 4:
		h.run()
	case 5:
		h.halt()
	case 6:
		h.halt()
		h.run()
	case 7: // a new disk: the identity is lost
		h.halt()
		h.become(s.identity(), subnet.State{})
	case 8:
		h.client.Cut(true)
		h.disturb(func() { h.cut = true })
	case 9, 10:
		h.client.Cut(false)
		h.disturb(func() { h.cut = false })
	case 11:
		h.disturb(func() { h.faulty = true })
	case 12, 13:
		h.disturb(func() { h.faulty = false })
	case 14:
		h.client.Lag(time.Duration(s.rng.IntN(5000)) * time.Millisecond)
		h.disturb(func() { h.lags = true })
	case 15:
		h.client.Lag(0)
		h.disturb(func() { h.lags = false })
	case 16: // a clone of another host's disk
		h.halt()
		from := s.hosts[s.rng.IntN(len(s.hosts))]
		from.mu.Lock()
		id, state := from.id, from.state
		from.mu.Unlock()
		h.become(id, state)
	case 17: // another address
		h.move(netip.AddrFrom4([4]byte{198, 51, byte(s.rng.IntN(256)), byte(h.n + 1)}))
	case 18: // the address of another host
		h.move(s.hosts[s.rng.IntN(len(s.hosts))].home())
	case 19:
		h.move(h.home())
	}
}

func (s *sim) disturbStore(what int) {
	s.shaken = time.Now()
	// With both families the pair is often a new one, whose halves stand in other records.
	var prefixes []netip.Prefix
	for _, p := range s.pools {
		prefixes = append(prefixes, p.At(s.rng.Uint64N(p.Size())))
	}
	switch what {
	case 0, 1:
		if e := s.server.Entries(); len(e) > 0 {
			s.server.Remove(e[s.rng.IntN(len(e))].Key)
		}
	case 2: // a reservation, perhaps over somebody's record
		s.server.Put(reservation(prefixes, netip.AddrFrom4([4]byte{203, 0, 113, byte(1 + s.rng.IntN(2))})))
	case 3: // a reservation for one of the hosts
		s.server.Put(reservation(prefixes, s.hosts[s.rng.IntN(len(s.hosts))].home()))
	case 4:
		s.server.PutBad(subnet.SubnetsFolder+subnet.Key(prefixes), "rubbish")
	case 5:
		s.server.Wipe()
	case 6:
		s.backup = s.server.Backup()
	case 7:
		s.server.Restore(s.backup)
		for range s.rng.IntN(3) * s.rng.IntN(20) { // the store may overtake hosts that are away
			s.server.SetConfig(s.config)
		}
	case 8:
		s.server.Compact()
	case 9:
		s.server.Disconnect()
	}
}

func reservation(prefixes []netip.Prefix, a netip.Addr) subnet.Record {
	r := subnet.Record{}
	for _, p := range prefixes {
		r.Leases = append(r.Leases, subnet.Lease{Subnet: p,
			Attrs: subnet.Attrs{PublicIP: inFamilyOf(p, a), BackendType: "vxlan"}})
	}
	return r
}
