package main

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"flanneld/api"
	"flanneld/ip"
	"flanneld/probe"
)

// reachReport is what "flannelctl ping" has found out.
type reachReport struct {
	Address    netip.Addr      `json:"address"`
	Host       string          `json:"host"`
	PublicIP   netip.Addr      `json:"public_ip"`
	Subnet     netip.Prefix    `json:"subnet"`
	Path       string          `json:"path"` // device and gateway
	MTU        int             `json:"mtu"`  // of the network
	Sent       int             `json:"sent"`
	RoundTrips []time.Duration `json:"round_trips_ns"` // of those that were answered
	PathMTU    int             `json:"path_mtu"`       // the largest packet that was answered; 0 if none was
}

const reachWait = time.Second

func newPing(a *app) *cobra.Command {
	count := 3
	c := &cobra.Command{
		Use: "ping HOST|SUBNET|ADDRESS", Short: "Ping a host or a pod through the overlay, with path and path MTU",
		Long: `Sends ICMP echo requests through the overlay: to a pod, by its address, or to a host, by its name, subnet or
address on the underlay. Prints the device and gateway that the kernel chooses, the round trip times, and the
largest packet that is answered. A firewall on the way that drops ICMP looks like a broken path.
Exit code 3 if nothing is answered, or no packet of the network's MTU.`,
		Args: arguments(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if count < 1 {
				return misused(cmd, fmt.Errorf("--count is %d, want 1 or more", count))
			}
			r, err := reach(cmd.Context(), a, args[0], count)
			if err != nil {
				return err
			}
			if err := a.print(r, func(w page) { writeReach(w, r) }); err != nil {
				return err
			}
			if r.PathMTU < r.MTU {
				return errNotOK
			}
			return nil
		},
		ValidArgsFunction: completePeers(a),
	}
	c.Flags().IntVarP(&count, "count", "c", count, "`number` of packets")
	return c
}

func reach(ctx context.Context, a *app, text string, count int) (r reachReport, err error) {
	s, err := ask[api.Status](ctx, a, api.PathStatus)
	if err != nil {
		return r, err
	}
	peers, err := ask[[]api.Peer](ctx, a, api.PathPeers)
	if err != nil {
		return r, err
	}
	peer, addr, err := destination(text, s, peers)
	if err != nil {
		return r, err
	}
	r = reachReport{Address: addr, Host: peer.Host, PublicIP: peer.PublicIP, Subnet: peer.Subnet, MTU: s.MTU,
		RoundTrips: []time.Duration{}}
	r.Path, err = pathTo(addr)
	if err != nil {
		return r, err
	}
	p, err := dialPinger(ctx, addr)
	if err != nil {
		return r, fmt.Errorf("ping %s: %w", addr, err)
	}
	defer p.conn.Close()
	return r, r.measure(ctx, p, count)
}

func (r *reachReport) measure(ctx context.Context, p *pinger, count int) error {
	for ; r.Sent < count && ctx.Err() == nil; r.Sent++ {
		roundTrip, ok, err := p.ask(pingSize, reachWait)
		if err != nil {
			return err
		}
		if ok {
			r.RoundTrips = append(r.RoundTrips, roundTrip)
		}
	}
	if len(r.RoundTrips) == 0 {
		return ctx.Err()
	}
	for _, size := range append([]int{r.MTU}, probe.Sizes...) {
		if size > r.MTU {
			continue
		}
		for range pingTries {
			if _, ok, err := p.ask(size, pingWait); ok || err != nil || ctx.Err() != nil {
				r.PathMTU = size
				return err
			}
		}
	}
	return ctx.Err()
}

// destination finds the peer that is meant, and its address to ping.
func destination(text string, s api.Status, peers []api.Peer) (api.Peer, netip.Addr, error) {
	addr, notAddr := netip.ParseAddr(text)
	if notAddr == nil {
		for _, own := range s.Subnets {
			if own.Contains(addr) {
				return api.Peer{}, addr, usageError{fmt.Errorf("%s is in this host's own subnet %s: no packet to it uses "+
					"the overlay", addr, own)}
			}
		}
	}
	for _, p := range peers {
		switch {
		case notAddr == nil && p.Subnet.Contains(addr):
			return p, addr, nil
		case notAddr == nil && p.PublicIP == addr, p.Host == text && text != "", p.Subnet.String() == text:
			if len(s.Devices) == 0 {
				return p, p.PublicIP, nil // without a tunnel device a host has no address of its own in the overlay
			}
			return p, p.Subnet.Addr(), nil
		}
	}
	return api.Peer{}, addr, usageError{fmt.Errorf("no peer is or has %q, want a host name, a subnet, or the address "+
		"of a host or pod "+
		"(\"flannelctl peers\" lists the peers)", text)}
}

// pathTo returns the device and the gateway that the kernel chooses.
func pathTo(a netip.Addr) (string, error) {
	k, err := ip.NewKernel(slog.New(slog.DiscardHandler))
	if err != nil {
		return "", err
	}
	defer k.Close()
	hop, err := k.RouteTo(a)
	if err != nil || !hop.Via.IsValid() {
		return hop.Link, err
	}
	return fmt.Sprintf("%s via %s", hop.Link, hop.Via), nil
}

func writeReach(w page, r reachReport) {
	w.row("to", fmt.Sprintf("%s: host %s, %s, subnet %s", r.Address, cmp.Or(r.Host, "-"), r.PublicIP, r.Subnet))
	w.row("path", r.Path)
	text := fmt.Sprintf("%d of %d", len(r.RoundTrips), r.Sent)
	if len(r.RoundTrips) > 0 {
		text += fmt.Sprintf(", round trip %s to %s", slices.Min(r.RoundTrips).Round(time.Microsecond),
			slices.Max(r.RoundTrips).Round(time.Microsecond))
	}
	w.row("answers", text)
	switch {
	case len(r.RoundTrips) == 0:
		w.row("path MTU", "unknown; \"flannelctl doctor\" finds what is wrong")
	case r.PathMTU < r.MTU:
		w.row("path MTU", fmt.Sprintf("%d, smaller than the network's MTU of %d: large packets get lost", r.PathMTU, r.MTU))
	default:
		w.row("path MTU", fmt.Sprintf("%d or more", r.PathMTU))
	}
}
