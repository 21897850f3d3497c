package main

import (
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"flanneld/api"
	"flanneld/backend/alloc"
	"flanneld/probe"
	"flanneld/subnet"
)

// probeSite tells the prober about this host and its peers. It computes anew only after a pass.
type probeSite struct {
	status *status
	used   func(link string) (map[netip.Addr]time.Duration, error)
	log    *slog.Logger
	asked  time.Time // when busy was called last; the prober's goroutine alone uses it

	mu   sync.Mutex // guards all below
	seen uint64     // passes
	last probe.Site
}

func (p *probeSite) site() probe.Site {
	p.status.mu.Lock()
	passes, v, u, from := p.status.passes.Count, p.status.view, p.status.underlay, p.status.from
	p.status.mu.Unlock()
	if from.backend == nil || v.Config.BackendType == alloc.Type || len(v.Self) == 0 {
		return probe.Site{}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if passes == p.seen {
		return p.last
	}
	// With a device, its address is in the tunnel; without one the packets travel as the host's own do.
	tunnel := len(from.backend.Scope().Links) > 0
	addr := func(l subnet.Lease) netip.Addr {
		if tunnel {
			return l.Subnet.Addr()
		}
		return l.PublicIP
	}
	site := probe.Site{MTU: from.backend.MTU()}
	for _, l := range v.Self {
		if tunnel {
			site.Locals = append(site.Locals, l.Subnet.Addr())
		} else {
			site.Locals = append(site.Locals, u.Addr(l.Subnet))
		}
	}
	for l, r := range v.Peers.Records() {
		site.Peers = append(site.Peers, probe.Peer{Subnet: l.Subnet, Addr: addr(l), Public: l.PublicIP, Silent: r.Identity == ""})
	}
	p.seen, p.last = passes, site
	return site
}

// busy returns the hosts that packets were sent to since it was called last. The udp backend keeps count of that. The kernel notes it
// in the FDB of vxlan devices and, of hosts on the same link, in its neighbour table: there about once in half a minute of traffic.
func (p *probeSite) busy() map[netip.Addr]bool {
	within := time.Duration(0) // the first time: what was sent by others before is no news
	if !p.asked.IsZero() {
		within = time.Since(p.asked)
	}
	p.asked = time.Now()
	p.status.mu.Lock()
	from, links := p.status.from, []string{p.status.underlay.Link}
	p.status.mu.Unlock()
	switch {
	case from.backend == nil:
		return nil
	case from.datapath != nil:
		return from.datapath.Used()
	}
	for device := range from.backend.MACs() {
		links = append(links, device)
	}
	out := map[netip.Addr]bool{}
	for _, link := range links {
		used, err := p.used(link)
		if err != nil {
			p.log.Debug("traffic of a link not known", "link", link, "error", err)
		}
		for a, ago := range used {
			out[a] = out[a] || ago < within
		}
	}
	return out
}

// wireProbe renders a finding.
func wireProbe(f probe.Finding) *api.Probe {
	return &api.Probe{At: f.At.UTC(), Sent: f.Sent, Lost: f.Lost, Refused: f.Refused, RoundTrip: f.RoundTrip, PathMTU: f.PathMTU, OneWay: f.OneWay, Version: f.Version}
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
