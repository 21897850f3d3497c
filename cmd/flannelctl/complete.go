package main

import (
	"context"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"flanneld/api"
)

// completion offers what find returns for the first argument of a command, or the value of a flag. Without a daemon
// there is nothing to offer.
func completion(find func(ctx context.Context) []cobra.Completion) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return find(cmd.Context()), cobra.ShellCompDirectiveNoFileComp
	}
}

// completed offers what the answer of the daemon lists: a word, and what is said about it.
func completed[T any](a *app, path string, offer func(T) (word, about string)) cobra.CompletionFunc {
	return completion(func(ctx context.Context) (out []cobra.Completion) {
		all, _ := ask[[]T](ctx, a, path)
		for _, one := range all {
			if word, about := offer(one); word != "" {
				out = append(out, cobra.CompletionWithDesc(clean(word), clean(about)))
			}
		}
		return out
	})
}

func completeTokens(a *app) cobra.CompletionFunc {
	return completed(a, api.PathTokens, func(t api.Token) (string, string) { return t.ID, t.State })
}

func completeJoinedHosts(a *app) cobra.CompletionFunc {
	return completed(a, api.PathHosts, func(h api.JoinedHost) (string, string) { return h.Host, h.Address })
}

func completeMembers(a *app) cobra.CompletionFunc {
	return completed(a, api.PathMembers, func(m api.Member) (string, string) { return m.Host, role(m) })
}

// completeRecords offers the subnets of all records.
func completeRecords(a *app) cobra.CompletionFunc {
	return completion(func(ctx context.Context) (out []cobra.Completion) {
		leases, _ := ask[api.Leases](ctx, a, api.PathLeases)
		for _, r := range leases.Records {
			if len(r.Subnets) > 0 {
				out = append(out, cobra.CompletionWithDesc(strings.ReplaceAll(list(r.Subnets), " ", ""), clean(r.Host)))
			}
		}
		return out
	})
}

// completeHosts offers the hosts of all records.
func completeHosts(a *app) cobra.CompletionFunc {
	return completion(func(ctx context.Context) (out []cobra.Completion) {
		leases, _ := ask[api.Leases](ctx, a, api.PathLeases)
		for _, r := range leases.Records {
			if r.Host != "" {
				out = append(out, cobra.CompletionWithDesc(clean(r.Host), list(r.Subnets)))
			}
		}
		return slices.Compact(out)
	})
}

// completePeers offers hosts and subnets of peers.
func completePeers(a *app) cobra.CompletionFunc {
	return completion(func(ctx context.Context) (out []cobra.Completion) {
		peers, _ := ask[[]api.Peer](ctx, a, api.PathPeers)
		for _, p := range peers {
			if p.Host != "" {
				out = append(out, cobra.CompletionWithDesc(clean(p.Host), p.Subnet.String()))
			}
			out = append(out, p.Subnet.String())
		}
		return out
	})
}
