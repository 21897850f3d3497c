package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"flanneld/backend/check"
	"flanneld/redact"
	"flanneld/subnet"
)

const (
	// migrateLook is how often the records are looked at while hosts are waited for.
	migrateLook = time.Second
	// migrateHint is how long hosts may need before what may be wrong is said.
	migrateHint = 15 * time.Second

	migrateStopped = "stopped, traffic is not affected: run the command again to continue, or with --abort to go back"
)

// migration is one run of the command.
type migration struct {
	app     *app
	store   moved
	to      subnet.Setting
	abort   bool
	skip    []string
	pause   time.Duration // after a wait, for all hosts to take in each other's records
	timeout time.Duration // of each wait; 0: none
	said    string
}

func newMigrate(a *app) *cobra.Command {
	m, to := migration{app: a}, ""
	c := &cobra.Command{
		Use: "migrate --to JSON|@FILE|- | --abort", Args: arguments(0),
		Short: "Move the running network to another backend without losing packets",
		Long: `Moves the running network to another backend, or to another VNI. No daemon is restarted, and no packets
are lost. The move has three steps; each begins when all hosts have done the one before:

  1. each host also receives by the new backend, and offers it in its record
  2. each host sends by the new backend to each peer that offers it
  3. each host removes the old backend

Other options of the same backend, such as MTU, take one step.

Press Ctrl-C to interrupt; traffic is not affected. To continue, run the command again, on any host; to go back, run
it with --abort. If the hosts read the configuration from a file, as with the Kubernetes API, the command prints
each new configuration, and continues when the file of this host has it. A host that is down stops the move until
it is back or is named by --skip; it follows when it starts again.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if (to == "") == !m.abort {
				return usageError{errors.New("give either --to or --abort")}
			}
			if to != "" {
				text, err := readConfig(to)
				if err != nil {
					return err
				}
				if m.to, err = subnet.ParseSetting(text); err != nil {
					return usageError{fmt.Errorf("--to: %w", err)}
				}
			}
			return a.moved(cmd.Context(), func(s moved) error {
				m.store = s
				return m.run(cmd.Context())
			})
		},
	}
	c.Flags().StringVar(&to, "to", "", "the new backend, `JSON` as under the key Backend")
	c.Flags().BoolVar(&m.abort, "abort", false, "go back to the backend that the move began with")
	c.Flags().StringArrayVar(&m.skip, "skip", nil,
		"do not wait for the `host` with this name or address; may be repeated")
	c.Flags().DurationVar(&m.pause, "pause", 5*time.Second,
		"`time` between the steps, in which hosts read each other's records")
	c.Flags().DurationVar(&m.timeout, "timeout", 0, "`time` after which a wait fails; 0: never")
	_ = c.RegisterFlagCompletionFunc("skip", completeHosts(a)) // fails only where there is no such flag
	return c
}

// run goes through the steps until the move is done.
func (m *migration) run(ctx context.Context) error {
	for {
		snap, err := m.store.List(ctx)
		if err != nil {
			return err
		}
		config, err := subnet.ParseConfig(snap.Config)
		if err != nil {
			return fmt.Errorf("network configuration in the store: %w", err)
		}
		s, err := m.next(config)
		if err != nil {
			return err
		}
		if err := m.await(ctx, s); err != nil {
			return err
		}
		if s.last {
			return m.app.say(s.done)
		}
		if err := m.write(ctx, snap, s); err != nil {
			return err
		}
	}
}

// step is what is waited for, and the configuration that is written then.
type step struct {
	wait                           string // for people
	has                            func(subnet.Lease) bool
	main, next, previous, migrated subnet.Setting
	done                           string // for people
	last                           bool   // nothing is written
	starts                         bool   // nothing has changed so far
}

// next returns the step that follows from the configuration.
func (m *migration) next(c subnet.Config) (step, error) {
	main := c.Main()
	mainIs := func(s subnet.Setting) func(subnet.Lease) bool {
		return func(l subnet.Lease) bool { return check.Is(l.Ways()[0], s) }
	}
	over := step{
		wait: "remove all backends but " + describe(main), last: true, done: "all hosts have " + describe(main) + " only",
		has: func(l subnet.Lease) bool { return l.Offers == "" && check.Is(l.Ways()[0], main) },
	}
	switch {
	case m.abort && c.Previous.Type != "":
		return step{main: c.Previous, next: main, done: "main backend is " + describe(c.Previous) + " again"}, nil
	case m.abort && c.Next.Type != "":
		return step{
			wait: "send by " + describe(main), has: mainIs(main), main: main,
			done: "removing " + describe(c.Next),
		}, nil
	case m.abort, c.Main().Same(m.to) && c.Next.Type == "" && c.Previous.Type == "":
		return over, nil
	case c.Next.Same(m.to):
		return step{
			wait: "offer " + describe(m.to), main: m.to, previous: main, done: "main backend is " + describe(m.to),
			has: func(l subnet.Lease) bool {
				return slices.ContainsFunc(l.Ways(), func(w subnet.Offer) bool { return check.Is(w, m.to) })
			},
		}, nil
	case main.Same(m.to) && c.Previous.Type != "":
		return step{
			wait: "send by " + describe(main), has: mainIs(main), main: main, migrated: c.Previous,
			done: "removing " + describe(c.Previous),
		}, nil
	case c.Next.Type == "" && c.Previous.Type == "" && check.Adjusts(c, c.Of(m.to)):
		return step{main: m.to, migrated: c.Migrated, done: "changing options: hosts take in " + describe(m.to)}, nil
	case c.Next.Type != "" || c.Previous.Type != "":
		goal := c.Next
		if goal.Type == "" {
			goal = main
		}
		return step{}, fmt.Errorf("the network is on its way to %s: finish that with --to, or go back with --abort, first",
			describe(goal))
	}
	return step{
		starts: true, main: main, next: m.to,
		done: fmt.Sprintf("moving from %s to %s: hosts begin to offer it", describe(main), describe(m.to)),
	}, nil
}

// write writes the configuration of a step.
func (m *migration) write(ctx context.Context, snap subnet.Snapshot, s step) error {
	text, err := subnet.Move(snap.Config, s.main, s.next, s.previous, s.migrated)
	if err != nil {
		return err
	}
	config, err := m.app.validate(ctx, text)
	if err != nil {
		return err
	}
	if s.starts {
		if err := check.Moves(config); err != nil {
			return err
		}
		if others := m.others(snap.Entries); len(others) > 0 {
			return fmt.Errorf("these hosts run flannel, which has one backend at a time: replace it by flanneld first, or give "+
				"--skip for each; nothing was changed: %s", strings.Join(others, ", "))
		}
	}
	if err := m.store.PutConfig(ctx, snap.Config, string(text)); err != nil {
		return err
	}
	return m.app.say(s.done)
}

// others names the hosts of other kinds.
func (m *migration) others(entries []*subnet.Entry) (out []string) {
	for _, e := range entries {
		if m.counts(e) && e.Identity == "" {
			out = append(out, e.Record.String())
		}
	}
	return out
}

// counts reports whether a host is waited for.
func (m *migration) counts(e *subnet.Entry) bool {
	named := func(l subnet.Lease) bool { return slices.Contains(m.skip, l.PublicIP.String()) }
	return e.LeaseID != 0 && !slices.Contains(m.skip, cmp.Or(e.Host, "-")) && !slices.ContainsFunc(e.Leases, named)
}

// await waits until all hosts have done what a step needs, shows who has not, and then lets them take it in: until no
// host has come, or changed its record, for the pause. A host that restarts meanwhile may offer less for a moment.
func (m *migration) await(ctx context.Context, s step) error {
	if s.has == nil {
		return nil
	}
	start, before := time.Now(), records(nil)
	for {
		now, missing, err := m.missing(ctx, s)
		waited := time.Since(start)
		switch {
		case err != nil:
			missing = []string{"the store: " + err.Error()}
		case len(missing) == 0 && (s.last || before.have(now)):
			return nil
		case len(missing) == 0:
			before = now
			if err := m.rest(ctx, m.pause); err != nil {
				return err
			}
			continue
		}
		before = nil
		const most = 10
		names := fmt.Sprintf("%d: %s", len(missing), strings.Join(missing[:min(len(missing), most)], ", "))
		if m.timeout > 0 && waited > m.timeout {
			return fmt.Errorf("after %s these hosts do not %s, %s; run the command again to continue, or with --abort to "+
				"go back", waited.Round(time.Second), s.wait, names)
		}
		text := fmt.Sprintf("waiting for hosts to %s, %s", s.wait, names)
		if waited > migrateHint {
			text += ` (not running, an older flanneld, or see "flannelctl status" there)`
		}
		if text != m.said {
			m.said = text
			if err := m.app.say(text); err != nil {
				return err
			}
		}
		if err := m.rest(ctx, migrateLook); err != nil {
			return err
		}
	}
}

// records are those of the hosts that are waited for, by key.
type records map[string][]subnet.Lease

// have reports whether there was each of the records, as it is now.
func (r records) have(now records) bool {
	for key, leases := range now {
		if !slices.Equal(r[key], leases) {
			return false
		}
	}
	return r != nil
}

// missing returns the records, and names the hosts that have not done what a step needs.
func (m *migration) missing(ctx context.Context, s step) (now records, out []string, err error) {
	entries, err := m.store.Records(ctx)
	if err != nil {
		return nil, nil, err
	}
	now = records{}
	lacks := func(l subnet.Lease) bool { return !s.has(l) }
	for _, e := range entries {
		if !m.counts(e) {
			continue
		}
		now[e.Key] = e.Leases
		if slices.ContainsFunc(e.Leases, lacks) {
			out = append(out, e.Record.String())
		}
	}
	return now, out, nil
}

// rest waits for a time.
func (m *migration) rest(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return errors.New(migrateStopped)
	case <-t.C:
		return nil
	}
}

// describe names a backend for people.
func describe(s subnet.Setting) string {
	if len(s.Object) == 0 {
		return s.Type
	}
	return string(redact.Text(s.Object))
}
