package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"flanneld/api"
	"flanneld/subnet"
	"flanneld/subnet/etcdv3"
)

func newLeases(a *app) *cobra.Command {
	c := &cobra.Command{Use: "leases", Short: "List, watch, reserve and release subnets of hosts", Args: arguments(0)}
	c.RunE = func(cmd *cobra.Command, _ []string) error { return a.listLeases(cmd.Context()) }
	c.AddCommand(
		&cobra.Command{Use: "list", Short: "List all records of the network: leases, reservations and invalid records",
			Args: arguments(0), RunE: c.RunE},
		&cobra.Command{
			Use: "watch", Short: "Print all records, then each change, until interrupted", Args: arguments(0),
			RunE: func(cmd *cobra.Command, _ []string) error { return a.watchLeases(cmd.Context()) },
		},
		newReserve(a), newRelease(a), newHistory(a), newNodes(a),
	)
	return c
}

// listLeases prints what the daemon knows, or the store if there is no daemon.
func (a *app) listLeases(ctx context.Context) error {
	leases, err := ask[api.Leases](ctx, a, api.PathLeases)
	if a.storeSet || errors.Is(err, api.ErrNoDaemon) {
		leases, err = a.storedLeases(ctx)
	}
	if err != nil {
		return err
	}
	sortRecords(leases.Records)
	a.addExpiries(ctx, leases.Records)
	return a.print(leases, func(w page) {
		since := "SINCE REVISION"
		if slices.ContainsFunc(leases.Records, func(r api.Record) bool { return r.Since != nil }) {
			since = "SINCE"
		}
		w.row(a.wider([]any{"SUBNET", "ADDRESS", "HOST", "BACKEND", "KIND", "EXPIRES"}, since, "REVISION", "IDENTITY",
			"REMARK")...)
		for _, r := range leases.Records {
			w.row(a.wider([]any{strings.TrimPrefix(keyOf(r), subnet.SubnetsFolder), list(r.PublicIPs), r.Host, r.Backend,
				kindOf(r),
				expiryOf(r)}, sinceOf(r), r.Revision, r.Identity, remarkOn(r))...)
		}
	})
}

// sinceOf returns when a record was made: a revision of etcd, or the time of a Node object.
func sinceOf(r api.Record) string {
	switch {
	case r.Since != nil:
		return r.Since.Local().Format(stamp)
	case r.Created != 0:
		return strconv.FormatInt(r.Created, 10)
	}
	return ""
}

func keyOf(r api.Record) string {
	if len(r.Subnets) > 0 {
		return list(r.Subnets)
	}
	return r.Key
}

func kindOf(r api.Record) string {
	switch {
	case r.Kept:
		return "stale"
	case r.Reservation:
		return "reservation"
	case len(r.Subnets) == 0:
		return "invalid"
	}
	return "lease"
}

func remarkOn(r api.Record) string {
	switch {
	case r.Own:
		return "this host"
	case r.Reservation && r.Identity == "":
		// It lacks what only its host can publish, such as a hardware address, and so is no peer. That is no fault.
		return "not taken yet"
	}
	return r.Skipped
}

// storedLeases reads the records without a daemon.
func (a *app) storedLeases(ctx context.Context) (api.Leases, error) {
	var out api.Leases
	err := a.withStore(ctx, func(s *etcdv3.Store) error {
		snap, err := s.List(ctx)
		if err != nil {
			return err
		}
		out = api.Leases{Revision: snap.Revision, Records: []api.Record{}}
		for _, e := range snap.Entries {
			out.Records = append(out.Records, recordOf(*e))
		}
		for _, b := range snap.Bad {
			out.Records = append(out.Records, api.Record{Key: b.Key, Revision: b.Revision, Skipped: b.Err.Error()})
		}
		return nil
	})
	return out, err
}

func recordOf(e subnet.Entry) api.Record {
	r := api.Record{
		Key: e.Key, Subnets: e.Prefixes(), Host: e.Host, Identity: e.Identity, Reservation: e.LeaseID == 0,
		Created: e.Created, Revision: e.Revision,
	}
	if e.LeaseID != 0 {
		r.Lease = strconv.FormatInt(int64(e.LeaseID), 16)
	}
	for _, l := range e.Leases {
		r.PublicIPs, r.Backend = append(r.PublicIPs, l.PublicIP), l.BackendType
	}
	return r
}

// withStore opens the store for as long as f runs.
func (a *app) withStore(ctx context.Context, f func(*etcdv3.Store) error) error {
	s, err := a.open(ctx)
	if err != nil {
		return err
	}
	return errors.Join(f(s), s.Close())
}

// change is one line of "leases watch".
type change struct {
	Time    time.Time   `json:"time"`
	Change  string      `json:"change"` // put, delete, bad, config
	Key     string      `json:"key,omitempty"`
	Record  *api.Record `json:"record,omitempty"`
	Problem string      `json:"problem,omitempty"`

	word string // for people
}

