package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"flanneld/doctor"
	"flanneld/options"
	"flanneld/subnet"
	"flanneld/subnet/annotation"
	"flanneld/subnet/etcdv3"
)

func newNodes(a *app) *cobra.Command {
	var prefix string
	c := &cobra.Command{
		Use: "nodes", Short: "Print the kubectl commands that take the records over into Node objects",
		Long: `Prints one kubectl command for each record in etcd. It gives the Node object the subnet as podCIDR, and the
annotations that daemons with -kube-subnet-mgr read. Changes nothing itself.
docs/kubernetes.md has the steps of the migration.`,
		Args: arguments(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := annotation.Check(prefix); err != nil {
				return usageError{fmt.Errorf("--annotation-prefix: %w", err)}
			}
			return a.withStore(cmd.Context(), func(s *etcdv3.Store) error {
				snap, err := s.List(cmd.Context())
				if err != nil {
					return err
				}
				return a.write(nodeCommands(snap, prefix))
			})
		},
	}
	c.Flags().StringVar(&prefix, "annotation-prefix", options.Defaults().KubeAnnotationPrefix,
		"`prefix` of the annotations: the daemons' -kube-annotation-prefix")
	return c
}

// nodeCommands returns a script. A host that publishes no name needs the operator, who must replace NAME.
func nodeCommands(snap subnet.Snapshot, prefix string) string {
	var b strings.Builder
	for _, e := range snap.Entries {
		if doctor.Unclaimed(*e) {
			fmt.Fprintf(&b, "# %s is a reservation that no host has taken\n", list(e.Prefixes()))
			continue
		}
		if e.Host == "" {
			fmt.Fprintf(&b, "# the host at %s publishes no name: put that of its node in place of NAME\n", e.Leases[0].PublicIP)
		}
		patch, _ := json.Marshal(nodePatch(e.Record, prefix)) // strings alone: it cannot fail
		fmt.Fprintf(&b, "kubectl patch node %s --patch=%s\n", quote(cmp.Or(e.Host, "NAME")), quote(string(patch)))
	}
	for _, bad := range snap.Bad {
		fmt.Fprintf(&b, "# %q is not valid: %q\n", bad.Key, bad.Err.Error())
	}
	return b.String()
}

// quote makes one word of the shell of a text.
func quote(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }

// nodePatch is what a Node object gets of a record.
func nodePatch(r subnet.Record, prefix string) map[string]any {
	var cidrs []string
	for _, p := range r.Prefixes() {
		cidrs = append(cidrs, p.String())
	}
	return map[string]any{
		"metadata": map[string]any{"annotations": annotation.NewNames(prefix).Of(r.Leases)},
		"spec":     map[string]any{"podCIDR": cidrs[0], "podCIDRs": cidrs},
	}
}
