package main

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"flanneld/api"
)

func newMembers(a *app) *cobra.Command {
	c := &cobra.Command{
		Use: "members", Short: "List and remove the members of the store, and recover it",
		Long: `Lists and removes the members of a secured embedded store, and recovers it after the loss of a majority. The
commands run on a member of it.`,
	}
	c.AddCommand(newMembersList(a), newMembersRemove(a), newMembersRecover(a))
	return c
}

func newMembersList(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the members of the store and their health", Args: arguments(0),
		Long: `Lists the members of the store. Of the voters a majority must be healthy; a learner gets all changes and has no
vote. Learners become voters automatically, in pairs: one voter, three, five.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			members, err := ask[[]api.Member](cmd.Context(), a, api.PathMembers)
			if err != nil {
				return err
			}
			slices.SortStableFunc(members, func(m, n api.Member) int { return cmp.Compare(m.Host, n.Host) })
			return a.print(members, func(w page) {
				w.row("HOST", "USER", "ROLE", "HEALTHY", "ADDRESS", "ID")
				for _, m := range members {
					w.row(cmp.Or(m.Host, "-"), cmp.Or(m.User, "-"), role(m), yes(m.Healthy), cmp.Or(m.Address, m.Peer), m.ID)
				}
			})
		},
	}
}

func role(m api.Member) string {
	switch {
	case m.Address == "":
		return "not started"
	case m.Learner:
		return "learner"
	case m.Leader:
		return "leader"
	}
	return "voter"
}

func newMembersRemove(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "remove HOST|USER|ID", Short: "Remove a member of the store, and its host",
		Long: `Removes a member, deletes the user and the record of its host, and frees its subnet. The command is refused
if the other members would have no majority of healthy ones. The removed host has the key of the certificate
authority: if others may have read it, replace the authority (docs/embedded-etcd.md).`,
		Args: arguments(1), ValidArgsFunction: completeMembers(a),
		RunE: func(cmd *cobra.Command, args []string) error {
			m, err := send[api.Member](cmd.Context(), a, api.PathMemberRemove, api.Named{Name: args[0]})
			if err != nil {
				return err
			}
			return a.say(fmt.Sprintf("member %s (%s) is removed", cmp.Or(m.Host, m.Peer), m.ID))
		},
	}
}
