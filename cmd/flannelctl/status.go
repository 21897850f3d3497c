package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"flanneld/api"
)

func newStatus(a *app) *cobra.Command {
	return watchable(a, &cobra.Command{
		Use: "status", Short: "Show state, lease, store, device, peers and the last warnings of this host",
		Args: arguments(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := ask[api.Status](cmd.Context(), a, api.PathStatus)
			if err != nil {
				return err
			}
			if err := a.print(s, func(w page) { writeStatus(w, s) }); err != nil {
				return err
			}
			return stateError(stateOf(s))
		},
	})
}

// stateOf returns the state of the daemon. One of an earlier version does not tell the state degraded.
func stateOf(s api.Status) string {
	switch {
	case s.State != "":
		return s.State
	case s.Ready:
		return api.StateReady
	}
	return api.StateNotReady
}

func reasonsOf(s api.Status) []string {
	if s.State == "" && s.Reason != "" {
		return []string{s.Reason}
	}
	return s.Reasons
}

// stateError is what a command that shows the state returns.
func stateError(state string) error {
	switch state {
	case api.StateReady:
		return nil
	case api.StateDegraded:
		return errDegraded
	}
	return errNotOK
}

func writeStatus(w page, s api.Status) {
	w.row("state", stateOf(s))
	for _, reason := range reasonsOf(s) {
		w.row(" ", reason)
	}
	w.row("host", fmt.Sprintf("%s (identity %s)", s.Host, s.Identity))
	w.row("version", fmt.Sprintf("%s, up %s", s.Version, time.Since(s.Started).Round(time.Second)))
	w.row("network", list(s.Network))
	w.row("lease", leaseText(s))
	w.row("backend", s.Backend)
	w.row("device", deviceText(s))
	w.row("underlay", underlayText(s))
	w.row("store", storeText(s))
	w.row("peers", s.PeersText())
	w.row("repaired", s.Repaired())
	if f := s.Firewall; f != nil {
		w.row("tunnel port", tunnelText(*f))
	}
	w.row("reconciler", reconcilerText(s.Passes))
	if p := s.Probes; p != nil {
		w.row("probes", p)
	}
	if s.Pending != "" {
		w.row("pending", s.Pending)
	}
	warnings := unsaid(s)
	for i, e := range warnings[max(0, len(warnings)-mostWarnings):] {
		title := " " // an empty cell would be printed as a dash
		if i == 0 {
			title = "warnings"
		}
		w.row(title, fmt.Sprintf("%s %s %s", e.Time.Local().Format(stamp), e.Message, e.Detail))
	}
}

// mostWarnings bounds the warnings that are shown.
const mostWarnings = 5

// unsaid returns the last warnings without those that repeat what the reasons of the state say.
func unsaid(s api.Status) []api.Event {
	said := reasonsOf(s)
	if s.StoreReason != "" {
		said = append(slices.Clone(said), s.StoreReason)
	}
	return slices.DeleteFunc(slices.Clone(s.Errors), func(e api.Event) bool {
		return slices.ContainsFunc(said, func(reason string) bool {
			return reason != "" && strings.Contains(e.Detail, reason)
		})
	})
}

func deviceText(s api.Status) string {
	switch {
	case s.MTU == 0:
		return "" // not known yet
	case len(s.Devices) == 0:
		return fmt.Sprintf("none, mtu %d", s.MTU)
	}
	return fmt.Sprintf("%s mtu %d", list(s.Devices), s.MTU)
}

func underlayText(s api.Status) string {
	if s.Interface == "" {
		return "not chosen yet"
	}
	return fmt.Sprintf("%s, %s, public %s (%s)", s.Interface, list(s.Addresses), list(s.PublicIPs), s.Chosen)
}

func reconcilerText(p api.Passes) string {
	if p.Count == 0 {
		return "not run yet"
	}
	text := fmt.Sprintf("%s, %d failed, last %s in %s", plural(int(p.Count), "run"), p.Failed, ago(p.Last),
		p.Took.Round(time.Microsecond))
	if p.LastErr != "" {
		text += ": " + p.LastErr
	}
	return text
}

