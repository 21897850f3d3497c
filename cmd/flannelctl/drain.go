package main

import (
	"github.com/spf13/cobra"

	"flanneld/api"
)

func newDrain(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "drain", Short: "Give the lease back and leave the network; the daemon idles until it is restarted",
		Long: `Gives this host's lease back, so that another host may have the subnet, and removes device, routes and
subnet file. Pods of this host lose the network: move them first. The daemon goes on running and does nothing, also
when the service manager would restart it; restarting it joins again, with another subnet if this one is taken.
A reservation stays in the store.`,
		Args: arguments(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var d api.Drained
			if err := a.daemon().Post(cmd.Context(), api.PathDrain, nil, &d); err != nil {
				return err
			}
			return a.print(d, func(w page) {
				if len(d.Subnets) > 0 {
					w.line("given back: %s", list(d.Subnets))
				}
				for _, o := range d.Removed {
					w.line("removed: %s", o)
				}
				w.line("drained: restart flanneld to join again, or stop it and run \"flannelctl cleanup\"")
			})
		},
	}
}
