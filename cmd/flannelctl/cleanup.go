package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"flanneld/api"
	wireguard "flanneld/backend/wireguard/options"
	"flanneld/doctor"
	"flanneld/ip"
	"flanneld/options"
	"flanneld/subnet"
)

// cleanup is what "flannelctl cleanup" was told.
type cleanup struct {
	*app
	dryRun    bool
	flannel   bool
	storeData bool
	kernel    ip.Kernel
	network   string // prefix in the store, as the state remembers it
	done      []string
}

func newCleanup(a *app) *cobra.Command {
	c := cleanup{app: a}
	cmd := &cobra.Command{
		Use: "cleanup", Short: "Remove what a stopped daemon has left on this host",
		Long: `Removes the device, routes, firewall table, subnet file, socket and state of a flanneld that has been stopped.
Containers of this host lose the network. --dry-run prints what would be removed.

Not removed: the lease in the store (run "flannelctl drain" before you stop the daemon to give it up), what a
former flannel has left (--flannel), and the data and credentials of an embedded etcd (--store-data).`,
		Args: arguments(0),
		RunE: func(cmd *cobra.Command, _ []string) error { return c.run(cmd.Context()) },
	}
	cmd.Flags().BoolVar(&c.dryRun, "dry-run", false, "print what would be removed, and remove nothing")
	cmd.Flags().BoolVar(&c.flannel, "flannel", false, "also remove devices, routes and rules of a former flannel")
	cmd.Flags().BoolVar(&c.storeData, "store-data", false,
		"also remove the data of an embedded etcd, and the credentials for it: the network configuration and all leases are "+
			"lost, or this host needs a new token")
	return cmd
}

func (c *cleanup) run(ctx context.Context) error {
	if err := c.stopped(ctx); err != nil {
		return err
	}
	k, err := ip.NewKernel(slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	c.kernel = k
	scope, err := c.scope()
	if err != nil {
		return err
	}
	err = errors.Join(c.objects(scope), c.firewall(ctx), c.files())
	return errors.Join(c.print(c.done, func(w page) {
		for _, line := range c.done {
			w.line("%s", line)
		}
		if len(c.done) == 0 {
			w.line("nothing to remove")
		}
	}), err)
}

// stopped says that a daemon still runs, by its socket and by its lock.
func (c *cleanup) stopped(ctx context.Context) error {
	_, err := ask[api.Ready](ctx, c.app, api.PathReady)
	switch {
	case err == nil:
		return errors.New("flanneld runs: give its lease back (flannelctl drain) and stop it (systemctl stop flanneld) first")
	case !errors.Is(err, api.ErrNoDaemon):
		return fmt.Errorf("find out whether flanneld runs: %w", err)
	}
	if c.dryRun {
		return nil
	}
	if _, err := os.Stat(subnet.StateFiles(c.stateDir, c.subnetFile)[2]); err != nil {
		return nil
	}
	s, err := subnet.OpenState(c.stateDir, c.subnetFile)
	if err != nil {
		return err
	}
	return errors.Join(s.Unwritable(), s.Close())
}

// scope says what is ours, from the state and the subnet file of the daemon that ran.
func (c *cleanup) scope() (ip.Scope, error) {
	s := ip.Scope{BootGateways: c.flannel}
	st, err := subnet.ReadState(c.stateDir, c.subnetFile)
	if err != nil {
		c.done = append(c.done, fmt.Sprintf("state ignored: %v", err))
	}
	s.Links, s.Networks = st.Links, st.Networks
	c.network = cmp.Or(st.Network, options.Defaults().EtcdPrefix)
	if e, err := subnet.ReadEnv(c.subnetFile); err == nil {
		for _, n := range e.Networks {
			if !slices.Contains(s.Networks, n) {
				s.Networks = append(s.Networks, n)
			}
		}
	}
	if !c.flannel {
		return s, nil
	}
	links, err := c.kernel.Interfaces()
	if err != nil {
		return s, err
	}
	others := subnet.ReadOtherStates(c.stateDir, c.subnetFile)
	for _, l := range links {
		switch {
		case !doctor.Devices.MatchString(l.Name), slices.Contains(s.Links, l.Name):
		case doctor.Uses(others, l.Name):
			c.done = append(c.done, fmt.Sprintf("kept: %s, the device of another network of this host", l.Name))
		default:
			s.Links = append(s.Links, l.Name)
		}
	}
	return s, nil
}

// objects removes what stands in the kernel.
func (c *cleanup) objects(scope ip.Scope) error {
	ops, err := ip.Remains(c.kernel, scope)
	if err != nil {
		return err
	}
	for _, op := range ops {
		c.note("%s %s", op.Object.Kind(), op.Object)
	}
	if c.dryRun || len(ops) == 0 {
		return nil
	}
	return c.kernel.Apply(ops)
}

// files removes what the daemon writes, and the folders if nothing else is in them.
func (c *cleanup) files() error {
	paths := append([]string{c.subnetFile, api.SocketPath(c.subnetFile)}, subnet.StateFiles(c.stateDir, c.subnetFile)...)
	if os.Getenv("WIREGUARD_KEY_FILE") == "" {
		paths = append(paths, wireguard.FindKeyFiles(c.stateDir, c.subnetFile)...)
	}
	var errs []error
	for _, p := range paths {
		if _, err := os.Lstat(p); err != nil {
			continue
		}
		c.note("file %s", p)
		if !c.dryRun {
			errs = append(errs, os.Remove(p))
		}
	}
	errs = append(errs, c.storeFiles())
	if c.dryRun {
		return nil
	}
	for _, dir := range []string{filepath.Dir(c.subnetFile), c.stateDir} {
		if os.Remove(dir) == nil { // fails where something is in it
			c.note("folder %s", dir)
		}
	}
	return errors.Join(errs...)
}

// storeFiles removes what an embedded etcd and those that have joined it keep, if that is asked for, else it names it.
func (c *cleanup) storeFiles() error {
	var errs []error
	for _, kept := range []struct{ name, what string }{
		{"etcd", "data of the embedded etcd in %s"}, {"store", "credentials for a secured etcd in %s"},
		{"snapshots", "snapshots of the embedded etcd in %s"},
		{"etcd-insecure", "mark %s of an embedded etcd without security"},
	} {
		path := filepath.Join(c.stateDir, kept.name)
		what := fmt.Sprintf(kept.what, path)
		if _, err := os.Stat(path); err != nil {
			continue
		}
		if !c.storeData {
			c.done = append(c.done, fmt.Sprintf("kept: %s (--store-data removes this)", what))
			continue
		}
		c.note("%s", what)
		if !c.dryRun {
			errs = append(errs, os.RemoveAll(path))
		}
	}
	return errors.Join(errs...)
}

func (c *cleanup) note(format string, args ...any) {
	verb := "removed: "
	if c.dryRun {
		verb = "would remove: "
	}
	c.done = append(c.done, verb+fmt.Sprintf(format, args...))
}
