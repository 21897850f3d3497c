package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"flanneld/api"
)

func newStatus(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "One screen: identity, lease, store, device, peers, drift, warnings", Args: arguments(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := ask[api.Status](cmd.Context(), a, api.PathStatus)
			if err != nil {
				return err
			}
			if err := a.print(s, func(w page) { writeStatus(w, s) }); err != nil {
				return err
			}
			if !s.Ready {
				return errNotOK
			}
			return nil
		},
	}
}

func writeStatus(w page, s api.Status) {
	ready := "yes"
	if !s.Ready {
		ready = "no"
	}
	if s.Reason != "" {
		ready += ": " + s.Reason
	}
	w.row("ready", ready)
	w.row("host", fmt.Sprintf("%s (identity %s)", s.Host, s.Identity))
	w.row("version", fmt.Sprintf("%s, up %s", s.Version, time.Since(s.Started).Round(time.Second)))
	w.row("network", list(s.Network))
	w.row("lease", leaseText(s))
	w.row("backend", s.Backend)
	w.row("device", fmt.Sprintf("%s mtu %d", list(s.Devices), s.MTU))
	w.row("underlay", fmt.Sprintf("%s, %s, public %s (%s)", s.Interface, list(s.Addresses), list(s.PublicIPs), s.Chosen))
	w.row("store", storeText(s))
	w.row("peers", peersText(s))
	w.row("drift", driftText(s.Drift))
	if f := s.Firewall; f != nil {
		w.row("tunnel", tunnelText(*f))
	}
	w.row("passes", fmt.Sprintf("%d, %d failed, last %s, took %s", s.Passes.Count, s.Passes.Failed, ago(s.Passes.Last), s.Passes.Took.Round(time.Microsecond)))
	if p := s.Probes; p != nil {
		w.row("probes", fmt.Sprintf("of %d peers probed lately %d failing, %d of them one way, %d lose full packets, of %d no daemon answers", p.Peers, p.Failing, p.OneWay, p.SmallMTU, p.Silent))
	}
	if s.Pending != "" {
		w.row("pending", s.Pending)
	}
	for i, e := range s.Errors[max(0, len(s.Errors)-5):] {
		title := " " // an empty cell would be printed as a dash
		if i == 0 {
			title = "warnings"
		}
		w.row(title, fmt.Sprintf("%s %s %s", e.Time.Local().Format(time.DateTime), e.Message, e.Detail))
	}
}

// tunnelText says who may send to the tunnel, and who tried.
func tunnelText(f api.Firewall) string {
	text := "no port to guard"
	switch {
	case f.StrictIngress:
		text = "open to peers only"
	case f.Open != "":
		text = "open to anybody: " + f.Open
	}
	if f.Dropped > 0 {
		text += fmt.Sprintf(", %d packets of strangers dropped", f.Dropped)
	}
	if len(f.Strangers) > 0 {
		text += fmt.Sprintf(", most of late from %s", f.Strangers[0].Address)
	}
	return text
}

func leaseText(s api.Status) string {
	switch {
	case s.Drained:
		return "none: drained"
	case len(s.Subnets) == 0:
		return "none"
	}
	text := list(s.Subnets)
	switch {
	case s.Lease.Reservation:
		text += ", reserved"
	case s.Lease.Until != nil:
		text += ", " + time.Until(*s.Lease.Until).Round(time.Second).String() + " left"
	}
	if !s.Lease.Held {
		text += ", not confirmed by the store"
	}
	return text
}

func storeText(s api.Status) string {
	var at string
	if s.Daemon != nil {
		at = list(s.Daemon.Endpoints) + " under " + s.Daemon.Prefix + ", "
	}
	if s.StoreSince != nil {
		return at + "unreachable since " + s.StoreSince.Local().Format(time.DateTime) + ": " + s.StoreReason
	}
	return fmt.Sprintf("%sreachable, revision %d", at, s.Revision)
}

func peersText(s api.Status) string {
	text := fmt.Sprintf("%d ok, %d failing", s.Peers-s.Failing, s.Failing)
	if s.Kept > 0 {
		text += fmt.Sprintf(", %d kept that the store has lost", s.Kept)
	}
	if s.Skipped > 0 {
		text += fmt.Sprintf(", %d records skipped", s.Skipped)
	}
	return text
}

func driftText(drift map[string]uint64) string {
	var parts []string
	for _, kind := range slices.Sorted(maps.Keys(drift)) {
		if drift[kind] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", drift[kind], kind))
		}
	}
	if len(parts) == 0 {
		return "none"
	}
	return strings.Join(parts, ", ") + " repaired"
}

func newPeers(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "peers", Short: "All other hosts: subnet, address, whether the kernel knows them, last probe", Args: arguments(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			peers, err := ask[[]api.Peer](cmd.Context(), a, api.PathPeers)
			if err != nil {
				return err
			}
			err = a.print(peers, func(w page) {
				w.row("SUBNET", "ADDRESS", "HOST", "PROGRAMMED", "LOSS", "RTT", "PATH MTU", "PROBED", "REMARK")
				for _, p := range peers {
					writePeer(w, p)
				}
			})
			if err == nil && slices.ContainsFunc(peers, func(p api.Peer) bool { return !p.Programmed }) {
				return errNotOK
			}
			return err
		},
	}
}

func writePeer(w page, p api.Peer) {
	loss, rtt, mtu, at, remark := "", "", "", "", p.Reason
	if q := p.Probe; q != nil {
		loss = fmt.Sprintf("%d/%d", q.Lost, q.Sent)
		at = ago(q.At)
		if q.RoundTrip > 0 {
			rtt = q.RoundTrip.Round(time.Microsecond).String()
		}
		if q.PathMTU > 0 {
			mtu = fmt.Sprint(q.PathMTU)
		}
		switch {
		case remark != "":
		case q.OneWay:
			remark = "it reaches us, we do not reach it"
		case q.Refused > 0:
			remark = "packets arrive, no daemon answers probes"
		}
	}
	w.row(p.Subnet, p.PublicIP, p.Host, yes(p.Programmed), loss, rtt, mtu, at, remark)
}
