package main

import (
	"path/filepath"

	"github.com/spf13/cobra"

	"flanneld/api"
)

func newMembersRecover(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "recover", Short: "Go on with this member alone, after a majority of the members was lost for good",
		Long: `Makes this member the only one of the store, with its data. Subnets, tokens and the network configuration stay.
The command is refused while a majority of the members works, and if another member that answers has newer data.
Packets flow meanwhile. Make sure that the other members do not still run behind a network fault: what was changed
there is lost when they come back.

Other members that come back are added again automatically, with the data of this one. Their former data are moved
away.`,
		Args: arguments(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var r api.Restored
			if err := a.daemon().Post(cmd.Context(), api.PathRecover, nil, &r); err != nil {
				return err
			}
			return a.print(r, func(w page) {
				w.line("the store is recovered from the data of this member, which is now the only member")
				former(w, r)
			})
		},
	}
}

func newRestore(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "restore [SNAPSHOT]", Short: "Restore a snapshot of the store",
		Long: `Replaces the data of the store by a snapshot: the newest one that the daemon has saved, or the given file. The
command runs on a member of a secured embedded store, whose daemon must run. This member is then the only one; other
members are added again automatically, with the data of the snapshot. All former data are moved away.

Hosts keep their subnets, and write their records again where the snapshot has none. Hosts that joined after the
snapshot was saved need a new token. Hosts that were removed after it are in the store again.`,
		Args: func(cmd *cobra.Command, args []string) error { return arguments(min(len(args), 1))(cmd, args) },
		RunE: func(cmd *cobra.Command, args []string) error {
			var from api.Named
			if len(args) == 1 {
				path, err := filepath.Abs(args[0])
				if err != nil {
					return err
				}
				from.Name = path
			}
			r, err := send[api.Restored](cmd.Context(), a, api.PathRestore, from)
			if err != nil {
				return err
			}
			return a.print(r, func(w page) {
				w.line("the store is restored from %s; this member is now the only member", r.From)
				former(w, r)
			})
		},
	}
}

// former says what becomes of the members of the former store.
func former(w page, r api.Restored) {
	w.line("former data are kept beside the new ones, in etcd.old-TIME: remove them when everything works")
	for _, h := range r.Former {
		w.line("member %s (%s) is added again automatically when its daemon runs; if it is gone for good, run "+
			"\"flannelctl members remove %s\"", h.Host, h.User, h.User)
	}
}
