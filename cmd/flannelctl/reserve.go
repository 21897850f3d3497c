package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/spf13/cobra"

	"flanneld/doctor"
	"flanneld/subnet"
	"flanneld/subnet/etcdv3"
)

func newReserve(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "reserve HOST|ADDRESS SUBNET", Short: "Reserve a subnet for one host",
		Long: `Reserves a subnet for one host, named by its host name (if it has a lease now) or by its public address.
A reservation does not expire. If the host has a lease of this subnet, the lease becomes the reservation;
otherwise the host takes the reserved subnet when its daemon restarts.
On a dual-stack network, give both subnets, separated by a comma; if you give an address, give both addresses.`,
		Args: arguments(2), ValidArgsFunction: completeHosts(a),
		RunE: func(cmd *cobra.Command, args []string) error {
			prefixes, err := parseSubnets(args[1])
			if err != nil {
				return usageError{err}
			}
			return a.withStore(cmd.Context(), func(s *etcdv3.Store) error {
				text, err := reserve(cmd.Context(), s, args[0], prefixes)
				if err != nil {
					return err
				}
				return a.say(text)
			})
		},
	}
}

// outcome is what commands print that change something.
type outcome struct {
	Done string `json:"done"`
}

func (a *app) say(text string) error {
	return a.print(outcome{text}, func(w page) { w.line("%s", text) })
}

// reserve checks all rules and then writes, so that nobody's record is ever overwritten.
func reserve(ctx context.Context, s *etcdv3.Store, host string, prefixes []netip.Prefix) (string, error) {
	snap, err := s.List(ctx)
	if err != nil {
		return "", err
	}
	config, err := subnet.ParseConfig(snap.Config)
	if err != nil {
		return "", fmt.Errorf("network configuration in the store: %w", err)
	}
	if err := checkSubnets(config, prefixes); err != nil {
		return "", err
	}
	own, record, err := recordFor(snap.Entries, host, prefixes)
	if err != nil {
		return "", err
	}
	for i := range record.Leases {
		record.Leases[i].BackendType = cmp.Or(record.Leases[i].BackendType, config.BackendType)
	}
	if e, held := doctor.Holder(snap, prefixes); held {
		return keepHeld(ctx, s, e, record)
	}
	if _, err := s.Create(ctx, record, 0); err != nil {
		return "", err
	}
	text := fmt.Sprintf("%s is reserved for %s", list(prefixes), record)
	if own != "" {
		text += fmt.Sprintf(", which has %s now and moves when its flanneld is restarted", own)
	}
	return text, nil
}

// keepHeld makes a record that stands there a reservation, if it is that of the host.
func keepHeld(ctx context.Context, s *etcdv3.Store, e subnet.Entry, want subnet.Record) (string, error) {
	same := e.Identity != "" && e.Identity == want.Identity
	for i, l := range e.Leases {
		same = same || i < len(want.Leases) && l.PublicIP == want.Leases[i].PublicIP
	}
	switch {
	case !same || e.Key != want.Key():
		return "", fmt.Errorf("%s is held by %s", list(e.Prefixes()), e.Record)
	case e.LeaseID == 0:
		return fmt.Sprintf("%s is already reserved for %s", list(e.Prefixes()), e.Record), nil
	}
	if _, err := s.Update(ctx, e, e.Record, 0); err != nil {
		return "", err
	}
	return fmt.Sprintf("the lease of %s is now a reservation for %s", list(e.Prefixes()), e.Record), nil
}

func checkSubnets(c subnet.Config, prefixes []netip.Prefix) error {
	if len(prefixes) != len(c.Pools) {
		return usageError{fmt.Errorf("the network is %s: give one subnet of each", list(c.Networks()))}
	}
	for i, p := range prefixes {
		if pool := c.Pools[i]; !pool.Holds(p) {
			return fmt.Errorf("%s is not a subnet of this network: want a /%d inside %s", p, pool.SubnetLen, pool.Network)
		}
	}
	return nil
}

// recordFor returns what to write for a host, and what it holds now.
func recordFor(entries []*subnet.Entry, host string, prefixes []netip.Prefix) (own string, r subnet.Record, err error) {
	addrs, err := parseAddrs(host)
	byName := err != nil
	for _, e := range entries {
		named := byName && e.Host == host || !byName && slices.ContainsFunc(e.Leases,
			func(l subnet.Lease) bool { return slices.Contains(addrs, l.PublicIP) })
		if !named {
			continue
		}
		if own != "" && r.Identity != e.Identity {
			return "", r, fmt.Errorf("several hosts have the name %s: give the address", host)
		}
		own, r.Identity, r.Host = list(e.Prefixes()), e.Identity, e.Host
		r.Leases = nil
		for i, p := range prefixes {
			if i < len(e.Leases) {
				l := e.Leases[i]
				// Without the data of the backend, which the host has at its present subnet: two peers must not share them.
				l.Subnet, l.BackendData = p, ""
				r.Leases = append(r.Leases, l)
			}
		}
	}
	if own != "" {
		return own, r, nil
	}
	if byName {
		return "", r, fmt.Errorf("no record has the host name %s: give the address", host)
	}
	if len(addrs) != len(prefixes) {
		return "", r, usageError{errors.New("give as many addresses as subnets")}
	}
	for i, p := range prefixes {
		r.Leases = append(r.Leases, subnet.Lease{Subnet: p, Attrs: subnet.Attrs{PublicIP: addrs[i]}})
	}
	return "", r, nil
}

func newRelease(a *app) *cobra.Command {
	var force bool
	c := &cobra.Command{
		Use: "release SUBNET", Short: "Delete a reservation, or with --force the lease of a host that is gone for good",
		Args: arguments(1), ValidArgsFunction: completeRecords(a),
		RunE: func(cmd *cobra.Command, args []string) error {
			prefixes, err := parseSubnets(args[0])
			if err != nil {
				return usageError{err}
			}
			return a.withStore(cmd.Context(), func(s *etcdv3.Store) error {
				text, err := release(cmd.Context(), s, prefixes, force)
				if err != nil {
					return err
				}
				return a.say(text)
			})
		},
	}
	c.Flags().BoolVar(&force, "force", false, "also delete a lease; a host that is alive takes it again at once")
	return c
}

func release(ctx context.Context, s *etcdv3.Store, prefixes []netip.Prefix, force bool) (string, error) {
	snap, err := s.List(ctx)
	if err != nil {
		return "", err
	}
	key := subnet.SubnetsFolder + subnet.Key(prefixes)
	i := slices.IndexFunc(snap.Entries, func(e *subnet.Entry) bool { return e.Key == key })
	if i < 0 {
		return "", fmt.Errorf("no host has %s", list(prefixes))
	}
	e := *snap.Entries[i]
	if e.LeaseID != 0 && !force {
		return "", fmt.Errorf("%s is the lease of %s: run \"flannelctl drain\" there; "+
			"if that host is gone for good, use --force", list(prefixes), e.Record)
	}
	if err := s.Delete(ctx, e); err != nil {
		return "", err
	}
	return fmt.Sprintf("%s is free; it was that of %s", list(prefixes), e.Record), nil
}

func parseAddrs(text string) ([]netip.Addr, error) {
	var out []netip.Addr
	for _, part := range splitComma(text) {
		a, err := netip.ParseAddr(part)
		if err != nil {
			return nil, err
		}
		out = append(out, a)
	}
	return out, nil
}
