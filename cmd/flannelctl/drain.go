package main

import (
	"github.com/spf13/cobra"

	"flanneld/api"
)

func newDrain(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "drain", Short: "Give up the lease of this host, and stop forwarding its packets",
		Long: `Gives up the lease of this host, so that another host can take the subnet, and removes device, routes and
subnet file. Containers of this host lose the network: move them to other hosts first.

The daemon keeps running and does nothing. To join again, restart it: the host gets the same subnet if it
is still free. A reservation stays in the store.`,
		Args: arguments(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var d api.Drained
			if err := a.daemon().Post(cmd.Context(), api.PathDrain, nil, &d); err != nil {
				return err
			}
			return a.print(d, func(w page) {
				if len(d.Subnets) > 0 {
					w.line("lease given back: %s", list(d.Subnets))
				}
				for _, o := range d.Removed {
					w.line("removed: %s", o)
				}
				w.line("drained; to join again, restart flanneld; " +
					"to remove it from this host, stop it and run \"flannelctl cleanup\"")
			})
		},
	}
}
