package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"flanneld/api"
)

func newToken(a *app) *cobra.Command {
	c := &cobra.Command{
		Use: "token", Short: "Create, list and revoke the tokens with which hosts join the store",
		Long: `Hosts join a secured embedded store with a token: flanneld -join TOKEN@HOST. The commands run on a
member of the store, which is a host with flanneld -etcd-embedded.`,
	}
	c.AddCommand(newTokenCreate(a), newTokenList(a), newTokenRevoke(a))
	return c
}

// send sends a request to the daemon and returns the answer.
func send[Out any](ctx context.Context, a *app, path string, in any) (out Out, err error) {
	body, err := json.Marshal(in)
	if err != nil {
		return out, err
	}
	err = a.daemon().Post(ctx, path, body, &out)
	return out, err
}

func newTokenCreate(a *app) *cobra.Command {
	var expires time.Duration
	var member bool
	c := &cobra.Command{
		Use: "create", Short: "Create a token and print the command for the hosts that are to join",
		Long: `Creates a token and prints the command for the hosts that are to join. Whoever has the token can join until it
expires: handle it like a password. Hosts that have joined do not need it any more.`,
		Args: arguments(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			t, err := send[api.Token](cmd.Context(), a, api.PathTokens, api.TokenRequest{Valid: expires, Member: member})
			if err != nil {
				return err
			}
			return a.print(t, func(w page) {
				command := "flanneld"
				if t.Member {
					command += " -etcd-embedded -etcd-embedded-listen ADDRESS:2379"
				}
				w.line("%s -join %s@%s", command, t.Text, strings.Join(t.Services, ","))
				if onLoopback(t.Services) {
					w.line("# No other host reaches the store before this daemon has -etcd-embedded-listen ADDRESS:2379.")
				}
			})
		},
	}
	c.Flags().BoolVar(&member, "member", false, "also let in members of the store, which get the key of its authority")
	c.Flags().DurationVar(&expires, "expires", 24*time.Hour, "`time` for which hosts can join with the token")
	return c
}

// onLoopback reports whether all services are those of this host alone.
func onLoopback(services []string) bool {
	return !slices.ContainsFunc(services, func(s string) bool {
		a, err := netip.ParseAddrPort(s)
		return err != nil || !a.Addr().IsLoopback()
	})
}

func newTokenList(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the tokens, without their secrets", Args: arguments(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			tokens, err := ask[[]api.Token](cmd.Context(), a, api.PathTokens)
			if err != nil {
				return err
			}
			return a.print(tokens, func(w page) {
				w.row("TOKEN", "STATE", "MEMBERS", "CREATED", "EXPIRES")
				for _, t := range tokens {
					w.row(t.ID, t.State, yes(t.Member), local(t.Created), local(t.Expires))
				}
			})
		},
	}
}

func local(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05 MST") }

func newTokenRevoke(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "revoke TOKEN", Short: "Revoke a token: no further host can join with it",
		Long: `Revokes a token, by the ID that "flannelctl token list" shows: no further host can join with it. Hosts that
have joined stay: "flannelctl hosts remove" removes them.`,
		Args: arguments(1), ValidArgsFunction: completeTokens(a),
		RunE: func(cmd *cobra.Command, args []string) error {
			id := args[0]
			if parts := strings.Split(id, "."); len(parts) > 1 {
				id = parts[1] // the whole token
			}
			if _, err := send[api.Named](cmd.Context(), a, api.PathTokenRevoke, api.Named{Name: id}); err != nil {
				return err
			}
			return a.say(fmt.Sprintf("token %s is revoked", id))
		},
	}
}

func newHosts(a *app) *cobra.Command {
	c := &cobra.Command{
		Use: "hosts", Short: "List and remove the hosts that have joined the store",
		Long: `Lists and removes the hosts that have joined a secured embedded store. The commands run on a member of the store.`,
	}
	c.AddCommand(newHostsList(a), newHostsRemove(a))
	return c
}

func newHostsList(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the hosts that have joined the store", Args: arguments(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			hosts, err := ask[[]api.JoinedHost](cmd.Context(), a, api.PathHosts)
			if err != nil {
				return err
			}
			return a.print(hosts, func(w page) {
				w.row("HOST", "USER", "MEMBER", "ADDRESS", "JOINED", "TOKEN")
				for _, h := range hosts {
					w.row(h.Host, h.User, yes(h.Member), h.Address, local(h.Joined), h.Token)
				}
			})
		},
	}
}

func newHostsRemove(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "remove HOST|USER", Short: "Remove a host from the store and delete its record",
		Long: `Removes a host from the store. Its certificate is no longer accepted, and its record is deleted: its subnet becomes
free, and no packets are sent to it. To join again it needs a new token; revoke the tokens that it may know.`,
		Args: arguments(1), ValidArgsFunction: completeJoinedHosts(a),
		RunE: func(cmd *cobra.Command, args []string) error {
			h, err := send[api.JoinedHost](cmd.Context(), a, api.PathHostRemove, api.Named{Name: args[0]})
			if err != nil {
				return err
			}
			return a.say(fmt.Sprintf("%s (%s) is removed", h.Host, h.User))
		},
	}
}