func (a *app) watchLeases(ctx context.Context) error {
	return a.withStore(ctx, func(s *etcdv3.Store) error {
		snap, err := s.List(ctx)
		if err != nil {
			return err
		}
		var printing error
		known := map[string]*api.Record{} // by key; a deletion does not say what was deleted
		for _, e := range snap.Entries {
			printing = errors.Join(printing, a.printEvent(subnet.Event{Put: e}, known, "listed"))
		}
		err = s.Watch(ctx, snap.Position, 0, func(events []subnet.Event) {
			for _, ev := range events {
				printing = errors.Join(printing, a.printEvent(ev, known, "added"))
			}
		})
		if ctx.Err() != nil {
			return printing
		}
		return errors.Join(err, printing)
	})
}

// printEvent prints a change. added is the word for a record that was not known.
func (a *app) printEvent(ev subnet.Event, known map[string]*api.Record, added string) error {
	c := change{Time: time.Now(), word: added}
	switch {
	case ev.Put != nil && ev.Put.Claim, strings.HasPrefix(ev.Deleted, subnet.ClaimsFolder), !ev.IsChange():
		return nil
	case ev.Put != nil:
		r := recordOf(*ev.Put)
		c.Change, c.Key, c.Record = "put", ev.Put.Key, &r
		if known[c.Key] != nil {
			c.word = "changed"
		}
		known[c.Key] = &r
	case ev.Bad != nil:
		c.Change, c.Key, c.Problem, c.word = "bad", ev.Bad.Key, ev.Bad.Err.Error(), "invalid"
	case ev.ConfigSet:
		c.Change, c.Key = "config", "config"
	default:
		c.Change, c.Key, c.Record, c.word = "delete", ev.Deleted, known[ev.Deleted], "deleted"
		delete(known, ev.Deleted)
	}
	return a.print(c, func(w page) { w.line("%s %s", c.Time.Format(stamp), c.text()) })
}

// text says what has changed.
func (c change) text() string {
	switch {
	case c.Change == "config":
		return "network configuration changed"
	case c.Record != nil && len(c.Record.Subnets) > 0:
		return strings.Join(strings.Fields(fmt.Sprintf("%s %s %s %s %s", c.word, list(c.Record.Subnets),
			list(c.Record.PublicIPs), c.Record.Host, kindOf(*c.Record))), " ")
	}
	return strings.TrimSpace(c.word + " " + strings.TrimPrefix(c.Key, subnet.SubnetsFolder) + " " + c.Problem)
}

func newHistory(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "history SUBNET", Short: "Show which hosts had a subnet, back to etcd's last compaction", Args: arguments(1),
		ValidArgsFunction: completeRecords(a),
		RunE: func(cmd *cobra.Command, args []string) error {
			prefixes, err := parseSubnets(args[0])
			if err != nil {
				return usageError{err}
			}
			return a.withStore(cmd.Context(), func(s *etcdv3.Store) error {
				changes, from, err := s.History(cmd.Context(), subnet.SubnetsFolder+subnet.Key(prefixes))
				if err != nil {
					return err
				}
				return a.printHistory(changes, from)
			})
		},
	}
}

func (a *app) printHistory(changes []etcdv3.Change, from int64) error {
	type step struct {
		Revision int64       `json:"revision"`
		Deleted  bool        `json:"deleted,omitempty"`
		Record   *api.Record `json:"record,omitempty"`
		Problem  string      `json:"problem,omitempty"`
	}
	steps := []step{}
	for _, c := range changes {
		st := step{Revision: c.Revision, Deleted: c.Deleted, Problem: c.Problem}
		if len(c.Record.Leases) > 0 {
			r := recordOf(subnet.Entry{Record: c.Record, Key: c.Record.Key(), Revision: c.Revision, LeaseID: c.Lease})
			st.Record = &r
		}
		steps = append(steps, st)
	}
	return a.print(steps, func(w page) {
		w.row("REVISION", "ADDRESS", "HOST", "KIND", "REMARK")
		for _, s := range steps {
			switch {
			case s.Record != nil:
				w.row(s.Revision, list(s.Record.PublicIPs), s.Record.Host, kindOf(*s.Record), "")
			case s.Deleted:
				w.row(s.Revision, "", "", "free", "deleted or expired")
			default:
				w.row(s.Revision, "", "", "invalid", s.Problem)
			}
		}
		w.line("older changes than revision %d are compacted", from)
	})
}

// parseSubnets reads the subnets of one host, separated by a comma or as in the store's key.
func parseSubnets(text string) ([]netip.Prefix, error) {
	if p, err := subnet.ParseKey(strings.TrimPrefix(text, subnet.SubnetsFolder)); err == nil {
		return p, nil
	}
	var out []netip.Prefix
	for part := range strings.SplitSeq(text, ",") {
		p, err := netip.ParsePrefix(strings.TrimSpace(part))
		if err != nil {
			return nil, fmt.Errorf("%q is no subnet, want one such as 10.5.34.0/24; "+
				"of a dual-stack host, both separated by a comma", part)
		}
		if p != p.Masked() {
			return nil, fmt.Errorf("%s has host bits set, did you mean %s?", p, p.Masked())
		}
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) })
	if _, err := subnet.ParseKey(subnet.Key(out)); err != nil {
		return nil, err
	}
	return out, nil
}
