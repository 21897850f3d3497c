package status

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"flanneld/api"
	"flanneld/firewall"
	"flanneld/probe"
	"flanneld/redact"
	"flanneld/subnet"
)

// Report collects the facts, those included that the kernel is asked for.
func (s *Status) Report() api.Status {
	findings := s.prober.Findings()
	s.mu.Lock()
	r, from := s.reportLocked(findings), s.from
	s.mu.Unlock()
	if from.Backend == nil {
		return r
	}
	fw := s.o.Firewall()
	r.Firewall, r.Drift["firewall"] = apiFirewall(fw), uint64(fw.Drift)
	r.Probes = summary(findings, from.Backend.PathMTU())
	r.Silent = silent(from.sessions())
	if from.Datapath != nil {
		r.Datapath, r.Path = from.Datapath.Counters(), from.Datapath.Path()
	}
	return r
}

// Public is Report for whoever may reach the health port: without what concerns this host's files and the store.
func (s *Status) Public() api.Status {
	r := s.Report()
	r.Daemon, r.Config = nil, redact.Config(r.Config)
	return r
}

func (s *Status) reportLocked(findings map[netip.Prefix]probe.Finding) api.Status {
	l := s.leaseLocked()
	r := s.fixed
	r.Ready, r.Drained = s.ready, s.drained
	r.State, r.Reasons = s.conditionLocked(l, findings).judge()
	r.Reason = strings.Join(r.Reasons, "; ")
	r.Network, r.Backend = s.view.Config.Networks(), s.view.Config.BackendType
	if json.Valid([]byte(s.view.Text)) {
		r.Config = redact.Text([]byte(s.view.Text))
	}
	r.Interface, r.Chosen, r.Addresses, r.PublicIPs = s.underlay.Link, s.underlay.Reason, s.underlay.Addrs,
		s.underlay.PublicAddrs
	r.Subnets = s.view.Own.Prefixes()
	r.Lease = s.ownLeaseLocked(l)
	r.Peers, r.Failing = s.view.Peers.Len(), s.failing.count(s.view.Peers, s.skippedLocked())
	r.Kept, r.Skipped = s.view.Status.Stale, s.view.Status.Skipped
	r.StoreReason, r.Pending, r.Passes = l.StoreError, l.Pending, s.passes
	r.Drift, r.Errors = map[string]uint64{}, s.o.Journal.Errors()
	if !l.StoreSince.IsZero() {
		since := l.StoreSince.UTC()
		r.StoreSince = &since
	}
	if m := s.from.Leases; m != nil {
		at := m.Position()
		r.Revision, r.Cluster = at.Revision, strconv.FormatUint(at.Cluster, 16)
	}
	if b := s.from.Backend; b != nil {
		r.MTU, r.Devices = b.MTU(), b.Scope().Links
		r.Drift = s.backendDriftLocked()
	}
	return r
}

func (s *Status) ownLeaseLocked(l subnet.Status) api.Lease {
	assigned := s.fixed.Daemon != nil && s.fixed.Daemon.Kubernetes // by a controller: neither leased nor reserved
	lease := api.Lease{Held: l.Held, Reservation: l.Held && s.view.Until.IsZero() && !assigned}
	if len(s.view.Self) > 0 && !s.view.Until.IsZero() {
		until := s.view.Until.UTC()
		lease.Until = &until
	}
	return lease
}

func apiFirewall(s firewall.PolicyStatus) *api.Firewall {
	f := api.Firewall{
		StrictIngress: s.Strict, Open: s.Open, Dropped: s.Dropped, NonPeers: []api.NonPeer{},
		Problems: append([]string{}, s.Problems...),
	}
	for _, one := range s.NonPeers {
		f.NonPeers = append(f.NonPeers, api.NonPeer{Address: one.Addr, Packets: one.Packets})
	}
	return &f
}

// line is the one that "systemctl status" shows.
func line(r api.Status) string {
	text := r.State
	if r.Ready {
		var subnets []string
		for _, p := range r.Subnets {
			subnets = append(subnets, p.String())
		}
		text += fmt.Sprintf(": %s, %s, %s", strings.Join(subnets, " "), r.Backend, api.Count(uint64(r.Peers), "peer"))
	}
	if r.Skipped > 0 {
		text += fmt.Sprintf(", %s skipped", api.Count(uint64(r.Skipped), "record"))
	}
	if r.Reason != "" {
		text += ": " + r.Reason
	}
	return text
}

// sessions returns the sessions of encrypted tunnels, by subnet.
func (s Sources) sessions() map[netip.Prefix]api.Session {
	if s.Sessions == nil {
		return nil
	}
	return s.Sessions()
}

// silent returns the subnets of the peers that do not answer handshakes, sorted.
func silent(sessions map[netip.Prefix]api.Session) (out []netip.Prefix) {
	for p, s := range sessions {
		if s.Silent {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, netip.Prefix.Compare)
	return out
}

// skippedLocked returns the peers that the last pass has left out, by subnet, and why.
func (s *Status) skippedLocked() map[netip.Prefix]string {
	if s.from.Backend == nil {
		return nil
	}
	return s.from.Backend.Skipped()
}
