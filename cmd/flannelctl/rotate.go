package main

import (
	"github.com/spf13/cobra"

	"flanneld/api"
)

func newRotate(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "rekey", Short: "Give this host a new WireGuard key",
		Long: `Makes a new key pair for this host, writes the private key to its files, publishes the public key, and starts
new sessions with all peers. Traffic with this host stops for about half a second.

Only for the backend wireguard. Change the key of one host after the other.`,
		Args: arguments(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var r api.Rotated
			if err := a.daemon().Post(cmd.Context(), api.PathRotate, nil, &r); err != nil {
				return err
			}
			return a.print(r, func(w page) { w.line("public key: %s", r.PublicKey) })
		},
	}
}