// tunnelText says who may send to the tunnel, and who tried.
func tunnelText(f api.Firewall) string {
	text := "the backend has no tunnel port"
	switch {
	case f.StrictIngress:
		text = "accepts packets from peers only"
	case f.Open != "":
		text = "accepts packets from any host: " + f.Open
	}
	if f.Dropped > 0 {
		text += fmt.Sprintf(", %s from other hosts dropped", plural(int(f.Dropped), "packet"))
	}
	if len(f.NonPeers) > 0 {
		text += fmt.Sprintf(", most of the recent ones from %s", f.NonPeers[0].Address)
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
	case s.Daemon != nil && s.Daemon.Kubernetes:
		text += ", from podCIDRs"
	case s.Lease.Reservation:
		text += ", reserved"
	case s.Lease.Until != nil:
		text += ", " + time.Until(*s.Lease.Until).Round(time.Second).String() + " left"
	}
	if !s.Lease.Held {
		text += ", not in the store"
	}
	return text
}

func storeText(s api.Status) string {
	var at string
	switch {
	case s.Daemon != nil && s.Daemon.Kubernetes:
		at = "the Kubernetes API, "
	case s.Daemon != nil:
		at = list(s.Daemon.Endpoints) + " under " + s.Daemon.Prefix + ", "
	}
	if s.StoreSince != nil {
		at += "unreachable since " + s.StoreSince.Local().Format(stamp)
		if slices.ContainsFunc(reasonsOf(s), func(reason string) bool { return strings.Contains(reason, s.StoreReason) }) {
			return at // the reasons have the error
		}
		return at + ": " + s.StoreReason
	}
	if s.Revision == 0 && !s.Ready {
		return at + "no records read yet"
	}
	return fmt.Sprintf("%sreachable, revision %d", at, s.Revision)
}

func newPeers(a *app) *cobra.Command {
	return watchable(a, &cobra.Command{
		Use: "peers", Short: "List all other hosts: subnet, address, routes installed, last probe", Args: arguments(0),
		Long: `Lists the subnets of all other hosts. INSTALLED says whether routes and forwarding entries to the peer are
in the kernel; LOSS, RTT and PATH MTU are from the last probe through the tunnel. With -o wide, SENT and
RECEIVED are bytes since the daemon was started; the backends udp and wireguard count them for each peer.
Exit code 3 if a peer is not installed or does not answer probes.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			peers, err := ask[[]api.Peer](cmd.Context(), a, api.PathPeers)
			if err != nil {
				return err
			}
			err = a.print(peers, func(w page) {
				w.row(a.wider([]any{"SUBNET", "ADDRESS", "HOST", "INSTALLED", "LOSS", "RTT", "PATH MTU", "PROBED"}, "SENT",
					"RECEIVED", "BACKEND", "VERSION", "REMARK")...)
				for _, p := range peers {
					a.writePeer(w, p)
				}
			})
			if err == nil && slices.ContainsFunc(peers, unreached) {
				return errNotOK
			}
			return err
		},
	})
}

// unreached reports whether packets to a peer get lost, as far as that is known.
func unreached(p api.Peer) bool {
	q := p.Probe
	return !p.Programmed || q != nil && (q.OneWay || q.Sent > 0 && q.Lost == q.Sent)
}

func (a *app) writePeer(w page, p api.Peer) {
	loss, rtt, mtu, at, version, remark := "", "", "", "", "", p.Reason
	if q := p.Probe; q != nil {
		loss = fmt.Sprintf("%d/%d", q.Lost, q.Sent)
		at, version = ago(q.At), q.Version
		if q.RoundTrip > 0 {
			rtt = q.RoundTrip.Round(time.Microsecond).String()
		}
		if q.PathMTU > 0 {
			mtu = fmt.Sprint(q.PathMTU)
		}
		remark = cmp.Or(remark, probeRemark(*q))
	}
	if p.Session != nil {
		remark = cmp.Or(remark, sessionRemark(*p.Session))
	}
	sent, received := "", ""
	if t := p.Traffic; t != nil {
		sent, received = api.Size(t.SentBytes), api.Size(t.ReceivedBytes)
	}
	w.row(a.wider([]any{p.Subnet, p.PublicIP, p.Host, yes(p.Programmed), loss, rtt, mtu, at}, sent, received, p.Backend,
		version, remark)...)
}

func sessionRemark(s api.Session) string {
	switch {
	case s.Silent:
		return "does not answer handshakes at " + s.Endpoint.String()
	case s.Handshake != nil:
		return "handshake " + ago(*s.Handshake)
	}
	return ""
}

func probeRemark(q api.Probe) string {
	switch {
	case q.OneWay:
		return "one way: its probes arrive, ours get no answer"
	case q.Refused > 0:
		return "packets arrive, its daemon does not answer probes"
	case q.Sent > 0 && q.Lost == q.Sent:
		return "no answer"
	}
	return ""
}
