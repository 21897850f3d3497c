package status

import (
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"flanneld/api"
	"flanneld/probe"
	"flanneld/subnet"
)

// probeSite tells the prober about this host and its peers. It computes anew only after a pass.
type probeSite struct {
	status *Status
	used   func(link string) (map[netip.Addr]time.Duration, error)
	log    *slog.Logger

	// Of the prober's goroutine alone:
	since time.Time // what was sent before is forgotten; zero: everything
	look  time.Time // when to read the kernel's tables again

	mu   sync.Mutex // guards all below
	seen uint64     // passes
	last probe.Site
}

func (p *probeSite) site() probe.Site {
	p.status.mu.Lock()
	passes, v, u, from := p.status.passes.Count, p.status.view, p.status.underlay, p.status.from
	p.status.mu.Unlock()
	if from.Backend == nil || from.NoProbes || len(v.Self) == 0 {
		return probe.Site{}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if passes == p.seen {
		return p.last
	}
	// With a device, its address is in the tunnel; without one the packets travel as the host's own do.
	tunnel := len(from.Backend.Scope().Links) > 0
	addr := func(l subnet.Lease) netip.Addr {
		if tunnel {
			return l.Subnet.Addr()
		}
		return l.PublicIP
	}
	site := probe.Site{MTU: from.Backend.PathMTU()}
	for _, l := range v.Self {
		if tunnel {
			site.Locals = append(site.Locals, l.Subnet.Addr())
		} else {
			site.Locals = append(site.Locals, u.Addr(l.Subnet))
		}
	}
	for l, r := range v.Peers.Records() {
		site.Peers = append(site.Peers,
			probe.Peer{Subnet: l.Subnet, Addr: addr(l), Public: l.PublicIP, Silent: r.Identity == ""})
	}
	site.Version = passes
	p.seen, p.last = passes, site
	return site
}

// lookPause is how long the kernel's tables are not read again, for each peer that is in them: with 10,000 it takes
// some 8 ms, and is done once in 50 s.
const lookPause = 5 * time.Millisecond

// busy returns the hosts that packets were sent to since forget. The udp backend keeps count of that. The kernel notes
// it in the FDB of vxlan devices and, of hosts on the same link, in its neighbour table: there about once in half a
// minute of traffic.
func (p *probeSite) busy() map[netip.Addr]bool {
	p.status.mu.Lock()
	from, links, peers := p.status.from, []string{p.status.underlay.Link}, p.status.view.Peers.Len()
	p.status.mu.Unlock()
	switch {
	case from.Backend == nil:
		return nil
	case from.Datapath != nil:
		return from.Datapath.Used()
	}
	start := time.Now()
	if p.since.IsZero() || start.Before(p.look) {
		return nil
	}
	within := start.Sub(p.since)
	for device := range from.Backend.MACs() {
		links = append(links, device)
	}
	out := map[netip.Addr]bool{}
	for _, link := range links {
		used, err := p.used(link)
		if err != nil {
			p.log.Debug("traffic counters of a link not available", "link", link, "error", err)
		}
		for a, ago := range used {
			if ago < within {
				out[a] = true
			}
		}
	}
	p.look = start.Add(time.Duration(peers) * lookPause)
	return out
}

// forget has what was sent so far count no more. It ends a round of probes, so that the state may be another.
func (p *probeSite) forget() {
	p.status.notify()
	p.since = time.Now()
	p.status.mu.Lock()
	from := p.status.from
	p.status.mu.Unlock()
	if from.Datapath != nil {
		from.Datapath.Used()
	}
}

// wireProbe renders a finding.
func wireProbe(f probe.Finding) *api.Probe {
	return &api.Probe{At: f.At.UTC(), Sent: f.Sent, Lost: f.Lost, Refused: f.Refused, RoundTrip: f.RoundTrip,
		PathMTU: f.PathMTU, OneWay: f.OneWay, Version: f.Version}
}

// summary counts findings.
func summary(findings map[netip.Prefix]probe.Finding, mtu int) *api.ProbeSummary {
	s := &api.ProbeSummary{Peers: len(findings)}
	for _, f := range findings {
		switch {
		case f.OneWay:
			s.OneWay++
			s.Failing++
		case f.Down():
			s.Failing++
		case f.Silent():
			s.Silent++
		case f.Small(mtu):
			s.SmallMTU++
		}
	}
	return s
}
